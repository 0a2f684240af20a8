"""Resizes images to the height and width of the model's input."""

from __future__ import annotations

from typing import Literal

from PIL import Image

from onnxnorm.data.images.decoding import DecodedImage, Size

__all__ = ["Resize", "resized", "scaled_size"]

Resize = Literal["shortest", "squash", "none"]

_BILINEAR = Image.Resampling.BILINEAR
_LARGEST_DETOUR = 16


def resized(decoded: DecodedImage, size: tuple[int, int] | None, resize: Resize) -> Image.Image:
    """Return the image resized to `size`, (height, width) in pixels.

    With `shortest` the aspect ratio is kept: the image is scaled until it just covers the size, and its centre is
    cropped. With `squash` the aspect ratio is not kept. With `none`, or without a size, the image is not resized.
    """
    if size is None or resize == "none":
        return decoded.image
    height, width = size
    if resize == "squash":
        return decoded.image.resize((width, height), _BILINEAR, box=decoded.box)
    return _covering(decoded, height, width)


def scaled_size(full: Size, size: tuple[int, int] | None, resize: Resize) -> Size | None:
    """Return the size to which `resized` scales an image of the size `full`, before cropping; None if it does not."""
    if size is None or resize == "none":
        return None
    height, width = size
    return (width, height) if resize == "squash" else _covering_size(full, height, width)


def _covering(decoded: DecodedImage, height: int, width: int) -> Image.Image:
    """Scale to the smallest image that covers (height, width), and crop its centre."""
    full_width, full_height = _covering_size(decoded.size, height, width)
    left = round((full_width - width) / 2)
    top = round((full_height - height) / 2)
    if full_width * full_height > _LARGEST_DETOUR * width * height:
        # A very long strip: only the crop is computed (equal up to one gray level); the whole might not fit in memory.
        x, y, right, bottom = decoded.box
        across, down = (right - x) / full_width, (bottom - y) / full_height
        box = (x + left * across, y + top * down, x + (left + width) * across, y + (top + height) * down)
        return decoded.image.resize((width, height), _BILINEAR, box=box)
    scaled = decoded.image.resize((full_width, full_height), _BILINEAR, box=decoded.box)
    return scaled.crop((left, top, left + width, top + height))


def _covering_size(size: Size, height: int, width: int) -> Size:
    """Return (width, height) of the scaled image: one side fits exactly, the other is rounded down."""
    image_width, image_height = size
    if image_width * height >= image_height * width:
        return max(width, height * image_width // image_height), height
    return width, max(height, width * image_height // image_width)
