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
    with Image.open(path) as image:
        cropped = _cropped(image if image.mode == "L" else image.convert("RGB"), *recipe["size"])
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


def _cropped(image: Image.Image, height: int, width: int) -> Image.Image:
    """The shortest side scaled to the size, and the centre cut out."""
    if image.width * height >= image.height * width:
        full = (height * image.width // image.height, height)
    else:
        full = (width, width * image.height // image.width)
    left, top = round((full[0] - width) / 2), round((full[1] - height) / 2)
    scaled = image.resize(full, Image.Resampling.BILINEAR)
    return scaled.crop((left, top, left + width, top + height))
