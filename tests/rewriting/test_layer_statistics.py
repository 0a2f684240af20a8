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
from scipy.integrate import quad
from scipy.stats import norm

import onnxnorm
from onnxnorm.cli import main
from onnxnorm.model.files import Model
from onnxnorm.rewriting import rewrite_model
from onnxnorm.rewriting.batch_norm_means import clipped
from onnxnorm.rewriting.options import ScaleOptions
from onnxnorm.runtime import Runtime
from onnxnorm.statistics import Value
from onnxnorm.statistics.histograms import WIDTH
from onnxnorm.verification import verify_models
from tests.helpers.corpus import CASES, Case, feeds
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
    statistics = onnxnorm.calibrate(DEMO, x)
    done = onnxnorm.rewrite(DEMO, statistics, statistic="max", strength=0.5, target=2.0)
    for layer in done.rewriting.scales.layers:
        np.testing.assert_allclose(layer.after[layer.live], 2 * np.sqrt(layer.statistic[layer.live]))
    assert done.rewriting.entries["strength"] == "0.5"


# --- weights -------------------------------------------------------------------------------------------------------


def weights(model: onnx.ModelProto | Model) -> dict[str, Floats]:
    proto = model.to_proto() if isinstance(model, Model) else model
    return {t.name: onnx.numpy_helper.to_array(t).astype(np.float64) for t in proto.graph.initializer}


def range_of(weight: Floats, axis: int) -> Floats:
    found: Floats = np.abs(weight).max(axis=tuple(a for a in range(weight.ndim) if a != axis))
    return found


def balanced(body: str, constants: dict[str, Any], channels: int = 3, **options: Any) -> tuple[Any, dict[str, Floats]]:
    proto = network(body, {"x": (1, channels, 6, 6)}, constants)
    rewriting = rewrite_model(Model.open(proto), None, ScaleOptions(statistic="weights", **options))
    verdict = verify_models(Model.open(proto), rewriting.model, [feeds(proto, 1)], runtime=RUNTIME)
    assert verdict.same
    return rewriting, weights(rewriting.model)


def test_a_pair_of_layers_by_the_closed_formula() -> None:
    """Nagel et al. 2019: both ranges of a channel become the geometric mean of what they were."""
    w1, w2 = rand(5, 3, 3, 3) * np.float32(7), rand(4, 5, 1, 1, seed=1)
    rewriting, after = balanced("a = Conv(x, w1)   r = Relu(a)   z = Conv(r, w2)", {"w1": w1, "w2": w2})
    expected = np.sqrt(range_of(w1.astype(float), 0) * range_of(w2.astype(float), 1))
    np.testing.assert_allclose(range_of(after["w1"], 0), expected, rtol=1e-5)
    np.testing.assert_allclose(range_of(after["w2"], 1), expected, rtol=1e-5)
    assert rewriting.scales.unknown == 0


def pairwise_equalized(ws: list[Floats], sweeps: int = 3000) -> list[Floats]:
    """Cross-layer equalization as others do it: pair by pair along a chain, again and again."""
    ws = [w.copy() for w in ws]
    for _ in range(sweeps):
        for first, second in zip(range(len(ws) - 1), range(1, len(ws)), strict=True):
            depthwise = ws[second].shape[1] == 1
            read = range_of(ws[second], 0 if depthwise else 1)
            scale = np.sqrt(read / range_of(ws[first], 0))
            ws[first] = ws[first] * scale.reshape(-1, 1, 1, 1)
            ws[second] = ws[second] / scale.reshape((-1, 1, 1, 1) if depthwise else (1, -1, 1, 1))
    return ws


def test_a_depthwise_chain_as_pair_by_pair() -> None:
    """Conv, depthwise, Conv: all three ranges of a channel become their geometric mean."""
    parts = {"w1": rand(6, 3, 1, 1), "w2": rand(6, 1, 3, 3, seed=1) * np.float32(9), "w3": rand(4, 6, 1, 1, seed=2)}
    body = "a = Conv(x, w1)  r = Relu(a)  b = Conv<group=6>(r, w2)  s = Relu(b)  z = Conv(s, w3)"
    _, after = balanced(body, parts)
    expected = pairwise_equalized([part.astype(np.float64) for part in parts.values()])
    for name, want in zip(parts, expected, strict=True):
        np.testing.assert_allclose(np.abs(after[name]), np.abs(want), rtol=1e-3, atol=1e-6)
    ranges = [range_of(w.astype(float), axis) for w, axis in zip(parts.values(), (0, 0, 1), strict=True)]
    np.testing.assert_allclose(range_of(after["w2"], 0), np.cbrt(np.prod(ranges, axis=0)), rtol=1e-4)


