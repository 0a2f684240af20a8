"""Preprocessing as scripts write it, with Pillow and numpy: one photograph after the other.

It is told what to do in plain values (`channels`, `divisor`, `mean`, `std`, `size`) and returns the very numbers that
onnxnorm does, which is checked before anything is measured. It also runs in PyTorch's interpreter, without onnxnorm.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

__all__ = ["listed", "sample", "stacked"]

Array = npt.NDArray[np.float32]


def listed(folder: str) -> list[Path]:
    """All photographs of a folder that holds nothing else, in order."""
    return sorted(Path(folder).iterdir())


def stacked(paths: Sequence[Path], recipe: Mapping[str, Any]) -> Array:
    """A batch (N, C, H, W)."""
    return np.stack([sample(path, recipe) for path in paths])


def sample(path: Path, recipe: Mapping[str, Any]) -> Array:
    """One photograph as (C, H, W)."""
    height, width = recipe["size"]
    with Image.open(path) as image:
        scaled = _scaled(image.size, height, width)
        drafted = image.draft(None, _times(recipe.get("draft", 0), scaled))  # large JPEGs at a fraction, as ours
        pillow = image if image.mode == "L" else image.convert("RGB")
        resized = pillow.resize(scaled, Image.Resampling.BILINEAR, box=drafted[1] if drafted else None)
    left, top = round((scaled[0] - width) / 2), round((scaled[1] - height) / 2)
    cropped = resized.crop((left, top, left + width, top + height))
    pixels = np.atleast_3d(np.asarray(cropped.convert("L" if recipe["channels"] == "gray" else "RGB")))
    if recipe["channels"] == "bgr":
        pixels = pixels[:, :, ::-1]
    values = np.ascontiguousarray(pixels.transpose(2, 0, 1)).astype(np.float32)
    mean, std = (np.asarray(recipe[key], np.float32)[:, None, None] for key in ("mean", "std"))
    if recipe["divisor"] != 1:
        values /= np.float32(recipe["divisor"])
    if mean.any():
        values -= mean
    if (std != 1).any():
        values /= std
    return values


def _scaled(size: tuple[int, int], height: int, width: int) -> tuple[int, int]:
    """The image's (width, height) with the shortest side scaled to the size."""
    if size[0] * height >= size[1] * width:
        return height * size[0] // size[1], height
    return width, width * size[1] // size[0]


def _times(factor: int, size: tuple[int, int]) -> tuple[int, int] | None:
    return (factor * size[0], factor * size[1]) if factor else None
