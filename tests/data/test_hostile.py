"""Small files that would take gigabytes to read are refused before they are decoded or unpacked."""

from __future__ import annotations

import io
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import onnxnorm
from onnxnorm.data.arrays.npy import open_npz
from onnxnorm.data.images import preprocessing
from onnxnorm.data.images.decoding import ImageError, eight_bit, quiet_pillow, read_image, webp_size
from onnxnorm.errors import DataError
from tests.helpers.graphs import model, rand


def lossless_webp(width: int, height: int) -> bytes:
    """The first 34 bytes of a lossless WebP."""
    bits = (width - 1) | (height - 1) << 14
    body = b"WEBPVP8L" + (9).to_bytes(4, "little") + b"\x2f" + bits.to_bytes(4, "little") + bytes(5)
    return b"RIFF" + len(body).to_bytes(4, "little") + body


def test_a_webp_is_refused_before_pillow_opens_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.webp").write_bytes(lossless_webp(16_000, 10_000))
    monkeypatch.setattr(Image, "open", lambda *_, **__: pytest.fail("Pillow allocates its canvases here"))
    with pytest.raises(ImageError, match="more than 50,000,000 pixels"):
        read_image(tmp_path / "a.webp")


@pytest.mark.parametrize("options", [{}, {"lossless": True}, {"exif": b"Exif\0\0"}])
def test_the_size_of_a_webp(options: dict[str, object]) -> None:
    stream = io.BytesIO()
    Image.new("RGB", (123, 45)).save(stream, "WEBP", **options)
    assert webp_size(stream.getvalue()[:32]) == (123, 45)


@pytest.mark.parametrize("head", [b"", b"RIFF", b"RIFF0000WAVE" + bytes(20), b"\x89PNG" + bytes(28)])
def test_other_files_have_no_size_of_a_webp(head: bytes) -> None:
    assert webp_size(head) is None


@pytest.mark.parametrize("suffix", ["png", "gif", "tiff", "bmp"])
def test_an_image_is_refused_before_it_is_decoded(suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / f"a.{suffix}"
    Image.new("L", (40, 30)).save(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1199)
    with quiet_pillow(), pytest.raises(ImageError, match="more than 1,199 pixels"):
        read_image(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1200)
    assert read_image(path).size == (40, 30)


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp"])
def test_an_image_that_is_not_resized_may_have_fewer_pixels(
    suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("RGB", (40, 30)).save(tmp_path / f"a.{suffix}")
    proto = model("a = Conv(x, w) z = Relu(a)", {"x": ("N", 3, None, None)}, {"w": rand(2, 3, 1, 1)})
    monkeypatch.setattr(preprocessing, "MOST_UNRESIZED", 1199)
    with pytest.raises(DataError, match=r"more than 1,199 pixels; scale it down first"):
        onnxnorm.calibrate(proto, tmp_path, preset="raw", resize="none")
    assert onnxnorm.calibrate(proto, tmp_path, preset="raw", size=(8, 8)).images == 1
    monkeypatch.setattr(preprocessing, "MOST_UNRESIZED", 1200)
    assert onnxnorm.calibrate(proto, tmp_path, preset="raw", resize="none").images == 1


def test_sixteen_bits_are_scaled_in_bands() -> None:
    pixels = np.random.default_rng(0).integers(0, 65536, (2100, 2000)).astype(np.uint16)
    image = Image.fromarray(pixels)
    tracemalloc.start()
    scaled = np.asarray(eight_bit(image))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    np.testing.assert_array_equal(scaled, (pixels.astype(np.int64) + 128) // 257)
    assert peak < 12 * pixels.size


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_members_of_other_methods_are_refused(method: int, tmp_path: Path) -> None:
    content = io.BytesIO()
    np.save(content, np.zeros((4, 3), np.float32))
    with zipfile.ZipFile(tmp_path / "a.npz", "w", method) as archive:
        archive.writestr("x.npy", content.getvalue())
    with pytest.raises(DataError, match=r"but only 0 \(stored\) and 8 \(deflated\) are read"):
        open_npz(tmp_path / "a.npz")