def test_every_channel_of_a_chain_is_balanced() -> None:
    parts = {
        f"w{i}": rand(8 if i < 4 else 2, 8 if i > 1 else 3, 1, 1, seed=i) * np.float32(10.0**i) for i in range(1, 5)
    }
    body = "a = Conv(x, w1)  r = Relu(a)  b = Conv(r, w2)  s = Relu(b)  c = Conv(s, w3)  t = Relu(c)  z = Conv(t, w4)"
    rewriting, after = balanced(body, parts)
    for first, second in (("w1", "w2"), ("w2", "w3"), ("w3", "w4")):
        np.testing.assert_allclose(range_of(after[first], 0), range_of(after[second], 1), rtol=1e-4)
    again = rewrite_model(rewriting.model, None, ScaleOptions(statistic="weights"))
    np.testing.assert_allclose(again.scales.span, 1.0, atol=1e-4)


def test_branches_share_a_balance() -> None:
    """A residual Add and a Concat: the largest range that writes a channel is the largest one that reads it."""
    parts = {"w1": rand(6, 3, 1, 1), "w2": rand(6, 6, 1, 1, seed=1) * np.float32(30), "w3": rand(3, 12, 1, 1, seed=2)}
    body = "a = Conv(x, w1)  r = Relu(a)  b = Conv(r, w2)  s = Add(b, r)  t = Relu(s)  k = Concat<axis=1>(t, r)"
    body += "  z = Conv(k, w3)"
    _, after = balanced(body, parts)
    read = np.maximum(range_of(after["w3"], 1)[:6], range_of(after["w3"], 1)[6:])
    # All of r, b, s and t are one group per channel; what w2 does within a group does not change.
    inner = after["w2"][:, :, 0, 0].copy()
    np.fill_diagonal(inner, 0)
    written = np.maximum(range_of(after["w1"], 0), np.abs(inner).max(axis=1))
    np.testing.assert_allclose(written, np.maximum(read, np.abs(inner).max(axis=0)), rtol=1e-4)


def test_a_batchnormalization_counts_as_part_of_its_layer() -> None:
    parts = {"w1": rand(5, 3, 3, 3), "w2": rand(4, 5, 1, 1, seed=1)}
    gamma, var = rand(5, seed=3) * np.float32(4), np.abs(rand(5, seed=4)) + np.float32(0.1)
    norms = {"g": gamma, "b": rand(5, seed=5), "m": rand(5, seed=6), "v": var}
    body = "a = Conv(x, w1)  n = BatchNormalization(a, g, b, m, v)  r = Relu(n)  z = Conv(r, w2)"
    unfolded, _ = balanced(body, parts | norms)
    folded = parts["w1"] * (gamma / np.sqrt(var + 1e-5)).reshape(-1, 1, 1, 1)
    other, _ = balanced("a = Conv(x, w1)  r = Relu(a)  z = Conv(r, w2)", parts | {"w1": folded.astype(np.float32)})
    np.testing.assert_allclose(unfolded.scales.layers[0].scale, other.scales.layers[0].scale, rtol=1e-5)


@pytest.mark.parametrize("case", RUNNING, ids=[case.name for case in RUNNING])
def test_weights_of_every_corner(case: Case) -> None:
    """Balanced or not possible; never another function, and never twice."""
    model = Model.open(case.build())
    try:
        rewriting = rewrite_model(model, None, ScaleOptions(statistic="weights", filters=case.filters))
    except onnxnorm.StatisticsError as error:
        assert "not known of any filter" in str(error)  # noqa: PT017
        return
    assert verify_models(model, rewriting.model, [feeds(model.proto, 2)], runtime=RUNTIME).same
    again = rewrite_model(rewriting.model, None, ScaleOptions(statistic="weights", filters=case.filters))
    np.testing.assert_allclose(again.scales.span, 1.0, atol=2e-3)


