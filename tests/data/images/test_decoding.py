"""Reading images: upright, 8 bit, and a reason for each that cannot be used."""

from __future__ import annotations

import io
import pickle
import struct
import tracemalloc
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image, ImageOps

from onnxnorm.data.images.decoding import (
    DecodedImage,
    ImageError,
    Size,
    eight_bit,
    image_extensions,
    quiet_pillow,
    read_decoded,
    read_image,
)

# Four quadrants of different grey: any rotation or mirroring shows.
QUADRANTS = np.kron(np.array([[0, 80], [160, 240]], np.uint8), np.ones((8, 16), np.uint8))
STORED = {
    1: QUADRANTS,
    2: QUADRANTS[:, ::-1],
    3: QUADRANTS[::-1, ::-1],
    4: QUADRANTS[::-1],
    5: QUADRANTS.T,
    6: np.rot90(QUADRANTS, 1),
    7: QUADRANTS[::-1, ::-1].T,
    8: np.rot90(QUADRANTS, -1),
}
"""What a file with each orientation holds, for `QUADRANTS` to come out."""
SIDEWAYS = {5, 6, 7, 8}


def saved(folder: Path, name: str, image: Image.Image, **options: Any) -> Path:
    path = folder / name
    image.save(path, **options)
    return path


def png(width: int, height: int) -> bytes:
    """A PNG whose head promises (width, height) and whose data is one empty row."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


def oriented(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    return exif


def tiny(_: Size) -> Size:
    """Whatever the image: at an eighth, if it can be."""
    return 1, 1


def noise(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8))


@pytest.mark.parametrize("suffix", ["png", "tiff", "jpg", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_come_upright(tmp_path: Path, suffix: str, orientation: int) -> None:
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation]))
    path = saved(tmp_path, f"a.{suffix}", stored, exif=oriented(orientation))
    pixels = np.asarray(read_image(path).convert("L")).astype(int)
    assert pixels.shape == QUADRANTS.shape
    assert abs(pixels[4::8, 8::16] - [[0, 80], [160, 240]]).max() < 6


@pytest.mark.parametrize("orientation", range(1, 9))
def test_reduced_images_come_upright(tmp_path: Path, orientation: int) -> None:
    """The full size is upright, what is needed is needed upright, and the image lies in the box."""
    stored = Image.fromarray(np.kron(STORED[orientation], np.ones((10, 10), np.uint8)))
    stored = stored.crop((0, 0, stored.width - 3, stored.height - 3))
    path = saved(tmp_path, "a.jpg", stored, exif=oriented(orientation), quality=95)
    asked: list[Size] = []

    def least(size: Size) -> Size:
        asked.append(size)
        return 79, 26  # A quarter of the image; with the sides mixed up, an eighth at most would do, or a half.

    decoded = read_decoded(path, least)
    assert asked == [decoded.size] == [(317, 157)] == [read_image(path).size]
    assert decoded.image.size == (80, 40)
    pixels = np.asarray(decoded.image).astype(int)
    assert abs(pixels[10::20, 20::40] - [[0, 80], [160, 240]]).max() < 6
    left, top, right, bottom = decoded.box
    assert (right - left, bottom - top) == (317 / 4, 157 / 4)
    with Image.open(path) as reduced:
        reduced.draft(None, (26, 79) if orientation in SIDEWAYS else (79, 26))
        np.testing.assert_array_equal(pixels, np.asarray(ImageOps.exif_transpose(reduced)))


@pytest.mark.parametrize("turn", Image.Transpose)
def test_the_box_turns_with_the_image(turn: Image.Transpose) -> None:
    image = noise(7, 5)
    box = (1, 0, 5, 4)
    turned = DecodedImage(image, (40, 30), box).turned(turn)
    expected = image.crop(box).transpose(turn)
    left, top, right, bottom = map(int, turned.box)
    np.testing.assert_array_equal(np.asarray(turned.image.crop((left, top, right, bottom))), np.asarray(expected))
    assert turned.size == Image.new("L", (40, 30)).transpose(turn).size


@pytest.mark.parametrize(
    ("least", "size"),
    [
        ((125, 93), (126, 94)),
        ((126, 93), (251, 188)),
        ((125, 94), (251, 188)),
        ((250, 187), (251, 188)),
        ((251, 1), (501, 376)),
        ((501, 1), (1001, 751)),
        ((1, 751), (1001, 751)),
        ((5000, 5000), (1001, 751)),
        ((1, 1), (126, 94)),
        (None, (1001, 751)),
    ],
)
@pytest.mark.parametrize("kind", ["RGB", "L", "CMYK", "progressive", "MPO"])
def test_a_jpeg_is_decoded_no_smaller_than_asked(tmp_path: Path, kind: str, least: Size | None, size: Size) -> None:
    image = noise(1001, 751).convert(kind if kind in {"L", "CMYK"} else "RGB")
    more: dict[str, Any] = {"progressive": kind == "progressive", "format": "MPO" if kind == "MPO" else "JPEG"}
    if kind == "MPO":
        more |= {"save_all": True, "append_images": [noise(20, 20)]}
    path = saved(tmp_path, "a.jpg", image, quality=30, **more)
    decoded = read_decoded(path, lambda _: least)
    with Image.open(path) as opened:
        assert opened.format == more["format"]
    assert decoded.image.mode == ("L" if kind == "L" else "RGB")
    assert (decoded.size, decoded.image.size) == ((1001, 751), size)
    scale = round(1001 / size[0])
    assert decoded.box == (0, 0, 1001 / scale, 751 / scale)
    if scale == 1:
        np.testing.assert_array_equal(np.asarray(decoded.image), np.asarray(read_image(path)))


@pytest.mark.parametrize("suffix", ["png", "tiff", "webp", "bmp", "gif"])
def test_other_formats_come_whole(tmp_path: Path, suffix: str) -> None:
    path = saved(tmp_path, f"a.{suffix}", noise(100, 60))
    decoded = read_decoded(path, tiny)
    assert decoded == DecodedImage(decoded.image, (100, 60), (0, 0, 100, 60))
    np.testing.assert_array_equal(np.asarray(decoded.image), np.asarray(read_image(path)))


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (7, 8), (8, 8), (9, 17)])
def test_tiny_jpegs_are_reduced_without_losing_them(tmp_path: Path, size: Size) -> None:
    decoded = read_decoded(saved(tmp_path, "a.jpg", Image.new("RGB", size, (200, 100, 50))), tiny)
    assert decoded.size == size
    assert min(decoded.image.size) >= 1
    assert abs(np.asarray(decoded.image).astype(int) - [200, 100, 50]).max() <= 3


@pytest.mark.parametrize(("suffix", "mode"), [("png", "I;16"), ("tiff", "I;16"), ("tiff", "I;16B"), ("pgm", "I;16")])
def test_sixteen_bit_gray_is_scaled_not_clipped(tmp_path: Path, suffix: str, mode: str) -> None:
    values = np.array([[0, 128, 129, 257, 32768, 65535]], np.uint16)
    order = ">u2" if mode.endswith("B") else "<u2"
    path = saved(tmp_path, f"a.{suffix}", Image.frombytes(mode, (6, 1), values.astype(order).tobytes()))
    image = read_image(path)
    assert image.mode == "L"
    assert np.asarray(image).tolist() == [[0, 0, 1, 1, 128, 255]]


def test_sixteen_bit_gray_is_scaled_a_few_rows_at_a_time() -> None:
    """The arithmetic takes 8 bytes for a pixel and more, which for a large image would be gigabytes."""
    values = np.random.default_rng(0).integers(0, 2**16, (2500, 2000), np.uint16)
    image = Image.fromarray(values)
    tracemalloc.start()
    gray = eight_bit(image)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_array_equal(np.asarray(gray), (values.astype(np.int64) + 128) // 257)
    assert peak < 8 * values.size


def webp_of_one_color(width: int, height: int) -> bytes:
    """A lossless WebP: its sizes, no transform, no cache, and five codes of one symbol each, which take no bits."""
    fields = [(width - 1, 14), (height - 1, 14), *[(0, 1)] * 7, *[(1, 4)] * 5]
    number = shift = 0
    for value, length in fields:
        number, shift = number | value << shift, shift + length
    data = b"\x2f" + number.to_bytes(7, "little")
    return b"RIFF" + struct.pack("<I", len(data) + 12) + b"WEBPVP8L" + struct.pack("<I", len(data)) + data


def test_a_small_webp_of_very_many_pixels_is_refused(tmp_path: Path) -> None:
    """One of 28 bytes would take 2.8 GB. All of its pixels have one color."""
    (tmp_path / "a.webp").write_bytes(webp_of_one_color(5_001, 10_000))
    with pytest.raises(ImageError, match="it has more than 50,000,000 pixels; scale it down first"):
        read_image(tmp_path / "a.webp")
    (tmp_path / "b.webp").write_bytes(webp_of_one_color(50, 100))
    assert read_image(tmp_path / "b.webp").size == (50, 100)


def test_alpha_is_dropped_not_composited(tmp_path: Path) -> None:
    path = saved(tmp_path, "a.png", Image.new("RGBA", (2, 2), (10, 20, 30, 0)))
    assert read_image(path).getpixel((0, 0)) == (10, 20, 30)
    path = saved(tmp_path, "b.png", Image.new("LA", (2, 2), (40, 0)))
    assert read_image(path).getpixel((0, 0)) == 40


def test_a_transparent_palette_gives_its_colours(tmp_path: Path) -> None:
    image = Image.new("P", (2, 2), 1)
    image.putpalette([0, 0, 0, 10, 20, 30])
    for transparency in (1, b"\x80\x00"):
        path = saved(tmp_path, "a.png", image, transparency=transparency)
        assert read_image(path).getpixel((0, 0)) == (10, 20, 30)


def test_other_modes_become_rgb_or_gray(tmp_path: Path) -> None:
    assert read_image(saved(tmp_path, "a.png", Image.new("1", (2, 2), 1))).getpixel((0, 0)) == 255
    cmyk = read_image(saved(tmp_path, "a.jpg", Image.new("CMYK", (8, 8), (255, 0, 0, 0)), quality=100))
    assert cmyk.mode == "RGB"
    red, green, blue = np.asarray(cmyk)[0, 0].tolist()
    assert red < 10
    assert min(green, blue) > 245
    for mode in ("HSV", "YCbCr", "RGBX", "PA"):
        assert eight_bit(Image.new(mode, (2, 2))).mode == "RGB"


@pytest.mark.parametrize("mode", ["F", "I"])
def test_pixels_without_a_defined_white_are_refused(tmp_path: Path, mode: str) -> None:
    with pytest.raises(ImageError, match="no defined black and white"):
        read_image(saved(tmp_path, "a.tiff", Image.new(mode, (2, 2))))


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("least", [None, tiny])
def test_a_truncated_image_says_so(tmp_path: Path, least: Any, progressive: bool) -> None:
    path = saved(tmp_path, "a.jpg", noise(64, 64), progressive=progressive)
    content = path.read_bytes()
    for length in (len(content) - 500, len(content) // 2, len(content) - 3):
        path.write_bytes(content[:length])
        with pytest.raises(ImageError, match=r"a\.jpg: image file is truncated"):
            read_decoded(path, least)


@pytest.mark.parametrize("least", [None, tiny])
def test_a_jpeg_that_promises_too_many_pixels_is_refused(tmp_path: Path, least: Any) -> None:
    path = saved(tmp_path, "a.jpg", noise(16, 16))
    content = bytearray(path.read_bytes())
    frame = content.index(b"\xff\xc0")
    content[frame + 5 : frame + 9] = struct.pack(">HH", 60_000, 60_000)
    path.write_bytes(content)
    with pytest.raises(ImageError, match="more than 178,956,970 pixels"):
        read_decoded(path, least)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"hello", "not an image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n", "not an image"),
        (png(60_000, 60_000), "more than 178,956,970 pixels"),
        (png(100, 100), "truncated"),
        (png(0, 5), "cannot use image"),
    ],
)
def test_each_unusable_file_has_a_reason(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(content)
    with pytest.raises(ImageError, match=reason) as caught:
        read_image(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_an_image_error(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="No such file"):
        read_image(tmp_path / "gone.png")


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(kind=st.sampled_from(["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"]), data=st.data())
def test_damaged_bytes_never_crash(tmp_path: Path, kind: str, data: st.DataObject) -> None:
    buffer = io.BytesIO()
    Image.fromarray(QUADRANTS).save(buffer, kind)
    content = bytearray(buffer.getvalue())
    for _ in range(data.draw(st.integers(1, 5))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "a.img"
    path.write_bytes(content)
    with quiet_pillow():
        try:
            assert read_decoded(path, data.draw(st.sampled_from([None, tiny]))).image.mode in {"RGB", "L"}
        except ImageError as error:
            assert error.reason  # noqa: PT017 - either outcome is right


def test_damaged_exif_loses_no_image_and_no_warning_leaks(tmp_path: Path) -> None:
    path = saved(tmp_path, "a.jpg", Image.fromarray(QUADRANTS), exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xffgarbage")
    with quiet_pillow(), ThreadPoolExecutor(2) as pool:
        assert [image.size for image in pool.map(read_image, [path] * 4)] == [(32, 16)] * 4
        assert [decoded.size for decoded in pool.map(read_decoded, [path] * 4, [tiny] * 4)] == [(32, 16)] * 4


def test_quiet_pillow_leaves_the_filters_of_others_alone() -> None:
    before = list(warnings.filters)
    outer, inner = quiet_pillow(), quiet_pillow()
    outer.__enter__()
    inner.__enter__()
    warnings.filterwarnings("ignore", message="a filter that somebody adds meanwhile")
    outer.__exit__(None, None, None)
    inner.__exit__(None, None, None)
    assert list(warnings.filters)[1:] == before
    with pytest.raises(UserWarning, match="ours"):
        warnings.warn("ours", stacklevel=1)


def test_extensions_are_those_of_images() -> None:
    extensions = image_extensions()
    assert {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".gif"} <= extensions
    assert not {".pdf", ".eps", ".h5", ".mpg", ".npy"} & extensions


def test_an_image_error_survives_pickling() -> None:
    error = pickle.loads(pickle.dumps(ImageError(Path("a.png"), "it is empty")))
    assert (error.reason, str(error)) == ("it is empty", "cannot use image a.png: it is empty")
