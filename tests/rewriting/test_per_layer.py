"""One scale for all filters of a layer: the statistic of the layer as a whole ends at the target."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest

import onnxnorm
from onnxnorm.scaling.levels import LEVELS, Level
from onnxnorm.statistics.histograms import WIDTH
from tests.helpers import oracle
from tests.helpers.commands import DEMO, run, succeeded
from tests.helpers.graphs import model, rand

ALSO = ("rms", "max", "p99.9")
TOLERANCE = 2e-5  # float32 rounding, twice


def of_layer(statistic: str, activations: np.ndarray) -> float:
    """The statistic of all activations of a layer, in NumPy."""
    flat = np.abs(activations.astype(np.float64)).reshape(-1)
    if statistic == "rms":
        return float(np.sqrt((flat * flat).mean()))
    if statistic.endswith(":nonzero"):
        flat = flat[flat > 0]
    if statistic.startswith("p"):
        share = float(statistic[1:].removesuffix(":nonzero")) / 100
        return float(np.quantile(flat, share, method="inverted_cdf"))
    return float(flat.max() if statistic == "max" else flat.mean())


@pytest.mark.parametrize("statistic", ["mean", "max", "rms", "p99.9", "p90", "p50:nonzero"])
def test_the_layer_ends_at_the_target(statistic: str) -> None:
    """Against NumPy on the activations themselves, before and after; and when it is measured again."""
    x = np.abs(rand(5, 3, 64, 64))
    proto = onnx.load(DEMO)
    words: dict[str, Any] = {"statistic": statistic, "target": 2.0, "per": "layer"}
    done = onnxnorm.rewrite(DEMO, onnxnorm.calibrate(DEMO, x, measure=ALSO, batch_size=2), **words)
    assert done.verification is not None
    assert done.verification.same
    assert done.rewriting.entries["per"] == "layer"
    assert done.reach.share == 1
    close = WIDTH if statistic.startswith("p") else TOLERANCE
    feeds = {proto.graph.input[0].name: x}
    names = [layer.layer.site.value for layer in done.rewriting.scales.layers]
    before, after = (oracle.activations(each, feeds, names) for each in (proto, done.model))
    for layer in done.rewriting.scales.layers:
        name = layer.layer.site.value
        assert np.unique(layer.scale).size == 1
        np.testing.assert_allclose(layer.statistic, of_layer(statistic, before[name]), rtol=close)
        if not layer.pinned.any():
            np.testing.assert_allclose(of_layer(statistic, after[name]), 2.0, rtol=close)
    again = onnxnorm.rewrite(done.model, onnxnorm.calibrate(done.model, x, measure=ALSO), verify=False, **words)
    low, high = again.rewriting.scales.span
    assert 1 - close < low <= high < 1 + close


def net(body: str, **shapes: tuple[int, ...]) -> onnx.ModelProto:
    constants: dict[str, Any] = {name: rand(*shape, seed=i) for i, (name, shape) in enumerate(shapes.items())}
    return model(body, {"x": ("N", 3, 8, 8)}, constants | {"zero": np.float32(0), "six": np.float32(0.5)})


def scales_of(proto: onnx.ModelProto, **words: Any) -> Any:
    x = rand(4, 3, 8, 8, seed=9)
    done = onnxnorm.rewrite(proto, onnxnorm.calibrate(proto, x), per="layer", **words)
    assert done.verification is not None
    assert done.verification.same
    return done


def test_a_filter_that_is_pinned_pins_its_layer() -> None:
    body = (
        "a = Conv(x, w) r = Relu(a) p, q = Split<axis=1, num_outputs=2>(r) t = Sigmoid(p) z = Conv(q, v) y = Add(z, t)"
    )
    proto = net(body, w=(4, 3, 1, 1), v=(2, 2, 1, 1))
    first = scales_of(proto).rewriting.scales.layers[0]
    assert first.pinned.all()
    assert (first.scale == 1).all()


def test_one_bound_for_all_channels_needs_no_nodes() -> None:
    """ReLU6 ties the channels of a layer, which share their scale anyway."""
    proto = net("a = Conv(x, w) r = Clip(a, zero, six) z = Conv(r, v)", w=(4, 3, 1, 1), v=(2, 4, 1, 1))
    done = scales_of(proto, allow="nodes")
    assert done.rewriting.nodes_added == 1  # behind the convolution that writes the output
    assert list(done.rewriting.insertion.renamed) == ["z"]
    np.testing.assert_allclose(done.rewriting.scales.layers[0].after, 1.0, rtol=1e-12)


CHAIN = {"w": (4, 3, 1, 1), "v": (4, 4, 1, 1), "u": (2, 4, 1, 1)}
RESIDUAL = "a = Conv(x, w) r = Relu(a) b = Conv(x, v) s = Relu(b) c = Add(r, s) z = Conv(c, u)"


def test_layers_that_are_added_share_a_scale_or_get_a_node() -> None:
    proto = net(RESIDUAL, w=(4, 3, 1, 1), v=(4, 3, 1, 1), u=(2, 4, 1, 1))
    one, other, _ = scales_of(proto).rewriting.scales.layers
    assert one.scale.tolist() == other.scale.tolist()
    np.testing.assert_allclose(np.sqrt(one.after * other.after), 1.0, rtol=1e-12)
    done = scales_of(proto, allow="nodes")
    assert done.rewriting.nodes_added
    for layer in done.rewriting.scales.layers:
        assert np.unique(layer.scale).size == 1
        np.testing.assert_allclose(layer.after, 1.0, rtol=1e-12)
    x = rand(4, 3, 8, 8, seed=9)
    for name, array in oracle.activations(done.model, {"x": x}, ["r", "s"]).items():
        np.testing.assert_allclose(of_layer("mean", array), 1.0, rtol=TOLERANCE, err_msg=name)


@pytest.mark.parametrize("statistic", ["weights", "bn"])
def test_statistics_without_images(statistic: str) -> None:
    parts = "a = Conv(x, w) n = BatchNormalization(a, g, h, m, k) r = Relu(n) b = Conv(r, v) s = Relu(b) z = Conv(s, u)"
    constants: dict[str, Any] = {"w": rand(4, 3, 1, 1), "v": rand(4, 4, 1, 1), "u": rand(2, 4, 1, 1)}
    constants |= {name: np.abs(rand(4, seed=i)) + 0.5 for i, name in enumerate("ghmk")}
    proto = model(parts, {"x": ("N", 3, 8, 8)}, constants)
    done = onnxnorm.rewrite(proto, statistic=statistic, per="layer")
    assert done.verification is not None
    assert done.verification.same
    for layer in done.rewriting.scales.layers:
        assert np.unique(layer.scale).size == 1
    assert done.rewriting.scales.layers[0].scale[0] != 1


def test_powers_of_two_and_back(tmp_path: Any) -> None:
    out, back = tmp_path / "o.onnx", tmp_path / "b.onnx"
    x = np.abs(rand(3, 3, 64, 64))
    stats = tmp_path / "s.safetensors"
    onnxnorm.calibrate(DEMO, x, measure=("max",)).save(stats)
    ran = succeeded(
        "rewrite", DEMO, "--stats", stats, "--per", "layer", "--statistic", "max", "--power-of-two", "-o", out, "--json"
    )
    assert ran.json["per"] == "layer"
    assert ran.json["verification"]["bit_identical"]
    assert all(layer["scale"]["min"] == layer["scale"]["max"] for layer in ran.json["layers"])
    succeeded("restore", out, "-o", back)
    assert back.read_bytes() == DEMO.read_bytes()


@pytest.mark.parametrize("level", LEVELS)
def test_the_plan_is_the_one_of_the_rewrite(level: Level) -> None:
    """Filters of a layer are tied, and each level says what a rewrite at it does."""
    proto = net(RESIDUAL, w=(4, 3, 1, 1), v=(4, 3, 1, 1), u=(2, 4, 1, 1))
    plan = onnxnorm.plan(proto, per="layer", allow=level)
    done = scales_of(proto, allow=level)
    assert done.plan == replace(plan, levels={})
    assert plan.levels[level].nodes_added == done.rewriting.nodes_added
    assert (plan.free, plan.tied, plan.pinned) == ((0, 10, 0) if level == "nodes" else (0, 8, 2))
    assert plan.levels[level].exact == (10 if level == "nodes" else 0)
    assert onnxnorm.plan(proto, allow=level).tied == (0 if level == "nodes" else 8)


def test_layers_that_are_not_tied_have_scales_of_their_own() -> None:
    proto = net("a = Conv(x, w) r = Relu(a) b = Conv(r, v) s = Relu(b) z = Conv(s, u)", **CHAIN)
    plan = onnxnorm.plan(proto, per="layer")
    assert [(given.tied, given.pinned, given.exact) for given in plan.levels.values()] == [
        (8, 2, 8),
        (8, 2, 8),
        (10, 0, 10),
    ]


def test_what_does_not_go_together() -> None:
    assert "--ceiling takes the place of --per" in run("rewrite", DEMO, "--ceiling", "--per", "layer").error
    with pytest.raises(onnxnorm.OptionError, match="--per 'image' is unknown; choose one of channel, layer"):
        onnxnorm.RewriteOptions(per="image")  # type: ignore[arg-type]
