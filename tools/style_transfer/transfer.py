"""Style transfer by optimizing the image, as Gatys, Ecker and Bethge do (2016, equations 1 to 7).

The loss of a style layer is a quarter of the mean squared difference of Gram matrices, that of the content half of the
mean squared difference of activations. All style layers have the same weight. The weight of the content depends on the
network, since a normalized network has other magnitudes: it is a multiple of what makes the content of a grey image as
far off as its style. So nothing in the comparison depends on the unit of a network's activations.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import fmin_l_bfgs_b

from tools.style_transfer.network import CONTENT, STYLE, Features, activations, gram
from tools.style_transfer.pictures import RANGE

START = 1e4
MEMORY = 20


@dataclass(frozen=True)
class Losses:
    """What the style and content of an image are compared with, and how the two count."""

    constants: Features
    grams: Features
    content: torch.Tensor
    content_weight: float

    def of(self, image: torch.Tensor) -> Features:
        """The loss of every layer, without its weight."""
        found = activations(self.constants, image)
        losses = {name: (gram(found[name]) - self.grams[name]).square().mean() / 4 for name in STYLE}
        return losses | {CONTENT: (found[CONTENT] - self.content).square().mean() / 2}

    def total(self, losses: Features) -> torch.Tensor:
        """All losses together: every style layer with a weight of one fifth."""
        return torch.stack([losses[name] for name in STYLE]).mean() + self.content_weight * losses[CONTENT]


@dataclass(frozen=True)
class Transferred:
    """The image, and every layer's loss at the start and after every iteration."""

    image: torch.Tensor
    losses: dict[str, list[float]]


def losses_of(constants: Features, content: torch.Tensor, style: torch.Tensor, share: float) -> Losses:
    """The losses for two images; the content of a grey image counts `share` times as much as its style."""
    with torch.no_grad():
        grams = {name: gram(value) for name, value in activations(constants, style).items() if name in STYLE}
        losses = Losses(constants, grams, activations(constants, content)[CONTENT], 0.0)
        grey = losses.of(torch.zeros_like(content))
        return Losses(constants, grams, losses.content, share * float(losses.total(grey) / grey[CONTENT]))


def transfer(losses: Losses, start: torch.Tensor, iterations: int) -> Transferred:
    """Optimize the pixels of an image with L-BFGS, from `start` and within the range of colours.

    The loss is divided by its first value, so that the optimization does not depend on its unit either.
    """
    history: dict[str, list[float]] = {name: [] for name in (*STYLE, CONTENT)}
    latest: Features = {}

    def loss_and_gradient(pixels: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        image = torch.from_numpy(pixels.astype(np.float32)).reshape(start.shape).requires_grad_()
        latest.update(losses.of(image))
        loss = scale * losses.total(latest)
        (gradient,) = torch.autograd.grad(loss, image)
        return float(loss.detach()), gradient.numpy().ravel().astype(np.float64)

    def record(_: Any) -> None:
        for name, values in history.items():
            values.append(float(latest[name].detach()))

    first = start.flatten().double().numpy()
    latest.update(losses.of(start))
    record(first)
    scale = START / float(losses.total(latest))
    low, high = (side.expand(start.shape).flatten().tolist() for side in RANGE)
    found, _, _ = fmin_l_bfgs_b(
        loss_and_gradient,
        first,
        bounds=list(zip(low, high, strict=True)),
        m=MEMORY,
        factr=0,
        pgtol=0,
        maxiter=iterations,
        callback=record,
    )
    return Transferred(torch.from_numpy(found.astype(np.float32)).reshape(start.shape), history)
