"""How many samples are run at once and counted together, and that it changes no result."""

from __future__ import annotations

from pathlib import Path
from threading import Barrier, get_ident
from typing import Any

import numpy as np
import onnx
import pytest

import onnxnorm
from onnxnorm.calibration import pace
from onnxnorm.calibration.options import CalibrationOptions
from onnxnorm.calibration.step import prepare
from onnxnorm.model.files import Model
from onnxnorm.runtime import Runtime, Session
from tests.helpers.calibrations import close, net
from tests.helpers.graphs import model, rand

MAP = 5 * 200 * 200 * 4  # bytes of a sample's largest value in the network `net`, for inputs of 200x200


def fixed(batch: int) -> onnx.ModelProto:
    proto = net()
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value = batch
    return proto


def runs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Returns a list that gets the number of samples of every run from now on."""
    usual, sizes = Session.run, list[int]()

    def run(self: Session, feeds: Any) -> Any:
        sizes.append(len(next(iter(feeds.values()))))
        return usual(self, feeds)

    monkeypatch.setattr(Session, "run", run)
    return sizes


def most(proto: onnx.ModelProto, size: int, threads: int = 1) -> int:
    return prepare(Model.open(proto), {"x": (1, 3, size, size)}, CalibrationOptions(), Runtime("cpu", threads)).most


@pytest.mark.parametrize(("small", "large", "fit"), [(0.5, 0.5, 1), (0.5, 3, 3), (0.5, 7, 4), (6, 7, 6), (9, 100, 9)])
def test_the_largest_value_of_a_run_fits_a_cache(
    small: float, large: float, fit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pace, "_SMALL_CACHE", small * MAP + 1)
    monkeypatch.setattr(pace, "_CACHE", large * MAP + 1)
    assert most(net(), 200) == fit


def test_every_thread_of_a_run_has_a_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "_CACHE", MAP)
    monkeypatch.setattr(pace, "_SMALL_CACHE", MAP)
    assert [most(net(), 200, threads) for threads in (1, 2, 6)] == [1, 2, 6]


def test_activations_of_a_run_outweigh_the_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "_CACHE", 1)
    monkeypatch.setattr(pace, "_SMALL_CACHE", 1)
    weights = {"w": rand(64, 3, 1, 1), "v": rand(64, 64, 1, 1), "u": rand(64, 64, 1, 1)}
    proto = model(
        "a = Conv(x, w) r = Relu(a) b = Conv(r, v) s = Relu(b) z = Conv(s, u)", {"x": ("n", 3, 2, 2)}, weights
    )
    assert most(proto, 2) == -(-(64 * 3 + 2 * 64 * 64) // (3 * 64 * 2 * 2))


@pytest.mark.parametrize("measure", [(), ("max",), ("p99.9",), ("range",), ("rms",)])
@pytest.mark.parametrize("fit", [1, 2, 3, 100])
def test_smaller_runs_give_the_same(measure: tuple[str, ...], fit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    data = rand(21, 3, 20, 20)
    words: dict[str, Any] = {"provider": "cpu", "threads": 1, "batch_size": 8, "measure": measure}
    whole = onnxnorm.calibrate(net(), data, **words)
    monkeypatch.setattr(pace, "_SMALL_CACHE", fit * 5 * 20 * 20 * 4)
    monkeypatch.setattr(pace, "_FEW", 1)
    sizes = runs(monkeypatch)
    close(onnxnorm.calibrate(net(), data, **words), whole, rtol=1e-6)  # kernels may differ by the batch
    assert max(sizes) == min(fit, 8)
    assert sum(sizes) == 21


@pytest.mark.parametrize("batch", [1, 3, 8, 10])
@pytest.mark.parametrize("measure", [(), ("p99.9",), ("range",)])
def test_a_fixed_batch_is_run_as_it_is(batch: int, measure: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    data = rand(40, 3, 12, 12)
    words: dict[str, Any] = {"provider": "cpu", "threads": 2, "measure": measure}
    free = onnxnorm.calibrate(net(), data, **words)
    sizes = runs(monkeypatch)
    close(onnxnorm.calibrate(fixed(batch), data, batch_size=batch, **words), free, rtol=1e-6)
    assert sizes == [batch] * -(-40 // batch)


@pytest.mark.parametrize("asked", [1, 2, 5, 64])
def test_no_run_has_more_samples_than_were_asked_for(asked: int, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = runs(monkeypatch)
    onnxnorm.calibrate(net(), rand(70, 3, 8, 8), provider="cpu", batch_size=asked)
    assert max(sizes) <= asked
    assert sum(sizes) == 70


@pytest.mark.parametrize(("fit", "cut"), [(3, [3, 3, 2]), (4, [4, 4]), (5, [4, 4]), (7, [4, 4]), (2, [2, 2, 2, 2])])
def test_runs_of_a_batch_are_of_one_size_or_almost(fit: int, cut: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "_SMALL_CACHE", fit * 5 * 20 * 20 * 4)
    monkeypatch.setattr(pace, "_FEW", 1)
    sizes = runs(monkeypatch)
    onnxnorm.calibrate(net(), rand(16, 3, 20, 20), provider="cpu", threads=1, batch_size=8)
    assert sizes == cut * 2


def test_threads_share_the_runs_of_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """One batch of four runs: each waits for another one, which only another thread can begin."""
    monkeypatch.setattr(pace, "_SMALL_CACHE", 0)
    monkeypatch.setattr(pace, "_CACHE", 0)
    usual, met, threads = Session.run, Barrier(2, timeout=30), set[int]()

    def run(self: Session, feeds: Any) -> Any:
        met.wait()
        threads.add(get_ident())
        return usual(self, feeds)

    data = rand(8, 3, 160, 160)
    whole = onnxnorm.calibrate(net(), data, provider="cpu", threads=1)
    monkeypatch.setattr(Session, "run", run)
    parted = onnxnorm.calibrate(net(), data, provider="cpu", threads=2)
    close(parted, whole)
    assert len(threads) == 2


@pytest.mark.parametrize("light", [True, False])
@pytest.mark.parametrize("one_size", [True, False])
def test_memory_is_taken_at_once_where_values_are_small_and_known(
    light: bool, one_size: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, usual = list[bool](), Runtime.session

    def session(self: Runtime, *words: Any) -> Session:
        opened.append(self.patterns)
        return usual(self, *words)

    monkeypatch.setattr(Runtime, "session", session)
    monkeypatch.setattr(pace, "_CACHE", MAP if light else MAP - 1)
    shapes, runtime = {"x": (1, 3, 200, 200)}, Runtime("cpu", 1)
    prepare(Model.open(net()), shapes, CalibrationOptions(), runtime, one_size=one_size)
    assert opened == [light and one_size]


def test_small_samples_are_counted_in_large_batches(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", rand(640, 3, 8, 8))
    seen = list[int]()
    onnxnorm.calibrate(net(), tmp_path / "x.npy", provider="cpu", threads=1, progress=lambda p: seen.append(p.done))
    assert np.diff([0, *seen]).tolist() == [20] * 32


@pytest.mark.parametrize(
    ("sample_bytes", "total", "batch", "together"),
    [
        (3 << 10, 100_000, None, 256),
        (64 << 10, 100_000, None, 32),
        (600 << 10, 100_000, None, 8),
        (16 << 10, 100_000, None, 128),
        (3 << 10, 640, None, 20),
        (3 << 10, 40, None, 8),
        (3 << 10, None, None, 8),
        (None, 100_000, None, 8),
        (3 << 10, 100_000, 1, 256),
        (3 << 10, 100_000, 10, 260),
        (600 << 10, 100_000, 3, 9),
        (600 << 10, 100_000, 16, 16),
    ],
)
def test_how_many_are_counted_together(
    sample_bytes: int | None, total: int | None, batch: int | None, together: int
) -> None:
    assert pace.samples_together(sample_bytes, total, batch) == together
