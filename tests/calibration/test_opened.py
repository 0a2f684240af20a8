"""Models whose file fixes the batch at 1 are measured several samples at a time, with the same statistics."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

import onnxnorm
from onnxnorm.calibration import calibrate
from onnxnorm.calibration.opened import opened_model
from onnxnorm.calibration.options import CalibrationOptions
from onnxnorm.calibration.probe_session import DeviceBatch, ProbeSession
from onnxnorm.data.batches import Batch
from onnxnorm.model.files import Model
from onnxnorm.statistics import Statistics, Value
from tests.helpers.calibrations import close
from tests.helpers.graphs import model, rand

BODY = "c = Conv(x, w) r = Relu(c) g = GlobalAveragePool(r) f = Reshape(g, t) z = MatMul(f, v)"
CONSTANTS = {"w": rand(5, 3, 3, 3), "v": rand(5, 2), "t": [1, -1]}
MEASURE = ("rms", "p99.9", "range")


def net(batch: int | str = 1, side: int | str = 12, body: str = BODY) -> onnx.ModelProto:
    """A convolution and a dense head, exported for a batch."""
    return model(body, {"x": (batch, 3, side, side)}, CONSTANTS)


def measured(proto: onnx.ModelProto, side: int = 12) -> Statistics:
    return onnxnorm.calibrate(proto, rand(11, 3, side, side), provider="cpu", measure=MEASURE)


def is_opened(proto: onnx.ModelProto, **options: object) -> bool:
    return opened_model(Model.open(proto), CalibrationOptions(provider="cpu", **options)) is not None  # type: ignore[arg-type]


@pytest.mark.parametrize("side", [12, "s"])
def test_same_statistics(side: int | str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_opened(net(side=side))
    found = measured(net(side=side))
    monkeypatch.setattr(calibrate, "opened_model", lambda *_: None)
    one_by_one = measured(net(side=side))
    close(found, one_by_one, rtol=1e-6)
    assert found.images == 11
    assert found.model == one_by_one.model == Model.open(net(side=side)).digest()
    assert found.shapes == one_by_one.shapes == {"x": (1, 3, 12, 12)}


def test_several_samples_run_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes, place = set[int](), ProbeSession.place

    def seen(session: ProbeSession, batch: Batch) -> DeviceBatch:
        placed = place(session, batch)
        sizes.add(placed.size)
        return placed

    monkeypatch.setattr(ProbeSession, "place", seen)
    measured(net())
    assert max(sizes) > 1


def test_a_batch_that_was_asked_for_is_kept() -> None:
    assert not is_opened(net(), batch_size=1)


def test_larger_batches_stay() -> None:
    assert not is_opened(net(2, body=BODY.replace("Reshape(g, t)", "Flatten(g)")))


def test_samples_that_mix_are_measured_one_by_one() -> None:
    mixing = net(body=BODY.replace("z = MatMul(f, v)", "s = Softmax<axis=0>(f) z = MatMul(s, v)"))
    assert not is_opened(mixing)
    found, plain = (measured(proto).values[Value("r", "mean")].mean for proto in (mixing, net()))
    np.testing.assert_allclose(found, plain, rtol=1e-6)


def test_large_values_are_measured_one_by_one_on_a_processor() -> None:
    assert not is_opened(net(side=900))


def test_sizes_that_are_only_assumed_do_not_fail() -> None:
    """The head has as many weights as samples of 12 x 12 need, which nothing says before one is read."""
    body = "c = Conv(x, w) r = Relu(c) f = Flatten(r) z = MatMul(f, v)"
    proto = model(body, {"x": (1, 3, "h", "w")}, {"w": rand(5, 3, 3, 3), "v": rand(500, 2)})
    assert not is_opened(proto)
    assert measured(proto).images == 11