# --- bn ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("low", "high"), [(0.0, np.inf), (0.0, 6.0), (-np.inf, np.inf), (-1.0, 2.0), (-np.inf, 0.0)])
def test_moments_of_a_clipped_normal(low: float, high: float) -> None:
    for mean, deviation in ((0.0, 1.0), (2.0, 0.5), (-1.5, 1.0), (3.0, 4.0)):

        def expected(power: int, m: float = mean, s: float = deviation) -> float:
            return float(
                quad(lambda x: np.clip(x, low, high) ** power * norm.pdf(x, m, s), m - 12 * s, m + 12 * s, limit=200)[0]
            )

        found, variance = clipped(np.asarray([mean]), np.asarray([deviation**2]), low, high)
        assert found[0] == pytest.approx(expected(1), abs=1e-6)
        assert variance[0] == pytest.approx(expected(2) - expected(1) ** 2, abs=1e-6)


def test_moments_without_variance() -> None:
    mean, variance = clipped(np.asarray([-1.0, 0.0, 2.0, 9.0]), np.zeros(4), 0.0, 6.0)
    assert mean.tolist() == [0.0, 0.0, 2.0, 6.0]
    assert variance.tolist() == [0.0] * 4


def normalized(body: str) -> onnx.ModelProto:
    """1x1 convolutions of normal inputs, and BatchNormalizations that hold the true moments of what they read."""
    random = np.random.default_rng(0)
    constants: dict[str, Any] = {}
    for name in ("p", "q"):
        w = random.standard_normal((16, 32)).astype(np.float32)
        w[:, slice(16, 32) if name == "p" else slice(0, 16)] = 0  # so that the branches are independent
        constants[f"w{name}"] = w.reshape(16, 32, 1, 1)
        constants[f"v{name}"] = (w**2).sum(axis=1)
        constants[f"m{name}"] = np.zeros(16, np.float32)
        constants[f"g{name}"] = random.uniform(-2, 2, 16).astype(np.float32)
        constants[f"b{name}"] = random.uniform(-2, 2, 16).astype(np.float32)
    constants["wz"] = random.standard_normal((2, 16, 1, 1)).astype(np.float32)
    constants["zero"], constants["six"] = np.float32(0), np.float32(1.5)
    used = {name: value for name, value in constants.items() if f"{name}," in body or f"{name})" in body}
    return network(body, {"x": ("N", 32, 16, 16)}, used)


P = "a = Conv(x, wp)   n = BatchNormalization(a, gp, bp, mp, vp)   "
Q = "c = Conv(x, wq)   k = BatchNormalization(c, gq, bq, mq, vq)   "


@pytest.mark.parametrize(
    ("body", "values"),
    [
        (P + "r = Relu(n)   z = Conv(r, wz)", "r"),
        (P + "r = LeakyRelu<alpha=0.2>(n)   z = Conv(r, wz)", "r"),
        (P + "r = Clip(n, zero, six)   z = Conv(r, wz)", "r"),
        (P + "z = Conv(n, wz)", "n"),
        (P + Q + "s = Add(n, k)   r = Relu(s)   z = Conv(r, wz)", "r r"),
        (P + Q + "t = Relu(k)   s = Add(n, t)   r = Relu(s)   z = Conv(r, wz)", "r t"),
    ],
)  # fmt: skip
def test_means_implied_by_batchnormalization(body: str, values: str) -> None:
    proto = normalized(body)
    x = np.random.default_rng(1).standard_normal((40, 32, 16, 16)).astype(np.float32)
    implied = rewrite_model(Model.open(proto), None, ScaleOptions(statistic="bn")).scales.layers
    measured = rewrite_model(Model.open(proto), onnxnorm.calibrate(proto, x)).scales.layers
    assert [layer.layer.site.value for layer in implied[:-1]] == values.split()
    for a, b in zip(implied[:-1], measured[:-1], strict=True):
        # A sum with a rectified value is taken as normal, which it is not quite.
        np.testing.assert_allclose(a.statistic, b.statistic, rtol=0.02, atol=0.04 if values == "r t" else 0.02)
    assert np.isnan(implied[-1].statistic).all()


def test_the_sum_of_a_value_and_itself_is_not_taken_as_independent() -> None:
    proto = normalized(P + "s = Add(n, n)   r = Relu(s)   z = Conv(r, wz)")
    with pytest.raises(onnxnorm.StatisticsError, match="not known of any filter"):
        rewrite_model(Model.open(proto), None, ScaleOptions(statistic="bn"))


# --- the command line ----------------------------------------------------------------------------------------------


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
