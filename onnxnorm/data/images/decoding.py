"""Reads images: a file in any format that Pillow supports becomes an upright 8-bit image of mode `RGB` or `L`.

Images that are not 8-bit RGB are treated as follows:

1. Palette, CMYK, YCbCr, HSV and bilevel images are converted by Pillow. Colour profiles are not applied.
2. Alpha (RGBA, LA, transparent palettes) is dropped, not composited, because training pipelines do the same
   (`convert("RGB")`), and no background would be right.
3. 16-bit gray is scaled to 8 bits and rounded. (Pillow's own `convert` clips at 255.)
4. 32-bit integers and floats are refused, because it is not defined which value is white.
5. Of several frames, the first is used.
6. A rotation in EXIF is applied. Unreadable EXIF data is ignored. (HEIC and AVIF: see `plugins`.)

A caller that needs only a small version of an image says so to `read_decoded`. A JPEG is then decoded at a half, a
quarter or an eighth of its size, which takes a fraction of the time.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from onnxnorm.data.images.plugins import missing_plugin, plugin_endings, register_plugins
from onnxnorm.data.local import StoredFile, open_regular
from onnxnorm.errors import DataError

__all__ = [
    "AnyPath",
    "DecodedImage",
    "ImageError",
    "Size",
    "eight_bit",
    "image_extensions",
    "quiet_pillow",
    "read_decoded",
    "read_image",
    "webp_size",
]

# Formats that Pillow passes to other programs (EPS runs Ghostscript) or only identifies.
_NOT_IMAGES = frozenset({"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"})
_USUAL = ("JPEG", "PNG", "WEBP")
_SIXTEEN_BIT = frozenset({"I;16", "I;16L", "I;16B", "I;16N"})
# Formats for which Pillow uses the 32-bit mode, although pixels are 0..65535.
_SIXTEEN_IN_THIRTY_TWO = frozenset({"PNG", "PPM"})
# Formats that can be decoded at a fraction of their size; their EXIF data comes before the pixels.
_REDUCIBLE = frozenset({"JPEG", "MPO"})
_BAND = 1 << 20  # pixels that are scaled to 8 bits at a time
_WEBP_PIXELS = 50_000_000  # decoding a WebP takes 16 bytes for each

AnyPath = Path | StoredFile
Size = tuple[int, int]
"""(width, height) in pixels, in Pillow's order."""
Box = tuple[float, float, float, float]
"""(left, top, right, bottom) in pixels."""
_Turned = tuple["DecodedImage", Image.Transpose | None]
Least = Callable[[Size], Size | None]
"""Maps the full size of an upright image to the least size at which it may be decoded; None for the full size."""

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# Each turn as steps: whether the sides are swapped, then whether it is mirrored left to right, and top to bottom.
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
    """An image cannot be used: `reason` says why, and the message also says which image."""

    def __init__(self, path: AnyPath, reason: str) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"cannot use image {self.path}: {self.reason}"


@dataclass(frozen=True)
class DecodedImage:
    """A decoded image, perhaps at a fraction of its size.

    Attributes:
        image: the decoded pixels.
        size: the size of the full image.
        box: where the full image lies within `image`, in pixels of `image`. It has fractions of pixels: 1001 columns at
            a quarter are 250.25, decoded as 251, of which only a quarter of the last one belongs to the image.
    """

    image: Image.Image
    size: Size
    box: Box

    @classmethod
    def whole(cls, image: Image.Image) -> DecodedImage:
        """Return an image that was decoded at its full size."""
        return cls(image, image.size, (0, 0, *image.size))

    def turned(self, turn: Image.Transpose) -> DecodedImage:
        """Return the same with its image and its box turned."""
        swaps, across, down = _STEPS[turn]
        image = self.image.transpose(turn)
        left, top, right, bottom = self.box
        if swaps:
            left, top, right, bottom = top, left, bottom, right
        if across:
            left, right = image.width - right, image.width - left
        if down:
            top, bottom = image.height - bottom, image.height - top
        return DecodedImage(image, _swapped(self.size, turn), (left, top, right, bottom))


