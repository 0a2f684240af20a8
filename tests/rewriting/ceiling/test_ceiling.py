"""A ceiling on whole networks: every value at it or below, or told why not; the same bits; the original back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import onnxnorm
from onnxnorm.errors import OptionError, StatisticsError
from onnxnorm.model.files import Model
from onnxnorm.rewriting import rewrite_model
from onnxnorm.rewriting.options import ScaleOptions
from onnxnorm.rewriting.read_back import read_back
from onnxnorm.scaling.levels import LEVELS, Level
from tests.corpus import CASES, Case, feeds
from tests.helpers import oracle
from tests.helpers.ceilings import check, largest, ranged, under
from tests.helpers.graphs import model, rand

RUNNING = {
    name: case for name, case in CASES.items() if case.runs and name not in {"fixed_batch", "domain_spelled_out"}
}


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("case", RUNNING.values(), ids=list(RUNNING))
def test_every_network_of_the_corpus(case: Case, level: Level) -> None:
    proto = case.build()
    given = feeds(proto, 3)
    statistics = ranged(proto, given)
    peaks = sorted(float(np.asarray(moments.largest).max(initial=0.0)) for moments in statistics.peaks.values())
    ceiling = peaks[len(peaks) // 2] / 2
    if not 0 < ceiling < 1e30:
        return
    done = rewrite_model(Model.open(proto), statistics, ScaleOptions(ceiling=ceiling, allow=level))
    if case.rtol == 0:
        check(done, proto, given, ceiling)
    scales = read_back(Model.open(proto), done.model, statistics.shapes)
    np.testing.assert_allclose(scales.of_slot[scales.trace.ids[proto.graph.output[0].name]], 1)


LOUD = {"w": 4000 * rand(4, 3, 3, 3), "v": rand(2, 4, 1, 1, seed=1)}
SAMPLES = {"x": rand(6, 3, 8, 8, seed=2)}


def test_a_chain_ends_at_the_ceiling_with_as_few_filters_as_that_takes() -> None:
    """Two filters of four are loud, the others stay as they are."""
    loud = LOUD["w"].copy()
    loud[2:] /= 4000
    proto = model(
        "a = Conv(x, w) r = Relu(a) z = Conv(r, v)", {"x": ("N", 3, 8, 8)}, LOUD | {"w": loud, "v": LOUD["v"] / 4000}
    )
    done = under(proto, SAMPLES, 512)
    assert done.ceiling is not None
    assert (done.ceiling.above, done.ceiling.moved) == ((), 2)
    scale = done.scales.of_slot[done.trace.ids["a"]].reshape(-1)
    assert (scale[:2] < 1).all()
    assert (scale[2:] == 1).all()
    peaks = np.abs(oracle.activations(proto, SAMPLES, ["a"])["a"]).max(axis=(0, 2, 3))
    assert (peaks * scale > 256)[:2].all()  # no further than it has to be
    check(done, proto, SAMPLES, 512)


def test_its_twin_behind_a_sigmoid_is_refused_and_named() -> None:
    proto = model("a = Conv(x, w) r = Sigmoid(a) z = Conv(r, v)", {"x": ("N", 3, 8, 8)}, LOUD)
    for level in LEVELS:
        done = under(proto, SAMPLES, 512, level)
        assert done.ceiling is not None
        (left,) = done.ceiling.above
        assert left.value == "a"
        assert "Sigmoid" in left.reason
        assert done.nodes_added == 0
        check(done, proto, SAMPLES, 512)


DECOMPOSED = """
    a = Conv<pads=[1,1,1,1]>(x, w)  b = Conv<pads=[1,1,1,1]>(x, w2)  s = Add(a, b)
    m = ReduceMean<axes=[1]>(s)  d = Sub(s, m)  p = Pow(d, two)  q = ReduceMean<axes=[1]>(p)
    e = Add(q, eps)  r = Sqrt(e)  n = Div(d, r)  z = Conv(n, v)
