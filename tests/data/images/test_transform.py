"""A function of one's own makes samples of images: the same as the built-in recipe where it computes the same."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from PIL import Image

import onnxnorm
from onnxnorm.errors import DataError, OptionError, StatisticsError
from onnxnorm.statistics import Statistics
from tests.helpers.calibrations import close, net
from tests.helpers.commands import run, succeeded

CODE = """
import numpy as np

def sample(image):
    assert image.mode in ("RGB", "L")
    return np.asarray(image.convert("RGB"), np.float32).transpose(2, 0, 1) / np.float32(255)

def batch_of_one(image):
    return sample(image)[None].astype(np.float64)

def broken(image):
    raise KeyError("no such key")

def flat(image):
    return np.zeros((3, 5))

def nothing(image):
    return None

number = 5

class Maker:
    @staticmethod
    def make(image):
        return sample(image)
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder, with a network, photographs and a module."""
    onnx.save(net(), tmp_path / "net.onnx")
    (tmp_path / "photos").mkdir()
    for number in range(8):
        pixels = np.random.default_rng(number).integers(0, 256, (10, 12, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{number}.png")
    (tmp_path / "prepare_images.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.modules.pop("prepare_images", None)


def calibrated(transform: Any, **words: Any) -> Statistics:
    return onnxnorm.calibrate("net.onnx", "photos", provider="cpu", transform=transform, **words)


@pytest.mark.parametrize("name", ["sample", "batch_of_one", "Maker.make"])
def test_it_replaces_the_built_in_recipe(name: str, here: Path) -> None:
    expected = onnxnorm.calibrate("net.onnx", "photos", provider="cpu", preset="unit", resize="none")
    statistics = calibrated(f"prepare_images:{name}")
    close(statistics, expected, rtol=1e-6)
    record = statistics.inputs["preprocessing"]
    assert record["transform"] == f"prepare_images:{name}"
    assert len(record["digest"]) == 16
    import importlib

    close(calibrated(importlib.import_module("prepare_images").sample), expected, rtol=1e-6)
    images = [Image.open(path) for path in sorted((here / "photos").iterdir())]
    memory = onnxnorm.calibrate(
        "net.onnx",
        images,
        provider="cpu",
        transform=lambda image: np.asarray(image, np.float32).transpose(2, 0, 1) / np.float32(255),
    )
    close(memory, expected, rtol=1e-6)
    assert str(here) not in sys.path


def test_every_command_takes_it(here: Path) -> None:
    words = ("--transform", "prepare_images:sample", "-q", "--provider", "cpu")
    ran = succeeded("calibrate", "net.onnx", "photos", "-o", "s.safetensors", *words)
    assert "images as transform prepare_images:sample makes them" in ran.out
    succeeded("normalize", "net.onnx", "photos", "-o", "n.onnx", *words)
    succeeded("verify", "net.onnx", "n.onnx", "photos", *words)
    pytest.importorskip("matplotlib", reason="the extra report is not installed")
    page = ("report", "net.onnx", "n.onnx", "photos", "--stats", "s.safetensors", "-o", "r.html", "--provider", "cpu")
    failed = run(*page)
    assert "the images were prepared by the transform prepare_images:sample; to run it on these, say" in failed.error
    succeeded(*page, "--transform", "prepare_images:sample")
    assert "transform prepare_images:sample" in Path("r.html").read_text("utf-8")
    changed(here)
    assert "measured with another version of the transform prepare_images:sample" in (
        run(*page, "--transform", "prepare_images:sample").error
    )


def changed(here: Path) -> None:
    import linecache

    (here / "prepare_images.py").write_text(CODE.replace("255)", "256)") + "\n# another version\n")
    sys.modules.pop("prepare_images", None)
    linecache.clearcache()


def test_merge_and_resume_refuse_another_version(here: Path) -> None:
    def stop(progress: Any) -> None:
        raise KeyboardInterrupt

    words: dict[str, Any] = {"checkpoint": here / "point", "batch_size": 2}
    with pytest.raises(KeyboardInterrupt):
        calibrated("prepare_images:sample", progress=stop, **words)
    half = calibrated("prepare_images:sample", shard="0/2")
    other = calibrated("prepare_images:Maker.make", shard="1/2")
    with pytest.raises(StatisticsError, match="differ in their preprocessing"):
        onnxnorm.merge([half, other])
    changed(here)
    with pytest.raises(StatisticsError, match="differ in their preprocessing"):
        onnxnorm.merge([half, calibrated("prepare_images:sample", shard="1/2")])
    with pytest.raises(StatisticsError, match="its preprocessing differs"):
        calibrated("prepare_images:sample", resume=True, **words)


@pytest.mark.parametrize(
    ("transform", "error", "message"),
    [
        (
            "prepare_images:broken",
            DataError,
            r"prepare_images:broken raised KeyError: 'no such key'; at image .*0\.png",
        ),
        (
            "prepare_images:flat",
            DataError,
            r"returned ndarray of shape \(3, 5\), but input 'x' takes .* \(3, any, any\)",
        ),
        ("prepare_images:nothing", DataError, r"returned NoneType"),
        ("prepare_images:gone", OptionError, "module prepare_images has no gone"),
        ("prepare_images:number", OptionError, "number is no function; it is a int"),
        ("no_such_module:f", OptionError, "cannot be imported .* it must lie in the current folder"),
        ("prepare_images", OptionError, "not of the form MODULE:FUNCTION"),
        ("prepare_images.py:sample", OptionError, r"not of the form .* \(without \.py"),
        (5, OptionError, "5 is no function"),
    ],
)
def test_what_is_wrong_is_named(transform: Any, error: type[Exception], message: str, here: Path) -> None:
    with pytest.raises(error, match=message):
        calibrated(transform)


def test_other_options_have_no_effect_beside_it(here: Path) -> None:
    ran = run("calibrate", "net.onnx", "photos", "-o", "s", "--transform", "prepare_images:sample", "--size", "8")
    assert "--transform prepares images alone, so --size has no effect" in ran.error
