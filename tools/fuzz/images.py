"""Images: small JPEG, PNG, WebP, GIF, TIFF and BMP files with damaged bytes, chunks and sizes."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from onnxnorm.data.images.options import ImageOptions
from onnxnorm.data.opening import open_data
from onnxnorm.model.inputs import InputSpec
from tools.fuzz.mutations import ODD_INTEGERS, damage_bytes, pick
from tools.fuzz.target import Files, Target

__all__ = ["TARGET"]

_SIZE = (19, 13)
_EXIF = 0x0112  # the tag of the orientation


@cache
def _seeds() -> Mapping[str, Files]:
    pixels = np.random.default_rng(0).integers(0, 256, (*_SIZE[::-1], 4), np.uint8)
    color = Image.fromarray(pixels[..., :3])
    exif = Image.Exif()
    exif[_EXIF] = 6
    wide = Image.fromarray(pixels[..., 0].astype(np.uint16) * 257)
    files = {
        "rgb.jpg": _saved(color, "JPEG"),
        "turned.jpg": _saved(color, "JPEG", exif=exif, progressive=True),
        "gray.jpg": _saved(color.convert("L"), "JPEG"),
        "cmyk.jpg": _saved(color.convert("CMYK"), "JPEG"),
        "rgb.png": _saved(color, "PNG"),
        "palette.png": _saved(color.quantize(9), "PNG", transparency=3),
        "alpha.png": _saved(Image.fromarray(pixels), "PNG", exif=exif),
        "wide.png": _saved(wide, "PNG"),
        "bilevel.png": _saved(color.convert("1"), "PNG"),
        "lossy.webp": _saved(color, "WEBP", exif=exif),
        "lossless.webp": _saved(color, "WEBP", lossless=True),
        "moving.gif": _saved(color.quantize(9), "GIF", save_all=True, append_images=[color.rotate(90).quantize(5)]),
        "deflated.tif": _saved(color, "TIFF", compression="tiff_deflate"),
        "plain.bmp": _saved(color, "BMP"),
    }
    return {name: {name: content} for name, content in files.items()}


def _saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def _large(random: np.random.Generator) -> Files:
    """Return an image whose file is small and whose pixels are many; all have one color."""
    sides = tuple(int(side) for side in random.integers(2000, 16384, 2))
    if random.integers(2):
        return {"large.webp": _webp(*sides)}
    depth, color, samples = pick(random, ((1, 0, 1), (8, 3, 1), (8, 2, 3), (16, 0, 1), (16, 2, 3)))
    row = bytes(1 + -(-sides[0] * depth * samples // 8))
    packer = zlib.compressobj(1)
    body = b"".join(packer.compress(row) for _ in range(sides[1])) + packer.flush()
    palette = [(b"PLTE", bytes(3))] if color == 3 else []
    head = struct.pack(">2I5B", *sides, depth, color, 0, 0, 0)
    return {"large.png": _png([(b"IHDR", head), *palette, (b"IDAT", body), (b"IEND", b"")])}


def _webp(width: int, height: int) -> bytes:
    """Return a lossless WebP: sizes, no transform, no cache, and five codes of one symbol each, which take no bits."""
    bits = f"{height - 1:014b}{width - 1:014b}"[::-1] + "0" + "000" + "000" + "1000" * 5
    number = int(bits[::-1], 2)
    data = b"\x2f" + number.to_bytes(-(-len(bits) // 8), "little")
    data += b"\0" * (len(data) % 2)
    return b"RIFF" + struct.pack("<I", len(data) + 12) + b"WEBPVP8L" + struct.pack("<I", len(data)) + data


def _damage(random: np.random.Generator) -> Files:
    if random.integers(3000) == 0:
        return _large(random)
    name = pick(random, sorted(_seeds()))
    content = _seeds()[name][name]
    kind = int(random.integers(4))
    if kind == 0:
        content = _resized(random, name, content)
    if kind < 3 and name.endswith(".png"):
        content = _png_chunks(random, content)
    elif kind:
        content = damage_bytes(random, content)
    suffix = pick(random, (name, name, name, "other.png", "other.jpg", "other.webp", "other.tga", "other.ico"))
    return {suffix: content}


def _resized(random: np.random.Generator, name: str, content: bytes) -> bytes:
    """Write another width or height wherever the old one is stored, in either order of bytes."""
    side = pick(random, (*(abs(odd) for odd in ODD_INTEGERS), 9999, 13000)) % 2**32
    format_of = "I" if name.endswith((".png", ".bmp")) else "H"
    order = ">" if name.endswith((".png", ".jpg")) else "<"
    old = struct.pack(order + format_of, pick(random, _SIZE))
    return content.replace(old, struct.pack(order + format_of, side % (1 << (8 * len(old)))), 1)


def _png_chunks(random: np.random.Generator, content: bytes) -> bytes:
    """Damage, remove or repeat chunks of a PNG, with checksums that are right."""
    chunks, at = [], 8
    while at + 8 <= len(content):
        (length,) = struct.unpack_from(">I", content, at)
        chunks.append((content[at + 4 : at + 8], content[at + 8 : at + 8 + length]))
        at += length + 12
    where = int(random.integers(len(chunks)))
    kind, data = chunks[where]
    change = int(random.integers(6))
    if change == 0:
        del chunks[where]
    elif change == 1:
        chunks.insert(int(random.integers(len(chunks))), (kind, data))
    elif change == 2 and kind == b"IDAT":
        chunks[where] = (kind, zlib.compress(damage_bytes(random, zlib.decompress(data))))
    else:
        chunks[where] = (kind, damage_bytes(random, data, 2))
    return _png(chunks)


def _png(chunks: Iterable[tuple[bytes, bytes]]) -> bytes:
    body = (struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(body)


def _read(folder: Path, random: np.random.Generator) -> object:
    channels, dtype = pick(random, ((3, np.float32), (1, np.float16), (3, np.uint8)))
    spec = InputSpec("x", (None, channels, None, None), np.dtype(dtype))
    options = ImageOptions(
        preset="raw" if dtype == np.uint8 else "unit",
        channels="gray" if channels == 1 else "rgb",
        size=(8, 6),
        resize=pick(random, ("shortest", "squash", "none")),
    )
    return list(open_data(folder, [spec], options).batches(2, threads=1))


TARGET = Target("images", _seeds, _damage, _read)
