"""How images were prepared is said, and a rewritten model is verified on images prepared as at its calibration."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

import onnxnorm
from tests.helpers.commands import DEMO, IMAGES, SOME, run, succeeded
from tests.helpers.graphs import model, rand

UNIT = "images as unit: RGB/255, shortest side to 64x64, NCHW float32\n"
IMAGENET = "images as imagenet: RGB/255, mean"
FORGOTTEN = "no --preset was given, so imagenet was taken; give one if"


@pytest.fixture(scope="module")
def unit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo network, rewritten for images prepared by the preset unit."""
    folder = tmp_path_factory.mktemp("unit")
    succeeded("normalize", DEMO, *SOME, "--preset", "unit", "-o", folder / "out.onnx", "-q")
    return folder / "out.onnx"


@pytest.fixture
def samples(tmp_path: Path) -> Path:
    np.save(tmp_path / "d.npy", rand(4, 3, 64, 64))
    return tmp_path / "d.npy"


@pytest.mark.parametrize("command", ["calibrate", "normalize"])
def test_a_forgotten_preset_is_noted(command: str, tmp_path: Path) -> None:
    ran = succeeded(command, DEMO, *SOME, "-o", tmp_path / "out.onnx")
    assert IMAGENET in ran.out
    assert FORGOTTEN in ran.err
    assert FORGOTTEN not in succeeded(command, DEMO, *SOME, "-o", tmp_path / "out.onnx", "-q").err
    assert "--preset was" not in succeeded(command, DEMO, *SOME, "--preset", "imagenet", "-o", tmp_path / "o").err
    assert "--preset was" not in succeeded(command, DEMO, *SOME, "--preset", "unit", "-o", tmp_path / "o").err


def test_a_preset_that_needs_no_choice_is_not_noted(tmp_path: Path) -> None:
    """That of a network of bytes, and that of a network that does its own preprocessing."""
    body, weights = "f = Cast<to = 1>(x) a = Conv(f, w) r = Relu(a) z = GlobalMaxPool(r)", {"w": rand(4, 3, 1, 1)}
    onnx.save(
        model(body, {"x": ("n", 3, 8, 8)}, weights, input_types={"x": onnx.TensorProto.UINT8}), tmp_path / "m.onnx"
    )
    ran = succeeded("calibrate", tmp_path / "m.onnx", *SOME, "-o", tmp_path / "s")
    assert "images as raw" in ran.out
    assert "--preset" not in ran.err
    succeeded("features", DEMO, "--layers", "relu1_1", "--fold-preprocessing", "caffe", "-o", tmp_path / "f.onnx")
    ran = succeeded("calibrate", tmp_path / "f.onnx", *SOME, "-o", tmp_path / "s")
    assert "images as unit" in ran.out
    assert "no --preset" not in ran.err


def test_verify_prepares_images_as_the_calibration_did(unit: Path) -> None:
    ran = succeeded("verify", DEMO, unit, *SOME)
    assert ran.out.startswith(UNIT)
    assert ran.err == f"{unit} records that images were prepared in this way at the calibration\n"
    as_unit = onnxnorm.verify(DEMO, unit, IMAGES, preset="unit", limit=4)
    recorded = onnxnorm.verify(DEMO, unit, IMAGES, limit=4)
    assert recorded.max_relative_error == as_unit.max_relative_error
    assert (recorded.as_calibrated, as_unit.as_calibrated) == (True, False)
    assert succeeded("verify", DEMO, unit, *SOME, "--json").json["same"]


def test_verify_prepares_images_as_it_is_told(unit: Path) -> None:
    ran = succeeded("verify", DEMO, unit, *SOME, "--preset", "caffe")
    assert ran.out.startswith("images as caffe: BGR 0..255")
    assert ran.err == ""
    assert FORGOTTEN in succeeded("verify", DEMO, unit, *SOME, "--channels", "rgb").err


def test_a_size_of_ones_own_goes_with_what_is_recorded(unit: Path) -> None:
    """Who verifies at another size wants the same pixels."""
    ran = succeeded("verify", DEMO, unit, *SOME, "--resize", "squash")
    shown = ran.out.splitlines()[0]
    assert shown.startswith("images as unit: RGB/255")
    assert "squash" in shown
    assert ran.err == f"{unit} records that images were prepared in this way at the calibration, but for --resize\n"


