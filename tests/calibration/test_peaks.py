"""`--measure range`: the largest magnitude of every value, against raw activations, however the data are cut."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import onnxnorm
from onnxnorm.errors import OptionError, StatisticsError
from onnxnorm.model.files import Model
from onnxnorm.model.shapes import read_graph
from onnxnorm.scaling import trace
from onnxnorm.scaling.channels import channel_axes
from onnxnorm.statistics import Statistics
from tests.corpus import CASES, Case, feeds
from tests.helpers import oracle
from tests.helpers.calibrations import close, net
from tests.helpers.graphs import model, rand

RANGE = ("range",)
RUNNING = {
    name: case for name, case in CASES.items() if case.runs and name not in {"fixed_batch", "domain_spelled_out"}
}


@pytest.mark.parametrize("case", RUNNING.values(), ids=list(RUNNING))
def test_every_value_against_raw_activations(case: Case) -> None:
    proto = case.build()
    given = feeds(proto, 3)
    found = onnxnorm.calibrate(proto, given, measure=RANGE, provider="cpu", batch_size=3, filters=case.filters)
    graph = read_graph(Model.open(proto), found.shapes)
    axes = channel_axes(trace(graph))
    assert set(found.peaks) == set(axes)
    inner = [name for name in axes if name not in given]
    raw = oracle.activations(proto, given, inner) | given
    for name, kept in axes.items():
        magnitudes = np.abs(raw[name].astype(np.float64))
        others = tuple(axis for axis in range(magnitudes.ndim) if axis not in kept)
        want = np.minimum(magnitudes.max(axis=others), np.finfo(np.float32).max).reshape(-1)
        np.testing.assert_allclose(
            np.asarray(found.peaks[name].largest), want, rtol=max(1e-5, case.rtol), atol=1e-6, err_msg=name
        )


@pytest.mark.parametrize("case", RUNNING.values(), ids=list(RUNNING))
def test_maxima_of_filters_follow(case: Case) -> None:
    proto = case.build()
    words: dict[str, Any] = {"provider": "cpu", "filters": case.filters}
    given = feeds(proto, 3)
    found = onnxnorm.calibrate(proto, given, measure=RANGE, **words)
    shapes = read_graph(Model.open(proto), found.shapes).shapes
    for value, direct in onnxnorm.calibrate(proto, given, measure=("max",), **words).means.items():
        largest = found.means[value].largest
        assert (largest is None) == (value.name not in shapes)  # without a shape, channels are not told apart
        if largest is None:
            continue
        np.testing.assert_allclose(largest, np.asarray(direct.largest), rtol=max(1e-5, case.rtol), atol=1e-6)


def test_batches_shards_and_files_give_the_same(tmp_path: Path) -> None:
    samples = rand(12, 3, 9, 9)
    whole = onnxnorm.calibrate(net(), samples, measure=RANGE, provider="cpu")
    parts = [
        onnxnorm.calibrate(net(), half, measure=RANGE, provider="cpu", batch_size=1)
        for half in (samples[:5], samples[5:])
    ]
    for number, part in enumerate(parts):
        part.save(tmp_path / f"{number}")
    merged = onnxnorm.merge([tmp_path / "0", tmp_path / "1"])
    close(merged, whole, rtol=1e-6)
    for name, moments in whole.peaks.items():
        assert moments.images == 12
        assert moments.smallest is not None
        assert merged.peaks[name].smallest is not None
        np.testing.assert_allclose(np.asarray(merged.peaks[name].smallest), np.asarray(moments.smallest), rtol=1e-6)
        assert (moments.smallest <= np.asarray(moments.largest)).all()


def test_the_smallest_is_that_of_the_quietest_sample() -> None:
    loud = rand(1, 3, 9, 9)
    found = onnxnorm.calibrate(
        net(), np.concatenate([loud, loud / 1024, np.zeros_like(loud)]), measure=RANGE, provider="cpu"
    )
    moments = found.peaks["x"]
    assert moments.smallest is not None
    np.testing.assert_allclose(moments.smallest, np.abs(loud).max() / 1024)
    np.testing.assert_allclose(np.asarray(moments.largest), np.abs(loud).max())


def test_infinity_counts_as_the_largest_number() -> None:
    proto = model(
        "a = Conv(x, w) r = Relu(a) m = Add(r, mask) z = Softmax<axis=1>(m)",
        {"x": ("N", 3, 4, 4)},
        {"w": rand(2, 3, 1, 1), "mask": np.array([0, -np.inf], np.float32).reshape(1, 2, 1, 1)},
    )
    found = onnxnorm.calibrate(proto, rand(4, 3, 4, 4), measure=RANGE, provider="cpu")
    assert np.asarray(found.peaks["m"].largest).max() == np.finfo(np.float32).max


def test_a_mix_is_not_merged() -> None:
    one = onnxnorm.calibrate(net(), rand(4, 3, 9, 9), measure=RANGE, provider="cpu")
    other = onnxnorm.calibrate(net(), rand(4, 3, 9, 9, seed=1), provider="cpu")
    with pytest.raises(StatisticsError, match="one lacks calibrate --measure range"):
        Statistics.merged([one, other])


def test_it_is_no_statistic_of_filters() -> None:
    assert onnxnorm.calibrate(net(), rand(4, 3, 9, 9), measure=RANGE, provider="cpu").measures == ("max", *RANGE)
    with pytest.raises(OptionError, match="'range' is unknown"):
        onnxnorm.RewriteOptions(statistic="range")


def test_a_network_without_filters_has_ranges() -> None:
    proto = model("a = Relu(x) z = Add(a, x)", {"x": ("N", 3, 4, 4)}, {})
    found = onnxnorm.calibrate(proto, rand(4, 3, 4, 4), measure=RANGE, provider="cpu")
    assert set(found.peaks) == {"x", "a", "z"}
    assert found.images == 4


@pytest.mark.parametrize(("low", "high"), [(-3.0, -1.0), (0.0, -2.0), (-1.0, 5.0), (0.0, 2.0)])
def test_bounds_of_which_the_upper_one_is_negative(low: float, high: float) -> None:
    """Numbers that are not negative become so."""
    body = "a = Conv(x, w) p = Abs(a) q = Clip(p, low, high) r = Identity(q) z = Conv(r, v)"
    constants = {"w": rand(16, 3, 1, 1), "v": rand(2, 16, 1, 1), "low": np.float32(low), "high": np.float32(high)}
    proto = model(body, {"x": ("n", 3, 8, 8)}, constants)
    given = {"x": rand(3, 3, 8, 8)}
    found = onnxnorm.calibrate(proto, given, measure=RANGE, provider="cpu")
    raw = oracle.activations(proto, given, ["q"])["q"]
    np.testing.assert_allclose(np.asarray(found.peaks["q"].largest), np.abs(raw).max(axis=(0, 2, 3)), rtol=1e-5)