def image_extensions() -> frozenset[str]:
    """Return the file extensions of images, in lower case and with the dot."""
    formats = set(_image_formats())
    own = frozenset(extension for extension, kind in Image.registered_extensions().items() if kind in formats)
    return own | plugin_endings()


def read_image(path: AnyPath) -> Image.Image:
    """Return the image at its full size, upright, in mode `RGB` or `L`. Raises ImageError if it cannot be used."""
    return read_decoded(path).image


def read_decoded(path: AnyPath, least: Least | None = None, most: int | None = None) -> DecodedImage:
    """Return the image, upright, in mode `RGB` or `L`, perhaps reduced. Only JPEGs are ever reduced.

    Args:
        path: the file.
        least: returns the least size of the result for the full size of the image; None for the full size.
        most: the most pixels that an image may have; None for those that decoding allows.

    Raises:
        ImageError: if the image cannot be used.
    """
    decoded, turn = _decoded(path, least, most)
    if min(decoded.image.size) < 1:
        raise ImageError(path, "it has no pixels")
    try:
        decoded = DecodedImage(eight_bit(decoded.image), decoded.size, decoded.box)
    except ValueError as error:
        raise ImageError(path, str(error)) from error
    return decoded if turn is None else decoded.turned(turn)


def eight_bit(image: Image.Image) -> Image.Image:
    """Return the image in mode `RGB` or `L`. Raises ValueError for a mode that does not define which value is white."""
    if image.mode in {"RGB", "L"}:
        return image
    if image.mode in _SIXTEEN_BIT or (image.mode == "I" and image.format in _SIXTEEN_IN_THIRTY_TWO):
        return _from_sixteen_bit(image)
    if image.mode in {"I", "F", "LAB"}:
        raise ValueError(f"pixels of mode {image.mode} have no defined black and white; convert it to 8-bit RGB first")
    if image.mode in {"1", "LA", "La"}:
        return image.convert("L")
    if image.mode in {"P", "PA"} and "transparency" in image.info:
        image = image.copy()
        del image.info["transparency"]
    return image.convert("RGB")


@contextmanager
def quiet_pillow() -> Iterator[None]:
    """Silence Pillow's warnings about damaged metadata and large images, in every thread.

    `warnings.catch_warnings` would restore a snapshot, and undo what other threads changed meanwhile.
    """
    entry = ("ignore", None, Warning, re.compile(r"PIL\."), 0)
    cast("list[Any]", warnings.filters).insert(0, entry)
    try:
        yield
    finally:
        with suppress(ValueError):
            cast("list[Any]", warnings.filters).remove(entry)


@lru_cache(maxsize=1)
def _image_formats() -> tuple[str, ...]:
    """Return the formats in the order of trying them: common ones first, because some plugins are slow to decide."""
    Image.init()
    register_plugins()
    kinds = [kind for kind in (*_USUAL, *Image.OPEN) if kind in Image.OPEN and kind not in _NOT_IMAGES]
    return tuple(dict.fromkeys(kinds))


def _decoded(path: AnyPath, least: Least | None, most: int | None) -> _Turned:
    """Return the decoded first frame, and how to turn it upright; the file is closed again.

    Pillow is given an open file, not a name: it may memory-map a file that it opens by name, and it garbles a mapped
    TIFF that is stored on its side (seen with Pillow 13.0).
    """
    try:
        with open_regular(path) if isinstance(path, Path) else path.open() as file:
            head = file.read(32)
            _check_pixels(path, webp_size(head), _WEBP_PIXELS)  # before Pillow, which decodes it on opening
            file.seek(0)
            return _opened(path, file, least, most)
    except ImageError:
        raise
    except UnidentifiedImageError as error:
        reason = missing_plugin(head) or "it is not an image that Pillow can read"
        raise ImageError(path, reason if head else "it is empty") from error
    except Image.DecompressionBombError as error:
        raise ImageError(path, f"it has more than {2 * (Image.MAX_IMAGE_PIXELS or 0):,} pixels") from error
    except Exception as error:  # Damaged files make decoders raise nearly any exception.
        raise ImageError(path, _one_line(error)) from error


