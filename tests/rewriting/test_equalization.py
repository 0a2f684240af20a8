"""Weights balanced between layers: the statistic weights, which needs no images."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

import onnxnorm
from onnxnorm.model.files import Model
from onnxnorm.rewriting import rewrite_model
from onnxnorm.rewriting.options import ScaleOptions
from onnxnorm.runtime import Runtime
from onnxnorm.verification import verify_models
from tests.corpus import CASES, Case, feeds
from tests.helpers.graphs import model as network
from tests.helpers.graphs import rand
from tools.fuzz.networks import networks

RUNTIME = Runtime("cpu", threads=1)
RUNNING = [case for case in CASES.values() if case.runs]
Floats = NDArray[np.float64]


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


@pytest.mark.parametrize("made", ["k = Identity(w2)", "k = Mul(half, two)", "k = Transpose<perm=[1,0,2,3]>(turned)"])
def test_a_weight_behind_a_node_counts_as_it_is_read(made: str) -> None:
    """The same scales as where the weight is stored as it is read: what lies behind the node has other numbers."""
    w2 = rand(5, 6, 2, 2)
    stored = {"w1": rand(6, 3, 3, 3), "w3": rand(2, 5, 1, 1), "w2": w2}
    behind = {**stored, "half": w2 / 2, "two": np.float32(2), "turned": w2.swapaxes(0, 1).copy()}
    body = "a = Conv(x, w1) r1 = Relu(a) c = Conv(r1, {0}) r2 = Relu(c) z = Conv(r2, w3)"
    shapes: dict[str, tuple[int | str | None, ...]] = {"x": ("n", 3, 8, 8)}
    done = [
        rewrite_model(Model.open(proto), None, ScaleOptions(statistic="weights"))
        for proto in (network(body.format("w2"), shapes, stored), network(f"{made} {body.format('k')}", shapes, behind))
    ]
    for plain, other in zip(done[0].scales.layers, done[1].scales.layers, strict=True):
        np.testing.assert_allclose(other.statistic, plain.statistic, rtol=1e-6)


def test_a_quantized_weight_is_balanced_by_the_weights_that_are_read() -> None:
    """Its inputs share a scale, since its scale is a vector along the filters."""
    q = np.arange(-60, 60, dtype=np.int8).reshape(5, 6, 2, 2)
    constants = {"w1": rand(6, 3, 3, 3), "w3": rand(2, 5, 1, 1), "q": q, "s": np.exp(rand(5)) * np.float32(0.01)}
    body = (
        "k = DequantizeLinear<axis=0>(q, s) a = Conv(x, w1) r1 = Relu(a) c = Conv(r1, k) r2 = Relu(c) z = Conv(r2, w3)"
    )
    done = onnxnorm.rewrite(network(body, {"x": ("n", 3, 8, 8)}, constants), statistic="weights", provider="cpu")
    assert done.verification is not None
    assert done.verification.same
    assert np.ptp(done.rewriting.scales.layers[0].scale) == 0
    assert np.ptp(done.rewriting.scales.layers[1].scale) > 0


def test_constants_of_other_ranks_than_usual_have_no_statistic() -> None:
    """One number that a runtime broadcasts over channels of unknown sizes, and a variance with an axis too many."""
    scalar, variance = (
        onnx.ModelProto.FromString(networks()[name].SerializeToString()) for name in ("branches", "residual")
    )
    for dim in scalar.graph.input[0].type.tensor_type.shape.dim[1:3]:
        dim.Clear()
    next(tensor for tensor in variance.graph.initializer if tensor.name == "v").dims.append(1)
    for proto in (scalar, variance):
        with pytest.raises(onnxnorm.StatisticsError, match="not known of any filter"):
            rewrite_model(Model.open(proto), None, ScaleOptions(statistic="weights"))