@pytest.fixture(scope="module")
def sized(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A network of any size, rewritten for images squashed to a size, and for images of their own size."""
    folder = tmp_path_factory.mktemp("sized")
    weights = {"w": rand(4, 3, 3, 3), "v": rand(2, 4, 1, 1)}
    body = "a = Conv(x, w) r = Relu(a) g = GlobalAveragePool(r) z = Conv(g, v)"
    onnx.save(model(body, {"x": ("n", 3, "h", "w_")}, weights), folder / "m.onnx")
    for name, words in {"squash": ("--size", "24x32", "--resize", "squash"), "none": ("--resize", "none")}.items():
        normalized = succeeded("normalize", folder / "m.onnx", *SOME, *words, "-o", folder / f"{name}.onnx")
        assert f"--resize {name}" in normalized.err + normalized.out
    return {name: folder / f"{name}.onnx" for name in ("m", "squash", "none")}


@pytest.mark.parametrize(
    ("recorded", "given", "said"),
    [
        ("squash", (), "squashed to 24x32"),
        ("squash", ("--resize", "shortest"), "shortest side to 24x32"),
        ("squash", ("--size", "20"), "squashed to 20x20"),
        ("squash", ("--resize", "none"), "at its own size"),
        ("none", (), "at its own size"),
        ("none", ("--size", "20"), "shortest side to 20x20"),
        ("none", ("--size", "20", "--resize", "squash"), "squashed to 20x20"),
    ],
)
def test_what_is_recorded_and_what_is_given(
    sized: dict[str, Path], recorded: str, given: tuple[str, ...], said: str
) -> None:
    ran = succeeded("verify", sized["m"], sized[recorded], *SOME, *given)
    assert said in ran.out.splitlines()[0]
    own = ", ".join(word for word in given if word.startswith("--"))
    assert ran.err.endswith(f"at the calibration{', but for ' + own if own else ''}\n")


def test_verify_without_a_record_says_that_the_preset_is_the_default() -> None:
    ran = succeeded("verify", DEMO, DEMO, *SOME)
    assert ran.out.startswith(IMAGENET)
    assert FORGOTTEN in ran.err


@pytest.mark.filterwarnings("default")
def test_verify_runs_no_transform_that_nobody_named(
    unit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The record alone must not say which code is run."""
    monkeypatch.chdir(tmp_path)
    rewritten = onnx.load(unit)
    entry = next(entry for entry in rewritten.metadata_props if entry.key == "onnxnorm.preprocessing")
    entry.value = '{"transform": "module:function", "digest": "0"}'
    onnx.save(rewritten, "out.onnx")
    ran = succeeded("verify", DEMO, "out.onnx", *SOME)
    assert "prepared by the transform module:function; to run it on these, give --transform module:function" in ran.err
    assert ran.out.startswith(IMAGENET)
    exported = succeeded("export", "out.onnx", "-o", "out.npz")
    assert "as at the calibration, transform module:function makes them" in exported.out


def test_a_damaged_record_is_refused(unit: Path, tmp_path: Path) -> None:
    rewritten = onnx.load(unit)
    next(entry for entry in rewritten.metadata_props if entry.key == "onnxnorm.preprocessing").value = "3"
    onnx.save(rewritten, tmp_path / "out.onnx")
    assert (
        "'onnxnorm.preprocessing' of the model is damaged" in run("verify", DEMO, tmp_path / "out.onnx", IMAGES).error
    )
    succeeded("verify", DEMO, tmp_path / "out.onnx", *SOME, "--preset", "unit")


@pytest.mark.parametrize("command", ["calibrate", "normalize"])
def test_options_of_images_that_arrays_do_not_follow_are_noted(command: str, samples: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.onnx"
    ran = succeeded(command, DEMO, samples, "--preset", "caffe", "-o", out)
    assert "arrays are fed as they are; --preset has no effect\n" in ran.err
    ran = succeeded(command, DEMO, samples, "--mean", "0", "--std", "1", "-o", out)
    assert "arrays are fed as they are; --mean, --std have no effect\n" in ran.err
    assert "arrays" not in succeeded(command, DEMO, samples, "-o", out).err
    assert "arrays" not in succeeded(command, DEMO, samples, *SOME, "--preset", "caffe", "-o", out).err


def test_verify_notes_options_that_arrays_do_not_follow(unit: Path, samples: Path) -> None:
    assert succeeded("verify", DEMO, unit, samples).err == ""
    ran = succeeded("verify", DEMO, unit, samples, "--preset", "caffe")
    assert ran.err == "arrays are fed as they are; --preset has no effect\n"
