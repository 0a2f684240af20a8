"""Bringing a picture to the height and width of the model's input."""

from __future__ import annotations

from typing import Literal

from PIL import Image

__all__ = ["Resize", "resized"]

Resize = Literal["shortest", "squash", "none"]

_BILINEAR = Image.Resampling.BILINEAR
_LARGEST_DETOUR = 16


def resized(image: Image.Image, size: tuple[int, int] | None, resize: Resize) -> Image.Image:
    """Return the image with `size` (height, width).

    `shortest` keeps the aspect: the picture is scaled until it just covers the size, then its centre is cropped.
    `squash` does not keep it. `none`, or no size, leaves the picture as it is.
    """
    if size is None or resize == "none":
        return image
    height, width = size
    if resize == "squash":
        return image.resize((width, height), _BILINEAR)
    return _covering(image, height, width)


def _covering(image: Image.Image, height: int, width: int) -> Image.Image:
    """Scale to the smallest picture that covers (height, width), and crop its centre."""
    full_width, full_height = _covering_size(image.size, height, width)
    left = round((full_width - width) / 2)
    top = round((full_height - height) / 2)
    if full_width * full_height > _LARGEST_DETOUR * width * height:
        # A very long strip: compute the crop alone (equal up to one grey level), the whole would not fit in memory.
        across, down = image.width / full_width, image.height / full_height
        box = (left * across, top * down, (left + width) * across, (top + height) * down)
        return image.resize((width, height), _BILINEAR, box=box)
    return image.resize((full_width, full_height), _BILINEAR).crop((left, top, left + width, top + height))


def _covering_size(size: tuple[int, int], height: int, width: int) -> tuple[int, int]:
    """Return (width, height) of the scaled picture: one side fits exactly, the other is rounded down."""
    image_width, image_height = size
    if image_width * height >= image_height * width:
        return max(width, height * image_width // image_height), height
    return width, max(height, width * image_height // image_width)