def _opened(path: AnyPath, file: IO[bytes], least: Least | None, most: int | None) -> _Turned:
    with Image.open(file, formats=_image_formats()) as image:
        _check_pixels(path, image.size, most)
        if image.format in _REDUCIBLE:
            turn = _turn(image)
            return _reduced(image, turn, least), turn
        _check_pixels(path, image.size, Image.MAX_IMAGE_PIXELS)
        image.load()
        return DecodedImage.whole(image), _turn(image)


def _check_pixels(path: AnyPath, size: Size | None, most: int | None) -> None:
    """Raise ImageError for an image whose pixels would take gigabytes; a JPEG may have twice as many."""
    if size is not None and most is not None and size[0] * size[1] > most:
        raise ImageError(path, f"it has more than {most:,} pixels; scale it down first")


def webp_size(head: bytes) -> Size | None:
    """Return the size of a WebP image from the first 32 bytes of its file; None for other formats.

    Source: RFC 9649, sections 2.5 (lossy), 2.6 (lossless) and 2.7 (extended file format).
    """
    if head[:4] != b"RIFF" or head[8:12] != b"WEBP":
        return None
    if head[12:16] == b"VP8L":  # a whole file may have 28 bytes
        bits = int.from_bytes(head[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if head[12:16] == b"VP8X":
        return 1 + int.from_bytes(head[24:27], "little"), 1 + int.from_bytes(head[27:30], "little")
    return int.from_bytes(head[26:28], "little") & 0x3FFF, int.from_bytes(head[28:30], "little") & 0x3FFF


def _reduced(image: Image.Image, turn: Image.Transpose | None, least: Least | None) -> DecodedImage:
    """Decode a JPEG, not turned yet, at 1, 1/2, 1/4 or 1/8 of its size: the smallest that is not below `least`."""
    size = image.size
    needed = None if least is None else least(_swapped(size, turn))
    drafted = None if needed is None else image.draft(None, _swapped(needed, turn))
    image.load()
    return DecodedImage.whole(image) if drafted is None else DecodedImage(image, size, drafted[1])


def _swapped(size: Size, turn: Image.Transpose | None) -> Size:
    """Return the size after the turn for the size before it, or the other way round: a turn may swap the sides."""
    return size[::-1] if turn is not None and _STEPS[turn][0] else size


def _one_line(error: Exception) -> str:
    if isinstance(error, MemoryError):
        return "there is not enough memory to decode it"
    said = " ".join(str(getattr(error, "strerror", None) or error).split())
    return said if isinstance(error, OSError) and said else f"{type(error).__name__}: {said}".rstrip(": ")


def _turn(image: Image.Image) -> Image.Transpose | None:
    """Return the turn that EXIF asks for. Pillow turns TIFF images itself, and removes the tag."""
    try:
        return _UPRIGHT.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # noqa: BLE001 - damaged metadata is no reason to skip an image
        return None


def _from_sixteen_bit(image: Image.Image) -> Image.Image:
    """Scale 0..65535 to 0..255, rounded: 65535 = 255 * 257."""
    pixels = np.asarray(image)
    scaled = np.empty(pixels.shape, np.uint8)
    rows = max(1, _BAND // max(1, image.width))  # a band of rows at a time, because the numbers in between are wide
    for start in range(0, len(pixels), rows):
        band = np.clip(pixels[start : start + rows].astype(np.int32), 0, 65535)
        scaled[start : start + rows] = (band + 128) // 257
    return Image.fromarray(scaled)
