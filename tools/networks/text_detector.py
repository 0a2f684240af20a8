"""A text detector in the manner of PP-OCR: learnable affine blocks around HardSwish, squeeze-and-excitation, an FPN.

Source:
    Cui et al.: PP-LCNet: A Lightweight CPU Convolutional Neural Network (2021), section 3, for the backbone;
    Liao et al.: Real-Time Scene Text Detection with Differentiable Binarization (AAAI 2020), section 3, for the head.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["TextDetector"]


class Affine(nn.Module):
    """One learned factor and one learned summand for all channels."""

    def __init__(self, scale: float = 1.0, shift: float = 0.0) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor([scale]))
        self.shift = nn.Parameter(torch.tensor([shift]))

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * x + self.shift


class Layer(nn.Module):
    """Convolution, normalization, affine block, HardSwish, affine block."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1, seed: int = 0) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(outputs)
        draw = torch.rand(4, generator=torch.Generator().manual_seed(seed)).tolist()
        self.before = Affine(0.5 + draw[0], 0.4 * draw[1] - 0.2)
        self.after = Affine(0.5 + draw[2], 0.4 * draw[3] - 0.2)

    def forward(self, x: Tensor) -> Tensor:
        return self.after(functional.hardswish(self.before(self.norm(self.conv(x)))))


class Excitation(nn.Module):
    """Squeeze and excitation with a HardSigmoid."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.down = nn.Conv2d(channels, channels // 4, 1)
        self.up = nn.Conv2d(channels // 4, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        squeezed = functional.relu(self.down(functional.adaptive_avg_pool2d(x, 1)))
        return x * functional.hardsigmoid(self.up(squeezed))


def separable(inputs: int, outputs: int, kernel: int, stride: int, excited: bool, seed: int) -> nn.Sequential:
    """A depthwise layer, excitation where asked for, and a pointwise layer."""
    depthwise = Layer(inputs, inputs, kernel, stride, inputs, seed)
    middle = [Excitation(inputs)] if excited else []
    return nn.Sequential(depthwise, *middle, Layer(inputs, outputs, 1, seed=seed + 1))


class Head(nn.Module):
    """From features to a probability at full resolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        narrow = channels // 4
        self.layers = nn.Sequential(
            nn.Conv2d(channels, narrow, 3, padding=1, bias=False), nn.BatchNorm2d(narrow), nn.ReLU(),
            nn.ConvTranspose2d(narrow, narrow, 2, 2), nn.BatchNorm2d(narrow), nn.ReLU(),
            nn.ConvTranspose2d(narrow, 1, 2, 2), nn.Sigmoid(),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class TextDetector(nn.Module):
    """Backbone, feature pyramid and head."""

    def __init__(self, width: int = 16, neck: int = 48) -> None:
        super().__init__()
        self.stem = nn.Sequential(Layer(3, width, 3, 2, seed=1), separable(width, 2 * width, 3, 1, False, 3))
        sizes = [2 * width, 4 * width, 8 * width, 16 * width, 16 * width]
        kernels = (3, 3, 3, 5)
        self.stages = nn.ModuleList(
            nn.Sequential(
                separable(inputs, outputs, kernel, 2, False, 10 * level),
                separable(outputs, outputs, kernel, 1, level >= 2, 10 * level + 5),
            )
            for level, (inputs, outputs, kernel) in enumerate(zip(sizes, sizes[1:], kernels, strict=False), 1)
        )
        self.laterals = nn.ModuleList(nn.Conv2d(channels, neck, 1, bias=False) for channels in sizes[1:])
        self.smooth = nn.ModuleList(nn.Conv2d(neck, neck // 4, 3, padding=1, bias=False) for _ in sizes[1:])
        self.head = Head(neck)

    def forward(self, x: Tensor) -> Tensor:
        """The probability of text at every pixel; sides must be multiples of 32."""
        x = self.stem(x)
        found = []
        for stage, lateral in zip(self.stages, self.laterals, strict=True):
            x = stage(x)
            found.append(lateral(x))
        for level in (2, 1, 0):
            found[level] = found[level] + functional.interpolate(found[level + 1], scale_factor=2.0, mode="nearest")
        smoothed = [
            functional.interpolate(layer(value), scale_factor=float(2**level), mode="nearest")
            if level
            else layer(value)
            for level, (layer, value) in enumerate(zip(self.smooth, found, strict=True))
        ]
        return self.head(torch.cat(smoothed, 1))
