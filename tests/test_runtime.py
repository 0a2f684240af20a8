"""Providers and their options, lanes, and inputs that are placed on a device: tried with the CPU as the device."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from PIL import Image

import onnxnorm
from onnxnorm import runtime
from onnxnorm.calibration.calibrate import calibrate_model
from onnxnorm.calibration.options import CalibrationOptions
from onnxnorm.cli import main
from onnxnorm.data.images.options import ImageOptions
from onnxnorm.data.opening import open_data
from onnxnorm.errors import ModelError, OptionError, ProviderError, ProviderWarning
from onnxnorm.model.files import Model
from onnxnorm.model.inputs import InputSpec
from onnxnorm.runtime import Runtime

MODELS = Path(__file__).parents[1] / "models"
DEMO = MODELS / "demo_vgg.onnx"


@pytest.mark.parametrize("threads", [1, 2, 3, 4, 16])
@pytest.mark.parametrize("samples", [1, 3, 4, 7, 8, 16, 64])
@pytest.mark.parametrize("fixed", [None, 1, 8])
def test_lanes_use_the_threads_and_keep_to_the_samples(threads: int, samples: int, fixed: int | None) -> None:
    concurrency = Runtime("cpu", threads).concurrency(samples, fixed)
    assert concurrency.threads is not None
    assert 1 <= concurrency.runs * concurrency.threads <= threads
    assert not fixed or concurrency.size % fixed == 0
    assert samples <= concurrency.size * concurrency.runs < samples + concurrency.runs * (fixed or 1) + concurrency.size
    assert concurrency.runs == 1 or concurrency.size * (concurrency.runs - 1) < samples


def test_lanes_of_this_machine() -> None:
    assert Runtime("cpu", 2).concurrency(8) == runtime.RunConcurrency(2, 4, 1)
    assert Runtime("cpu", 16).concurrency(8) == runtime.RunConcurrency(2, 4, 8)
    assert Runtime("cpu", 2).concurrency(3) == runtime.RunConcurrency(1, 3, 2)


def test_small_samples_get_whole_batches_in_every_thread() -> None:
    assert Runtime("cpu", 2).concurrency(8, sample_bytes=3 * 64 * 64 * 4) == runtime.RunConcurrency(2, 8, 1)
    assert Runtime("cpu", 6).concurrency(1, 4, 1000) == runtime.RunConcurrency(6, 4, 1)
    assert Runtime("cpu", 2).concurrency(8, sample_bytes=3 * 128 * 128 * 4) == Runtime("cpu", 2).concurrency(8)


def test_a_dataset_knows_how_large_a_sample_is(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    Image.new("RGB", (9, 9)).save(tmp_path / "images" / "a.png")
    np.save(tmp_path / "a.npy", np.zeros((2, 3, 80, 80), np.float32))
    specs = [InputSpec("input", (None, 3, 64, 64), np.dtype(np.float32))]
    open_specs = [InputSpec("input", (None, 3, None, None), np.dtype(np.float32))]
    assert open_data(tmp_path / "images", specs).sample_bytes == 3 * 64 * 64 * 4
    both = [tmp_path / "images", tmp_path / "a.npy"]
    assert open_data(both, open_specs, ImageOptions(size="8x8")).sample_bytes == 3 * 80 * 80 * 4
    assert open_data(both, open_specs, ImageOptions(resize="none")).sample_bytes is None
    assert open_data(np.zeros((1, 3, 64, 64), np.float32), specs).sample_bytes is None


@pytest.mark.parametrize(
    ("provider", "error", "message"),
    [
        ("cpu:x", OptionError, "expected NAME or NAME:OPTION=VALUE"),
        ("cpu:=1", OptionError, "expected NAME or NAME:OPTION=VALUE"),
        ("cpu:a=", OptionError, "expected NAME or NAME:OPTION=VALUE"),
        ("auto:device_id=1", OptionError, "name it instead of auto"),
        ("foo:a=1", ProviderError, "is not in this ONNX Runtime"),
    ],
)
def test_bad_providers(provider: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Runtime(provider).session(Model.open(DEMO))


@pytest.fixture
def broken_cuda(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """A machine with a CUDA device whose libraries are missing; the list gets the providers that are asked for."""
    given: list[Any] = []
    inference = ort.InferenceSession

    def watched(serialized: bytes, options: ort.SessionOptions, providers: object) -> ort.InferenceSession:
        given.append(providers)
        return inference(serialized, options, providers=["CPUExecutionProvider"])

    monkeypatch.setattr(ort, "InferenceSession", watched)
    monkeypatch.setattr(ort, "preload_dlls", lambda: print("Failed to load libcudart.so"), raising=False)
    monkeypatch.setattr(runtime, "cuda_devices", lambda: 1)
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    return given


def test_options_reach_the_provider(broken_cuda: list[Any]) -> None:
    for provider in ("cuda:device_id=1,use_tf32=1", "cuda"):
        with pytest.raises(ProviderError, match=r"only started CPUExecutionProvider \(Failed to load libcudart.so\)"):
            Runtime(provider).session(Model.open(DEMO))
    assert broken_cuda == [
        [("CUDAExecutionProvider", {"use_tf32": "1", "device_id": "1"}), ("CPUExecutionProvider", {})],
        [("CUDAExecutionProvider", {"use_tf32": "0"}), ("CPUExecutionProvider", {})],
    ]


@pytest.mark.usefixtures("broken_cuda")
def test_falling_back_to_the_cpu_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.warns(ProviderWarning, match="a CUDA device is here, but ONNX Runtime cannot use it"):
        assert Runtime().session(Model.open(DEMO)).provider == "CPUExecutionProvider"
    out = tmp_path / "s.safetensors"
    words = ["onnxnorm", "calibrate", str(DEMO), str(MODELS / "images"), "--limit", "8", "-o", str(out)]
    monkeypatch.setattr("sys.argv", words)
    warnings.simplefilter("default")
    with pytest.raises(SystemExit):
        main()
    assert "note: a CUDA device is here" in capsys.readouterr().err
    assert out.exists()


def test_bound_inputs_and_outputs_are_the_same() -> None:
    plain = Runtime("cpu", 1).session(Model.open(DEMO))
    bound = replace(plain, device="cpu")
    feeds = {"input": np.random.default_rng(0).random((3, 3, 64, 64), np.float32), "other": np.zeros(1, np.float32)}
    placed = bound.place(feeds)
    assert plain.place(feeds) is feeds
    assert set(placed) == {"input"}
    assert isinstance(placed["input"], ort.OrtValue)
    want = plain.run(feeds)
    for given in (feeds, placed):
        found = bound.run(given)
        assert found.keys() == want.keys()
        for name, array in want.items():
            np.testing.assert_array_equal(found[name], array)
    with pytest.raises(ModelError, match=r"fails on inputs input \(1, 3, 64, 64, 1\)"):
        bound.run(bound.place({"input": np.zeros((1, 3, 64, 64, 1), np.float32)}))


def test_a_device_measures_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """The way through a device: one run at a time, the next batch copied meanwhile."""
    want = onnxnorm.calibrate(DEMO, MODELS / "images", preset="unit", provider="cpu", limit=21)
    monkeypatch.setattr(runtime, "_DEVICES", {"CPUExecutionProvider": "cpu"})
    placed = []
    place = runtime.Session.place

    def watched(session: runtime.Session, feeds: dict[str, NDArray[Any]]) -> runtime.Feeds:
        placed.append(session.device)
        return place(session, feeds)

    monkeypatch.setattr(runtime.Session, "place", watched)
    monkeypatch.setattr(Runtime, "concurrency", lambda self, samples, *_: runtime.RunConcurrency(1, samples, None))
    images = ImageOptions(preset="unit")
    found = calibrate_model(
        Model.open(DEMO), str(MODELS / "images"), CalibrationOptions(**vars(images), limit=21, provider="cpu")
    )
    assert placed == ["cpu"] * 3
    for value, moments in want.values.items():
        np.testing.assert_allclose(found.values[value].mean, moments.mean, rtol=1e-12)
        np.testing.assert_array_equal(found.values[value].largest, moments.largest)
