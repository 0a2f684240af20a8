"""A statistic that is measured on images is added by one entry in a table."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import onnxnorm
from onnxnorm.statistics import Moments, Statistics
from onnxnorm.statistics.measures import (
    MeasuredStatistic,
    measurable,
    measured,
    needs,
    operators_of,
    recorded_names,
    register,
    statistic_of,
    unregister,
)
from onnxnorm.statistics.moments import stand_out
from tests.helpers.graphs import model, rand


def squared_mean_root(moments: Moments) -> tuple[np.ndarray, np.ndarray]:
    """`(mean of sqrt|x|)^2`, and by the delta method its standard error."""
    return moments.mean**2, 2 * moments.mean * moments.standard_error


ROOTS = MeasuredStatistic(
    "roots",
    "square of the mean root",
    squared_mean_root,
    average="mean_root",
    operators=("Abs", "Sqrt"),
    missing="mean roots",
)


@pytest.fixture
def roots() -> Iterator[None]:
    register(ROOTS)
    yield
    unregister("roots")


def test_a_statistic_of_ones_own(roots: None, tmp_path: Path) -> None:
    """Measured in the probe, kept in the file, merged, and brought to the target; against NumPy."""
    proto = model(
        "y = Conv(x, w)  z = Relu(y)  o = Conv(z, v)",
        {"x": ("N", 3, 8, 8)},
        {"w": rand(4, 3, 3, 3), "v": rand(2, 4, 1, 1)},
        ["o"],
    )
    samples = rand(12, 3, 8, 8)
    halves = [onnxnorm.calibrate(proto, half, provider="cpu", measure=["roots"]) for half in (samples[:5], samples[5:])]
    onnxnorm.merge(halves).save(tmp_path / "s")
    statistics = Statistics.load(tmp_path / "s")
    assert statistics.measures == ("roots",)
    done = onnxnorm.rewrite(proto, statistics, statistic="roots", target=2.0, provider="cpu")
    layer = done.rewriting.scales.layers[0]
    plain = onnxnorm.calibrate(proto, samples, provider="cpu")
    with pytest.raises(
        onnxnorm.StatisticsError, match="hold no mean roots; calibrate this model again, with --measure roots"
    ):
        onnxnorm.rewrite(proto, plain, statistic="roots")

    from onnxruntime import InferenceSession

    watched = model("y = Conv(x, w)  z = Relu(y)", {"x": ("N", 3, 8, 8)}, {"w": rand(4, 3, 3, 3)})
    session = InferenceSession(watched.SerializeToString(), providers=["CPUExecutionProvider"])
    values = session.run(["z"], {"x": samples})[0].astype(np.float64)
    expected = np.sqrt(values).mean(axis=(0, 2, 3)) ** 2
    np.testing.assert_allclose(layer.statistic, expected, rtol=1e-5)
    np.testing.assert_allclose(layer.after, 2.0, rtol=1e-12)
    assert np.isfinite(layer.standard_error).all()


def test_the_command_line_knows_it(roots: None) -> None:
    assert measurable() == ("rms", "max", "p99.9", "roots", "range")
    assert onnxnorm.CalibrationOptions(measure=("roots",)).measure == ("roots",)
    assert onnxnorm.RewriteOptions(statistic="roots").statistic == "roots"


def test_without_it_there_is_none() -> None:
    assert list(measured()) == ["mean", "rms", "max", "p99.9"]
    with pytest.raises(onnxnorm.OptionError, match=r"--measure 'roots' is unknown; choose of rms, max, p99\.9"):
        onnxnorm.CalibrationOptions(measure=("roots",))
    with pytest.raises(onnxnorm.OptionError, match="--statistic 'roots' is unknown"):
        onnxnorm.RewriteOptions(statistic="roots")


@pytest.mark.parametrize("name", ["p1", "p99", "p99.9", "p99.9:nonzero", "p99.999999", "p0.5"])
def test_every_percentile_exists(name: str) -> None:
    found = statistic_of(name)
    assert found is not None
    assert (found.name, found.part, found.optional) == (name, "histogram", True)
    assert needs("histogram", ["rms", name])
    assert not needs("largest", ["rms", name])
    assert recorded_names(["rms", name, "p42"]) == ["rms", "p99.9"]
    assert onnxnorm.CalibrationOptions(measure=(name,)).measure == (name,)
    assert onnxnorm.NormalizeOptions(statistic=name).to_measure == (name,)


@pytest.mark.parametrize("name", ["p", "p0", "p0.0", "p100", "p-1", "p99,9", "p99.", "P99", "p99:zero", "max:nonzero"])
def test_what_is_no_percentile(name: str) -> None:
    assert statistic_of(name) is None
    for make in (
        lambda: onnxnorm.CalibrationOptions(measure=(name,)),
        lambda: onnxnorm.RewriteOptions(statistic=name),
    ):
        with pytest.raises(onnxnorm.OptionError, match=r"is unknown; choose .* p99\.9.* Q above 0 and below 100"):
            make()


@pytest.mark.parametrize("wrong", [{"name": "rms"}, {"average": "mean_square"}, {"average": "mean"}])
def test_no_name_twice(wrong: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="has the name or the average of another one"):
        register(replace(ROOTS, **wrong))  # type: ignore[arg-type]


def test_what_is_applied_before_averaging() -> None:
    assert [operators_of(name) for name in ("mean", "mean_abs", "mean_square")] == [(), ("Abs",), ("Mul",)]


def test_dead_is_what_drowns_in_the_noise_of_the_layer() -> None:
    assert stand_out(np.array([1.0, -1e-6, 1e-8, 0.0, np.nan])).tolist() == [True, True, False, False, False]
    assert not stand_out(np.array([1e-39, 0.0])).any()
