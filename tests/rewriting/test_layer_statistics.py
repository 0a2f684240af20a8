"""Statistics beyond the mean, each against code that is not the library's."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray

import onnxnorm
from onnxnorm.cli import main
from onnxnorm.runtime import Runtime
from onnxnorm.statistics import Value
from onnxnorm.statistics.histograms import WIDTH
from tests.corpus import CASES
from tests.helpers.graphs import model as network
from tests.helpers.graphs import rand

RUNTIME = Runtime("cpu", threads=1)
DEMO = Path(__file__).parents[2] / "models" / "demo_vgg.onnx"
RUNNING = [case for case in CASES.values() if case.runs]
Floats = NDArray[np.float64]


def activations(model: onnx.ModelProto, names: list[str], x: NDArray[Any]) -> dict[str, Floats]:
    """All numbers of these values."""
    proto = onnx.ModelProto()
    proto.CopyFrom(model)
    del proto.graph.output[:]
    proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    found = session.run(names, {proto.graph.input[0].name: x})
    return {name: array.astype(np.float64) for name, array in zip(names, found, strict=True)}


def per_channel(array: Floats, function: Any) -> Floats:
    return np.asarray([function(array[:, c]) for c in range(array.shape[1])])


def rms(x: Floats) -> float:
    return float(np.sqrt(np.mean(x * x)))


def largest(x: Floats) -> float:
    return float(np.abs(x).max())


def percentile(x: Floats) -> float:
    return float(np.sort(np.abs(x).reshape(-1))[-(-x.size * 999 // 1000) - 1])


SIGNED = """
    a = Conv(x, w1)   l = LeakyRelu<alpha=0.3>(a)   b = Conv(l, w2)   c = Clip(b, low, high)   d = Conv(c, w3)
    t = Tanh(d)   z = Conv(t, w4)
