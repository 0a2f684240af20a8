"""Small modules, one for each thing that can happen to a constant on its way back. Needs PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = [
    "Labels",
    "Namesakes",
    "NormTwice",
    "Norms",
    "Reused",
    "SameMemory",
    "Shortcut",
    "TwoInputs",
    "WorksOtherwise",
    "normed",
    "plain",
    "relu6",
]


def plain() -> nn.Sequential:
    """A small VGG: convolutions with ReLU, pooling, a dense layer."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(6, 4, 3, padding=1, bias=False), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5),
    )  # fmt: skip


def normed() -> nn.Sequential:
    """The same with batch normalization as it starts: all scales 1, all biases 0."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.5),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5),
    )  # fmt: skip


def relu6() -> nn.Sequential:
    """A bound that is no parameter, behind a convolution that is free."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU6(), nn.Flatten(), nn.Linear(8 * 144, 5)
    )


class Shortcut(nn.Module):
    """A residual block."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.first = nn.Conv2d(8, 8, 3, padding=1)
        self.second = nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Conv2d(8, 2, 1)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        x = self.stem(image).relu()
        x = (x + self.second(self.first(x).relu())).relu()
        return {"map": self.head(x)}


class Norms(nn.Module):
    """Normalizations by the own input, each behind a ReLU; the last one is no module."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.GroupNorm(2, 4, eps=1e-3))
        self.second = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.ReLU(), nn.InstanceNorm2d(4, affine=True))
        self.third = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.ReLU(), nn.LayerNorm([4, 16, 16]))
        self.fourth = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.ReLU())
        self.head = nn.Conv2d(4, 2, 1)

    def forward(self, image: Tensor) -> Tensor:
        x = self.fourth(self.third(self.second(self.first(image))))
        return self.head(functional.layer_norm(x, [4, 16, 16]))


class NormTwice(nn.Module):
    """One normalization that runs twice, behind different convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 1, 3, padding=1)
        self.second = nn.Conv2d(1, 1, 3, padding=1)
        self.norm = nn.LayerNorm([1, 16, 16], elementwise_affine=False)
        self.head = nn.Conv2d(1, 2, 1)

    def forward(self, image: Tensor) -> Tensor:
        x = self.norm(self.first(image).relu())
        return self.head(self.norm(self.second(x).relu()))


class Reused(nn.Module):
    """One convolution that runs twice, under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.middle = nn.Conv2d(4, 4, 3, padding=1)
        self.again = self.middle
        self.last = nn.Conv2d(4, 4, 3, padding=1)
        self.head = nn.Conv2d(4, 2, 1)

    def forward(self, image: Tensor) -> Tensor:
        x = self.stem(image).relu()
        x = self.again(self.middle(x).relu()).relu()
        return self.head(self.last(x).relu())


class SameMemory(nn.Module):
    """Two parameters in the same memory."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.first = nn.Conv2d(4, 4, 3, padding=1, bias=False)
        self.second = nn.Conv2d(4, 4, 3, padding=1, bias=False)
        self.second.weight = nn.Parameter(self.first.weight.data)
        self.head = nn.Conv2d(4, 2, 1)

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.second(self.first(self.stem(image).relu()).relu()).relu())


class Namesakes(nn.Module):
    """A parameter that has the name of the argument, a buffer that is not saved, and a tensor that is neither."""

    def __init__(self) -> None:
        super().__init__()
        self.image = nn.Parameter(torch.rand(4, 1, 1) + 0.5)
        self.first = nn.Conv2d(3, 4, 3)
        self.second = nn.Conv2d(4, 4, 3)
        self.head = nn.Conv2d(4, 2, 1)
        self.register_buffer("buffer", torch.rand(1, 4, 1, 1) + 0.5, persistent=False)
        self.literal = torch.rand(1, 4, 1, 1) + 0.5

    def forward(self, image: Tensor) -> Tensor:
        x = self.first(image).relu() * self.image
        return self.head((self.second(x).relu() * self.buffer * self.literal).relu())


class Labels(nn.Module):
    """A network that returns the label in front of what it was taken from."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.second = nn.Conv2d(4, 5, 3, padding=1)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        x = self.first(image).relu()
        return self.second(x).argmax(1), x


class TwoInputs(nn.Module):
    """An image and a vector that is added to its channels."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3)
        self.dense = nn.Linear(2, 4)
        self.second = nn.Conv2d(4, 4, 3)
        self.head = nn.Conv2d(4, 2, 1)

    def forward(self, image: Tensor, code: Tensor) -> tuple[Tensor, list[Tensor]]:
        x = self.first(image).relu() * self.dense(code).relu()[:, :, None, None]
        return self.head(self.second(x).relu()), [code]


class WorksOtherwise(nn.Module):
    """What is exported is not what runs: only there does the second convolution see what the first one makes."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 3, 3, padding=1)
        self.second = nn.Conv2d(3, 2, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        x = functional.relu(self.first(image))
        return self.second(x if torch.onnx.is_in_onnx_export() else image)