"""


def decomposed(loud: float, epsilon: float) -> onnx.ModelProto:
    constants = {
        "w": loud * rand(4, 3, 3, 3), "w2": loud * rand(4, 3, 3, 3, seed=5), "v": rand(2, 4, 1, 1, seed=1),
        "two": np.float32(2), "eps": np.float32(epsilon),
    }  # fmt: skip
    return model(DECOMPOSED, {"x": ("N", 3, 8, 8)}, constants, opset=17)


def test_the_square_inside_a_norm_that_is_written_out() -> None:
    """It is what decides, and the epsilon follows it."""
    proto = decomposed(300, 0.5)
    done = under(proto, SAMPLES, 512)
    assert done.ceiling is not None
    assert (done.ceiling.above, done.ceiling.lost) == ((), ())
    assert largest(done, SAMPLES)["p"] <= 512
    check(done, proto, SAMPLES, 512)


def test_an_epsilon_is_given_up_only_where_the_ceiling_needs_it_and_named() -> None:
    proto = decomposed(3000, 1e-5)
    done = under(proto, SAMPLES, 512)
    assert done.ceiling is not None
    assert (done.ceiling.above, done.ceiling.lost) == ((), ("eps",))
    check(done, proto, SAMPLES, 512)
    small = decomposed(3, 1e-5)
    kept = under(small, SAMPLES, 512)
    assert kept.ceiling is not None
    assert kept.ceiling.lost == ()


def test_a_weight_that_would_lose_its_bits_bounds_the_scale() -> None:
    """The filter's weights are small and what it reads is huge, but may not shrink: it is a graph input."""
    weights = np.full((1, 3, 1, 1), 2.0**-12, np.float32)
    proto = model(
        "a = Conv(x, w) r = Relu(a) z = Conv(r, v)",
        {"x": ("N", 3, 2, 2)},
        {"w": weights, "v": np.ones((1, 1, 1, 1), np.float32)},
    )
    given = {"x": np.full((2, 3, 2, 2), 2.0**23, np.float32)}
    done = under(proto, given, 512)
    assert done.ceiling is not None
    assert done.scales.of_slot[done.trace.ids["a"]].item() == 2.0**-2
    reasons = {item.value: item.reason for item in done.ceiling.above}
    assert reasons["a"] == "constant 'w' would lose bits in float16"
    assert reasons["x"] == "input 'x': it is a graph input"
    assert "it is a graph output" in reasons["z"]


def test_a_weight_at_the_end_of_its_own_type_bounds_the_scale() -> None:
    """Which float16 would not notice."""
    weights = np.array([1, 1, 2.0**-126], np.float32).reshape(1, 3, 1, 1)
    proto = model(
        "a = Conv(x, w) r = Relu(a) z = Conv(r, v)",
        {"x": ("N", 3, 2, 2)},
        {"w": weights, "v": np.ones((1, 1, 1, 1), np.float32)},
    )
    done = under(proto, {"x": np.full((2, 3, 2, 2), 2.0**20, np.float32)}, 512)
    assert done.ceiling is not None
    assert done.scales.of_slot[done.trace.ids["a"]].item() == 1
    reasons = {item.value: item.reason for item in done.ceiling.above}
    assert reasons["a"] == "constant 'w' would leave the range of normal numbers of its type"
    assert not done.ceiling.proven


def test_a_bound_that_is_met_but_for_a_step_is_named() -> None:
    """The weight behind a square grows by steps of 4: 2^10 may become 2^14, but not 2^16."""
    one = np.full((1, 1, 1, 1), 2.0**10, np.float32)
    proto = model("a = Conv(x, w) s = Mul(a, a) z = Conv(s, v)", {"x": ("N", 1, 2, 2)}, {"w": one, "v": one})
    done = under(proto, {"x": np.full((2, 1, 2, 2), 2.0**10, np.float32)}, 512)
    assert done.ceiling is not None
    assert done.scales.of_slot[done.trace.ids["a"]].item() == 2.0**-2
    reasons = {item.value: item.reason for item in done.ceiling.above}
    assert reasons["a"] == reasons["s"] == "constant 'v' would pass 65504 in float16"


def test_a_weight_that_would_overflow_bounds_the_scale() -> None:
    big = np.full((1, 1, 1, 1), 60000.0, np.float32)
    proto = model("a = Conv(x, w) r = Relu(a) z = Conv(r, v)", {"x": ("N", 3, 8, 8)}, {"w": LOUD["w"][:1], "v": big})
    done = under(proto, SAMPLES, 512)
    assert done.ceiling is not None
    assert {item.reason for item in done.ceiling.above if item.value in "ar"} == {
        "constant 'v' would pass 65504 in float16"
    }
    check(done, proto, SAMPLES, 512)


def test_a_weight_beyond_65504_is_brought_below() -> None:
    proto = model(
        "a = Conv(x, w) r = Relu(a) z = Conv(r, v)", {"x": ("N", 3, 8, 8)},
        {"w": np.float32(200000) * rand(4, 3, 3, 3), "v": rand(2, 4, 1, 1, seed=1) * 1e-5},
    )  # fmt: skip
    done = under(proto, {"x": SAMPLES["x"] * np.float32(1e-4)}, 512)
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in done.model.to_proto().graph.initializer}
    assert np.abs(constants["w"]).max() <= 65504
    check(done, proto, {"x": SAMPLES["x"] * np.float32(1e-4)}, 512)


RESIDUAL = """
    a = Conv(x, w)  n = InstanceNormalization<epsilon=0.00001>(a, g, k)  c = Conv(n, u)  s = Add(a, c)
    t = InstanceNormalization<epsilon=0.00001>(s, g, k)  z = Conv(t, v)
"""


