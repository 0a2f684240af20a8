"""From photographs to tensors as Caffe's VGG reads them (BGR, 0 to 255, the mean subtracted), and back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

MEAN = torch.tensor([103.939, 116.779, 123.68]).reshape(1, 3, 1, 1)
RANGE = (-MEAN, 255 - MEAN)


def read(path: Path, size: int) -> torch.Tensor:
    """The central square of a photograph, (1, 3, size, size)."""
    photo = Image.open(path).convert("RGB")
    side = min(photo.size)
    left, top = (photo.width - side) // 2, (photo.height - side) // 2
    square = photo.resize((size, size), Image.Resampling.LANCZOS, box=(left, top, left + side, top + side))
    pixels = np.asarray(square, np.float32)[:, :, ::-1].transpose(2, 0, 1)
    return torch.from_numpy(pixels.copy())[None] - MEAN


def picture(image: torch.Tensor) -> Image.Image:
    """The picture of a tensor."""
    pixels = (image + MEAN)[0].clamp(0, 255).round().byte().numpy()
    return Image.fromarray(pixels[::-1].transpose(1, 2, 0).copy())