"""


def signed() -> onnx.ModelProto:
    """Non-linearities that leave negative numbers, some larger in magnitude than the positive ones."""
    shapes = {"w1": (4, 3, 1, 1), "w2": (4, 4, 1, 1), "w3": (4, 4, 1, 1), "w4": (2, 4, 1, 1)}
    constants: dict[str, Any] = {name: rand(*shape, seed=i) for i, (name, shape) in enumerate(shapes.items())}
    constants |= {"low": np.float32(-2.0), "high": np.float32(0.5)}
    return network(SIGNED, {"x": ("N", 3, 20, 20)}, constants)


@pytest.mark.parametrize(("statistic", "function"), [("rms", rms), ("max", largest), ("p99.9", percentile)])
@pytest.mark.parametrize("which", ["demo", "signed"])
def test_measured_statistics(statistic: Any, function: Any, which: str) -> None:
    proto, size = (onnx.load(DEMO), 64) if which == "demo" else (signed(), 20)
    x = np.abs(rand(5, 3, size, size)) - (0 if which == "demo" else 0.5)
    x = np.asarray(x, np.float32)
    statistics = onnxnorm.calibrate(proto, x, measure=("rms", "p99.9"), batch_size=2)
    done = onnxnorm.rewrite(proto, statistics, statistic=statistic)
    layers = done.rewriting.scales.layers
    read, reached = (WIDTH, WIDTH) if statistic == "p99.9" else (2e-6, 2e-5)
    names = [layer.layer.site.value for layer in layers if layer.layer.site.measure == "mean"]
    assert len(names) == (8 if which == "demo" else 3)
    before, after = (activations(model, names, x) for model in (proto, done.model))
    for layer in layers[: len(names)]:
        value = layer.layer.site.value
        np.testing.assert_allclose(layer.statistic, per_channel(before[value], function), rtol=read, atol=1e-7)
        free = layer.live & ~layer.pinned
        if np.unique(layer.scale).size != 1:  # the channels of a Clip are tied
            np.testing.assert_allclose(per_channel(after[value], function)[free], 1.0, rtol=reached)
    assert done.verification is not None
    assert done.verification.same


def test_the_standard_error_of_rms_is_that_of_many_draws() -> None:
    """The delta method against the spread of the statistic over sets of images."""
    proto = signed()
    sets = [np.random.default_rng(seed).standard_normal((40, 3, 20, 20)).astype(np.float32) for seed in range(60)]
    found = [
        onnxnorm.rewrite(proto, onnxnorm.calibrate(proto, x, measure=("rms",)), statistic="rms", verify=False)
        for x in sets
    ]
    layers = [done.rewriting.scales.layers[0] for done in found]
    spread = np.std([layer.statistic for layer in layers], axis=0, ddof=1)
    claimed = np.mean([layer.standard_error for layer in layers], axis=0)
    np.testing.assert_allclose(claimed, spread, rtol=0.4)  # the spread of 60 sets has an error of 9 % itself


def test_mean_squares_are_measured_when_asked_for_only() -> None:
    x = np.abs(rand(3, 3, 64, 64))
    plain, more = onnxnorm.calibrate(DEMO, x), onnxnorm.calibrate(DEMO, x, measure=("rms",))
    assert {value.measure for value in plain.values} == {"mean"}
    assert len(more.values) == 2 * len(plain.values)
    assert more.means.keys() == plain.values.keys()
    assert str(more) == str(plain)
    with pytest.raises(onnxnorm.StatisticsError, match="--measure rms"):
        onnxnorm.rewrite(DEMO, plain, statistic="rms")
    with pytest.raises(onnxnorm.StatisticsError, match="no percentiles; calibrate this model again, with --measure p"):
        onnxnorm.rewrite(DEMO, more, statistic="p99.9")
    with pytest.raises(onnxnorm.StatisticsError, match="differ in their measured values"):
        onnxnorm.merge([plain, more])
    with pytest.raises(onnxnorm.OptionError, match="'median' is unknown"):
        onnxnorm.calibrate(DEMO, x, measure=("median",))


def test_mean_squares_add_up(tmp_path: Path) -> None:
    x = np.abs(rand(7, 3, 64, 64))
    whole = onnxnorm.calibrate(DEMO, x, measure=("rms",), batch_size=3)
    parts = [onnxnorm.calibrate(DEMO, part, measure=("rms",), batch_size=2) for part in (x[:3], x[3:])]
    merged = onnxnorm.merge(parts)
    merged.save(tmp_path / "merged.safetensors")
    loaded = onnxnorm.Statistics.load(tmp_path / "merged.safetensors")
    value = Value("relu2_1", "mean_square")
    np.testing.assert_allclose(loaded.values[value].mean, whole.values[value].mean, rtol=1e-6)


def test_strength() -> None:
    x = np.abs(rand(3, 3, 64, 64))
    with pytest.raises(onnxnorm.StatisticsError, match="no maxima; calibrate this model again, with --measure max"):
        onnxnorm.rewrite(DEMO, onnxnorm.calibrate(DEMO, x), statistic="max")
    statistics = onnxnorm.calibrate(DEMO, x, measure=("max",))
    done = onnxnorm.rewrite(DEMO, statistics, statistic="max", strength=0.5, target=2.0)
    for layer in done.rewriting.scales.layers:
        np.testing.assert_allclose(layer.after[layer.live], 2 * np.sqrt(layer.statistic[layer.live]))
    assert done.rewriting.entries["strength"] == "0.5"


def run(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    monkeypatch.setattr(sys, "argv", ["onnxnorm", *map(str, words)])
    with pytest.raises(SystemExit) as done:
        main()
    return int(done.value.code or 0)


def test_which_statistics_need_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.onnx"
    for statistic in ("mean", "max", "rms", "p99.9"):
        assert run(monkeypatch, "rewrite", DEMO, "--statistic", statistic, "-o", out) == 2
        assert "give --stats" in capsys.readouterr().err
    assert run(monkeypatch, "rewrite", DEMO, "--statistic", "median", "-o", out) == 1
    assert not out.exists()
    assert run(monkeypatch, "rewrite", DEMO, "--statistic", "bn", "-o", out) == 1
    assert "no BatchNormalization stands before a non-linearity" in capsys.readouterr().err
    assert run(monkeypatch, "rewrite", DEMO, "--statistic", "weights", "-o", out) == 0
    assert "weights before" in capsys.readouterr().out
    with pytest.raises(onnxnorm.StatisticsError, match="measured on images"):
        onnxnorm.rewrite(DEMO)
    with pytest.raises(onnxnorm.OptionError, match="--statistic 'median' is unknown"):
        onnxnorm.rewrite(DEMO, statistic="median")


def test_normalize_measures_what_it_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "x.npy", np.abs(rand(6, 3, 64, 64)))
    for statistic in ("rms", "p99.9"):
        words = ["--statistic", statistic, "--strength", "0.5", "--power-of-two", "-o", tmp_path / "out.onnx"]
        assert run(monkeypatch, "normalize", DEMO, tmp_path / "x.npy", *words) == 0
        assert "bit-identical" in capsys.readouterr().out


def test_percentiles_of_a_model_that_has_them_already() -> None:
    x = np.abs(rand(6, 3, 64, 64))
    once = onnxnorm.rewrite(DEMO, onnxnorm.calibrate(DEMO, x, measure=("p99.9",)), statistic="p99.9")
    assert once.rewriting.entries["statistic"] == "p99.9"
    again = onnxnorm.calibrate(once.model, x, measure=("p99.9",))
    twice = onnxnorm.rewrite(once.model, again, statistic="p99.9")
    assert twice.rewriting.previous["statistic"] == "p99.9"
    low, high = twice.rewriting.scales.span
    assert 1 - WIDTH < low <= high < 1 + WIDTH
    assert all(np.isnan(layer.standard_error).all() for layer in twice.rewriting.scales.layers)


def test_a_filter_that_is_active_too_rarely_for_its_percentile_is_dead() -> None:
    """One position in 2,000 is active: 99.9 % are 0."""
    proto = network("a = Conv(x, w) r = Relu(a) z = Conv(r, v)", {"x": ("N", 1, 40, 50)},
                    {"w": np.asarray([1, 1], "f").reshape(2, 1, 1, 1), "v": rand(1, 2, 1, 1)})  # fmt: skip
    x = np.full((1, 1, 40, 50), -1.0, np.float32)
    x[0, 0, 0, 0] = 5.0
    (layer, _) = onnxnorm.rewrite(
        proto, onnxnorm.calibrate(proto, x, measure=("p99.9",)), statistic="p99.9"
    ).rewriting.scales.layers
    assert layer.dead.all()
    np.testing.assert_array_equal(layer.scale, 1)