def test_the_next_level_is_tried_and_told() -> None:
    """A residual stream that norms read keeps its scale unless epsilons, which are attributes, may follow."""
    constants = LOUD | {"g": rand(4, seed=3), "k": rand(4, seed=4), "u": 3000 * rand(4, 4, 1, 1, seed=6)}
    proto = model(RESIDUAL, {"x": ("N", 3, 8, 8)}, constants)
    stays = under(proto, SAMPLES, 512)
    assert stays.ceiling is not None
    assert {item.value for item in stays.ceiling.above} == {"a", "s", "c"}
    assert stays.ceiling.higher == {"attributes": 0}
    done = under(proto, SAMPLES, 512, "attributes")
    assert done.ceiling is not None
    assert (done.ceiling.above, done.attributes_changed, done.level) == ((), 2, "attributes")
    check(done, proto, SAMPLES, 512)


def test_nodes_are_added_only_where_nothing_else_helps() -> None:
    """A stream that is joined with the input, which keeps its scale."""
    constants = {"w": 4000 * rand(3, 3, 1, 1), "v": rand(2, 3, 1, 1, seed=1) / 4000}
    proto = model("a = Conv(x, w) s = Add(a, x) r = Relu(s) z = Conv(r, v)", {"x": ("N", 3, 8, 8)}, constants)
    stays = under(proto, SAMPLES, 512, "attributes")
    assert stays.ceiling is not None
    assert stays.ceiling.higher == {"nodes": 0}
    done = under(proto, SAMPLES, 512, "nodes")
    assert done.ceiling is not None
    assert (done.ceiling.above, done.nodes_added) == ((), 1)
    check(done, proto, SAMPLES, 512)
    low = under(proto, SAMPLES, 1e6, "nodes")
    assert (low.nodes_added, low.level, low.changed) == (0, "constants", ())


def test_what_is_below_stays_as_it_is() -> None:
    proto = model("a = Conv(x, w) r = Relu(a) z = Conv(r, v)", {"x": ("N", 3, 8, 8)}, LOUD)
    done = under(proto, SAMPLES, 1e9)
    assert done.changed == ()
    assert done.ceiling is not None
    assert str(done.ceiling) == "ceiling 1e+09: 0 of 4 values were above it, 0 are; 0 filters moved"


def test_infinity_on_purpose_is_not_counted() -> None:
    mask = np.array([0, -np.inf], np.float32).reshape(1, 2, 1, 1)
    proto = model(
        "a = Conv(x, w) m = Add(a, mask) z = Softmax<axis=1>(m)",
        {"x": ("N", 3, 4, 4)},
        {"w": rand(2, 3, 1, 1), "mask": mask},
    )
    done = under(proto, {"x": rand(2, 3, 4, 4)}, 512)
    assert done.ceiling is not None
    assert (done.ceiling.infinite, done.ceiling.above) == (1, ())


def test_statistics_without_ranges_are_refused() -> None:
    proto = model("a = Conv(x, w) r = Relu(a) z = Conv(r, v)", {"x": ("N", 3, 8, 8)}, LOUD)
    statistics = onnxnorm.calibrate(proto, SAMPLES, provider="cpu")
    with pytest.raises(StatisticsError, match="--measure range"):
        onnxnorm.rewrite(proto, statistics, ceiling=512)
    with pytest.raises(StatisticsError, match="--measure range"):
        onnxnorm.rewrite(proto, ceiling=512)


@pytest.mark.parametrize(
    ("words", "says"), [({"ceiling": 0.0}, "positive"), ({"ceiling": 5.0, "target": 2.0}, "place of --target")]
)
def test_options_that_make_no_sense(words: dict[str, Any], says: str) -> None:
    with pytest.raises(OptionError, match=says):
        onnxnorm.RewriteOptions(**words)


def test_normalize_measures_by_itself_and_the_report_reads_it_back(tmp_path: Path) -> None:
    proto = model("a = Conv(x, w) r = Relu(a) z = Conv(r, v)", {"x": ("N", 3, 8, 8)}, LOUD | {"v": LOUD["v"] / 4000})
    onnx.save(proto, tmp_path / "loud.onnx")
    done = onnxnorm.normalize(tmp_path / "loud.onnx", SAMPLES, tmp_path / "quiet.onnx", ceiling=512, provider="cpu")
    assert done.statistics is not None
    assert done.verification is not None
    assert done.verification.bit_identical
    assert done.reach.share == 1
    found = read_back(Model.open(tmp_path / "loud.onnx"), Model.open(tmp_path / "quiet.onnx"), done.statistics.shapes)
    np.testing.assert_array_equal(
        found.of_slot[found.trace.ids["a"]], done.rewriting.scales.of_slot[done.rewriting.trace.ids["a"]]
    )
    assert found.entries["target"] == "512.0"
    assert found.entries["power_of_two"] == "true"
    pytest.importorskip("jinja2")
    page = onnxnorm.write_report(tmp_path / "loud.onnx", done.statistics, rewritten=tmp_path / "quiet.onnx")
    assert "512" in page.html
