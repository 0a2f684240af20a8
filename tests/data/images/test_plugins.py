"""HEIC and AVIF are read where the plug-in is there, and else the message says what to install."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, features

from onnxnorm.data.images import decoding, plugins
from onnxnorm.data.images.decoding import ImageError, image_extensions, read_image

PIXELS = np.linspace(0, 255, 16 * 24 * 3).reshape(16, 24, 3).astype(np.uint8)


def box(brand: bytes) -> bytes:
    return b"\x00\x00\x00\x18ftyp" + brand + bytes(12)


def test_their_endings_are_those_of_images() -> None:
    assert {".heic", ".heif", ".avif"} <= image_extensions()


@pytest.mark.parametrize(
    ("brand", "message"),
    [
        (b"heic", r"HEIC images need a plug-in: pip install 'onnxnorm\[heif\]'"),
        (b"avif", "AVIF images need Pillow 11.3"),
    ],
)
def test_a_missing_plugin_is_named(brand: bytes, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugins, "_has_heif", lambda: False)
    monkeypatch.setattr(features, "get_supported", list)
    monkeypatch.setattr(decoding, "_image_formats", lambda: ("JPEG", "PNG"))
    path = tmp_path / "photo.jpg"  # whatever it is called
    path.write_bytes(box(brand))
    with pytest.raises(ImageError, match=message):
        read_image(path)


def test_nothing_else_is_said_to_need_a_plugin() -> None:
    assert plugins.missing_plugin(b"junk") == plugins.missing_plugin(box(b"isom")) == ""


@pytest.mark.skipif("avif" not in features.get_supported(), reason="this Pillow was built without AVIF")
def test_avif_is_read(tmp_path: Path) -> None:
    Image.fromarray(PIXELS).save(tmp_path / "a.avif", quality=100)
    assert abs(np.asarray(read_image(tmp_path / "a.avif"), np.int64) - PIXELS).mean() < 5


def test_heic_is_read(tmp_path: Path) -> None:
    pillow_heif = pytest.importorskip("pillow_heif", reason="pillow-heif is not installed (extra heif)")
    pillow_heif.register_heif_opener()
    Image.fromarray(PIXELS).save(tmp_path / "a.heic", quality=100)
    assert abs(np.asarray(read_image(tmp_path / "a.heic"), np.int64) - PIXELS).mean() < 5
