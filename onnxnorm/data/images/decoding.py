"""Reading pictures: a file of any kind that Pillow knows becomes an upright 8-bit `RGB` or `L` image.

What happens to pictures that are not 8-bit RGB:

1. palette, CMYK, YCbCr, HSV, bilevel: converted by Pillow. Colour profiles are not applied.
2. alpha (RGBA, LA, transparent palettes): dropped, not composited, because that is what training pipelines do
   (`convert("RGB")`), and there is no right background.
3. 16-bit gray: scaled to 8 bit, rounded. (Pillow's own `convert` clips at 255.)
4. 32-bit integers and floats: refused, for nobody knows which value is white.
5. several frames: the first.
6. a rotation in EXIF: applied. Unreadable EXIF data is ignored.

Who needs only a small version of a picture says so (`read_picture`), and a JPEG is then decoded at a half, a quarter or
an eighth of its size, which takes a fraction of the time.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from onnxnorm.data.remote import RemoteFile
from onnxnorm.errors import DataError

__all__ = [
    "ImageError",
    "Picture",
    "Size",
    "eight_bit",
    "image_extensions",
    "quiet_pillow",
    "read_image",
    "read_picture",
]

# Formats that Pillow registers but hands to other programs (EPS runs Ghostscript) or only identifies.
_NOT_PICTURES = frozenset({"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"})
_USUAL = ("JPEG", "PNG", "WEBP")
_SIXTEEN_BIT = frozenset({"I;16", "I;16L", "I;16B", "I;16N"})
# Plugins that use the 32-bit mode for pixels of 0..65535.
_SIXTEEN_IN_THIRTY_TWO = frozenset({"PNG", "PPM"})
_HAS_ALPHA_OR_PALETTE = frozenset({"P", "PA"})
# Formats that can be decoded at a fraction of their size; EXIF comes before the pixels.
_REDUCIBLE = frozenset({"JPEG", "MPO"})

AnyPath = Path | RemoteFile
Size = tuple[int, int]
"""(width, height) in pixels, as Pillow has it."""
Box = tuple[float, float, float, float]
"""(left, top, right, bottom) in pixels."""
Least = Callable[[Size], Size | None]
"""From the size of an upright picture to the least size that it may be decoded at; None: its own."""

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# The same as steps: are the sides swapped, is the result then mirrored left to right, and top to bottom?
_STEPS = {
    Image.Transpose.FLIP_LEFT_RIGHT: (False, True, False),
    Image.Transpose.ROTATE_180: (False, True, True),
    Image.Transpose.FLIP_TOP_BOTTOM: (False, False, True),
    Image.Transpose.TRANSPOSE: (True, False, False),
    Image.Transpose.ROTATE_270: (True, True, False),
    Image.Transpose.TRANSVERSE: (True, True, True),
    Image.Transpose.ROTATE_90: (True, False, True),
}


class ImageError(DataError):
    """One picture that cannot be used: `reason` says why, the message says which too."""

    def __init__(self, path: AnyPath, reason: str) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"cannot use image {self.path}: {self.reason}"


@dataclass(frozen=True)
class Picture:
    """A picture, perhaps decoded at a fraction of its size.

    `size` is the size of the full picture, and `box` is where it lies within `image`, in pixels of `image`. These count
    parts of pixels: 1001 columns at a quarter are 250.25, decoded as 251, of which the last is a quarter picture.
    """

    image: Image.Image
    size: Size
    box: Box

    @classmethod
    def whole(cls, image: Image.Image) -> Picture:
        """Return the picture that is all of the image, at its full size."""
        return cls(image, image.size, (0, 0, *image.size))

    def turned(self, turn: Image.Transpose) -> Picture:
        """Return the picture turned, and its box with it."""
        swaps, across, down = _STEPS[turn]
        image = self.image.transpose(turn)
        left, top, right, bottom = self.box
        if swaps:
            left, top, right, bottom = top, left, bottom, right
        if across:
            left, right = image.width - right, image.width - left
        if down:
            top, bottom = image.height - bottom, image.height - top
        return Picture(image, _swapped(self.size, turn), (left, top, right, bottom))


def image_extensions() -> frozenset[str]:
    """Return the file extensions, lower case with the dot, that count as pictures."""
    pictures = set(_picture_formats())
    return frozenset(extension for extension, kind in Image.registered_extensions().items() if kind in pictures)


def read_image(path: AnyPath) -> Image.Image:
    """Return the picture at its full size, upright, in mode `RGB` or `L`.

    Whatever is wrong with the file raises `ImageError`.
    """
    return read_picture(path).image


def read_picture(path: AnyPath, least: Least | None = None) -> Picture:
    """Return the picture, upright, in mode `RGB` or `L`, at its full size or at least at the size `least`.

    `least` gets the size of the full picture. Only JPEGs are reduced; others come whole.
    Whatever is wrong with the file raises `ImageError`.
    """
    picture, turn = _decoded(path, least)
    if min(picture.image.size) < 1:
        raise ImageError(path, "it has no pixels")
    try:
        picture = Picture(eight_bit(picture.image), picture.size, picture.box)
    except ValueError as error:
        raise ImageError(path, str(error)) from error
    return picture if turn is None else picture.turned(turn)


def eight_bit(image: Image.Image) -> Image.Image:
    """Return the picture in mode `RGB` or `L`; a mode without a defined white is a ValueError."""
    if image.mode in {"RGB", "L"}:
        return image
    if image.mode in _SIXTEEN_BIT or (image.mode == "I" and image.format in _SIXTEEN_IN_THIRTY_TWO):
        return _from_sixteen_bit(image)
    if image.mode in {"I", "F", "LAB"}:
        raise ValueError(f"pixels of mode {image.mode} have no defined black and white; convert it to 8-bit RGB first")
    if image.mode in {"1", "LA", "La"}:
        return image.convert("L")
    if image.mode in _HAS_ALPHA_OR_PALETTE and "transparency" in image.info:
        image = image.copy()
        del image.info["transparency"]
    return image.convert("RGB")


@contextmanager
def quiet_pillow() -> Iterator[None]:
    """Silence what Pillow warns about damaged metadata and large pictures, in every thread.

    `warnings.catch_warnings` is no use here: it restores a snapshot, and would undo what other threads did meanwhile.
    One entry is added to the filters, and that one is removed.
    """
    entry = ("ignore", None, Warning, re.compile(r"PIL\."), 0)
    cast("list[Any]", warnings.filters).insert(0, entry)
    try:
        yield
    finally:
        with suppress(ValueError):
            cast("list[Any]", warnings.filters).remove(entry)


@lru_cache(maxsize=1)
def _picture_formats() -> tuple[str, ...]:
    """In the order in which they are tried: the usual ones first, for some plugins only know after a long look."""
    Image.init()
    kinds = [kind for kind in (*_USUAL, *Image.OPEN) if kind in Image.OPEN and kind not in _NOT_PICTURES]
    return tuple(dict.fromkeys(kinds))


def _decoded(path: AnyPath, least: Least | None) -> tuple[Picture, Image.Transpose | None]:
    """Return the decoded first frame, and how to turn it upright; the file is closed.

    Pillow gets a file, not its name: what it opens by name it may memory-map, and it garbles a mapped TIFF that is
    stored on its side (seen with Pillow 13.0).
    """
    try:
        with path.open("rb") as file, Image.open(file, formats=_picture_formats()) as image:
            if image.format in _REDUCIBLE:
                turn = _turn(image)
                return _reduced(image, turn, least), turn
            image.load()
            return Picture.whole(image), _turn(image)
    except UnidentifiedImageError as error:
        empty = os.path.exists(path) and not os.path.getsize(path)
        raise ImageError(path, "it is empty" if empty else "it is not a picture that Pillow can read") from error
    except Image.DecompressionBombError as error:
        raise ImageError(path, f"it has more than {2 * (Image.MAX_IMAGE_PIXELS or 0):,} pixels") from error
    except Exception as error:  # Damaged bytes make decoders raise nearly anything.
        raise ImageError(path, _one_line(error)) from error


def _reduced(image: Image.Image, turn: Image.Transpose | None, least: Least | None) -> Picture:
    """Decode a JPEG, as it is stored, at 1, 1/2, 1/4 or 1/8 of its size: the smallest that is at least `least`."""
    size = image.size
    wanted = None if least is None else least(_swapped(size, turn))
    drafted = None if wanted is None else image.draft(None, _swapped(wanted, turn))
    image.load()
    return Picture.whole(image) if drafted is None else Picture(image, size, drafted[1])


def _swapped(size: Size, turn: Image.Transpose | None) -> Size:
    """Return the size after the turn, or before: either way the sides are swapped or they are not."""
    return size[::-1] if turn is not None and _STEPS[turn][0] else size


def _one_line(error: Exception) -> str:
    said = " ".join(str(error).split())
    return said if isinstance(error, OSError) and said else f"{type(error).__name__}: {said}".rstrip(": ")


def _turn(image: Image.Image) -> Image.Transpose | None:
    """Return how EXIF says that the picture must be turned. Pillow turns TIFF by itself, and drops the tag."""
    try:
        return _UPRIGHT.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # noqa: BLE001 - damaged metadata is no reason to lose a picture
        return None


def _from_sixteen_bit(image: Image.Image) -> Image.Image:
    """Scale 0..65535 to 0..255, rounded: 65535 = 255 * 257."""
    pixels = np.asarray(image).astype(np.int64)
    return Image.fromarray(np.clip((pixels + 128) // 257, 0, 255).astype(np.uint8))
