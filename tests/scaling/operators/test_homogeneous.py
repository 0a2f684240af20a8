"""Operators that are positively homogeneous element by element."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import TensorProto

from tests.helpers.graphs import between, model, rand
from tests.helpers.law_checks import holds, refused

INF = np.float32(np.inf)
MAX = np.finfo(np.float32).max
SIX = {"lo": np.float32(0), "hi": np.float32(6)}


@pytest.mark.parametrize("opset", [7, 13, 21])
@pytest.mark.parametrize(
    "op", ["Relu", "LeakyRelu", "LeakyRelu<alpha=0.3>", "LeakyRelu<alpha=-0.5>", "Abs", "Neg", "Identity", "Dropout"]
)
def test_hands_scales_on(op: str, opset: int) -> None:
    holds(between(f"b = {op}(a)", opset=opset), {"a": 4, "b": 4})


@pytest.mark.parametrize("op", ["Relu", "Abs", "Neg", "Identity"])
def test_one_sample_without_batch(op: str) -> None:
    proto = model(
        f"a = MatMul(x, w) \n b = {op}(a) \n z = MatMul(b, v)", {"x": (3,)}, {"w": rand(3, 4), "v": rand(4, 2)}
    )
    holds(proto, {"a": 4, "b": 4}, whole=True)


def test_dropout_with_inputs_and_mask() -> None:
    constants = {"r": np.float32(0.5), "t": np.bool_(False)}
    proto = between("b, mask = Dropout(a, r, t)", constants=constants, outputs=["mask"])
    holds(proto, {"a": 4, "b": 4, "mask": 0})


def test_dropout_whose_ratio_is_computed_pins_the_ratio() -> None:
    body = "s = Sigmoid(a2) \n m = ReduceMean<keepdims=0>(s) \n r = Identity(m) \n b = Dropout(a, r)"
    checked = holds(between(body, (1, 4, 3, 3), opset=17, branches=2), {"a": 4, "r": 0, "b": 4})
    assert "it decides how much is dropped" in [barrier.reason for barrier in checked.trace.groups.barriers]


@pytest.mark.parametrize("slope", [(1,), (4, 1, 1), (1, 4, 1, 1), (4, 6, 6), (1, 1, 1), (6,), (4, 1, 6)], ids=str)
@pytest.mark.parametrize("opset", [7, 9, 16])
def test_prelu(slope: tuple[int, ...], opset: int) -> None:
    holds(between("b = PRelu(a, s)", constants={"s": rand(*slope)}, opset=opset), {"a": 4, "b": 4})


def test_a_computed_slope_keeps_its_scale_and_the_rest_passes() -> None:
    checked = holds(between("b = PRelu(a, a2)", branches=2), {"a": 4, "a2": 0, "b": 4})
    assert checked.reasons("a2") == ["it is a slope for negative elements, and positive ones have none"]
    np.testing.assert_array_equal(checked.of_slot[checked.trace.ids["a"]], checked.of_slot[checked.trace.ids["b"]])
    refused(between("b = PRelu(a, a)"), "it is a slope for negative elements")


def test_prelu_slope_that_is_also_a_bias_is_cloned() -> None:
    body = "q = PRelu(a, k) \n b = Add(q, k)"
    checked = holds(between(body, constants={"k": rand(4, 1, 1)}), {"a": 4, "b": 4})
    assert any(tensor.name == "k_onnxnorm1" for tensor in checked.rewritten.proto.graph.initializer)


def test_thresholded_relu() -> None:
    holds(between("b = ThresholdedRelu<alpha=0.0>(a)"), {"a": 4, "b": 4})
    refused(between("b = ThresholdedRelu(a)"), "its threshold 1 is not 0")
    refused(between("b = ThresholdedRelu<alpha=-0.5>(a)"), "its threshold -0.5 is not 0")


@pytest.mark.parametrize("to", [TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16])
def test_cast_between_floats(to: TensorProto.DataType) -> None:
    """What a narrow type rounds differs where it is subnormal: 2 of its units in the last place."""
    eps = {TensorProto.FLOAT16: 2.0**-10, TensorProto.BFLOAT16: 2.0**-7, TensorProto.DOUBLE: 0.0}[to]
    proto = between(f"h = Cast<to={to}>(a) \n b = Cast<to=1>(h)")
    holds(proto, {"a": 4, "h": 4, "b": 4}, rtol=2 * eps)


def test_cast_like() -> None:
    constants = {"k": np.zeros(1, np.float64)}
    holds(between("h = CastLike(a, k) \n b = CastLike(h, a)", constants=constants), {"a": 4, "h": 4, "b": 4})


@pytest.mark.parametrize("to", [TensorProto.INT32, TensorProto.BOOL, TensorProto.INT64, TensorProto.UINT8])
def test_cast_to_integers_pins(to: int) -> None:
    refused(between(f"h = Cast<to={to}>(a) \n b = Cast<to=1>(h)"), "it casts to or from something else")


def test_sign_and_nan_have_no_scale() -> None:
    checked = holds(between("b = Sign(a)"), {"a": 4, "b": 0})
    assert checked.reasons("b") == ["it does not depend on the scale of its input"]
    holds(between("n = IsNaN(a) \n i = IsInf(a) \n o = Or(n, i) \n b = Where(o, a2, a)", branches=2), {"a": 4, "b": 4})


def bounds(low: Any, high: Any) -> dict[str, Any]:
    return {name: np.float32(value) for name, value in (("lo", low), ("hi", high)) if value is not None}


@pytest.mark.parametrize("opset", [11, 12, 13, 21])
@pytest.mark.parametrize(
    ("low", "high", "free"),
    [
        (None, None, 4),
        (0, None, 4),
        (None, 0, 4),
        (0, INF, 4),
        (0, MAX, 4),
        (-MAX, MAX, 4),
        (-INF, 0, 4),
        (-0.0, None, 4),
        (0, 6, 1),
        (None, 6, 1),
        (-1, None, 1),
        (-1, 1, 1),
        (0.5, 0.75, 1),
        (1, -1, 1),  # nonsense, but defined: the upper bound wins
    ],
)
def test_clip(low: Any, high: Any, free: int, opset: int) -> None:
    names = ["a", "" if low is None else "lo", "" if high is None else "hi"]
    while not names[-1]:
        names.pop()
    # The textual syntax has no name for an input that is left out.
    proto = between(
        f"b = Clip({', '.join(name or 'absent' for name in names)})", constants=bounds(low, high), opset=opset
    )
    for node in proto.graph.node:
        for index, name in enumerate(node.input):
            node.input[index] = "" if name == "absent" else name
    holds(proto, {"a": free, "b": free})


@pytest.mark.parametrize("opset", [6 + 1, 8, 10])
@pytest.mark.parametrize("attributes", ["", "min=0.0", "min=0.0, max=3.4028234663852886e38", "max=0.0"])
def test_clip_by_attributes(attributes: str, opset: int) -> None:
    holds(between(f"b = Clip<{attributes}>(a)", opset=opset), {"a": 4, "b": 4})


@pytest.mark.parametrize("attributes", ["min=0.0, max=6.0", "max=6.0", "min=-1.0"])
def test_clip_by_attributes_that_would_have_to_change_pins(attributes: str) -> None:
    refused(between(f"b = Clip<{attributes}>(a)", opset=10), "its bounds are attributes")


def test_clip_with_one_constant_for_both_bounds() -> None:
    holds(between("b = Clip(a, k, k)", constants={"k": np.float32(0.5)}), {"a": 1, "b": 1})


def test_clips_that_share_their_bounds() -> None:
    body = "p = Clip(a, lo, hi) \n q = Clip(a2, lo, hi) \n b = Concat<axis=1>(p, q)"
    checked = holds(between(body, constants=SIX, branches=2), {"a": 1, "a2": 1, "b": 2})
    assert any(tensor.name == "hi_onnxnorm1" for tensor in checked.rewritten.proto.graph.initializer)


def test_clip_with_computed_bounds_pins() -> None:
    body = "hi2 = Add(hi, one) \n b = Clip(a, lo, hi2)"
    refused(between(body, constants=SIX | {"one": np.float32(1)}), "constant 'hi2' is computed by")


def test_clip_with_a_bound_behind_an_identity() -> None:
    holds(between("hi2 = Identity(hi) \n b = Clip(a, lo, hi2)", constants=SIX), {"a": 1, "b": 1})


def test_clip_with_bounds_from_the_graph_pins() -> None:
    proto = between("b = Clip(a, lo, hi)", constants={"lo": np.float32(0)}, inputs={"hi": ()})
    refused(proto, "its bounds are not constants", feed={"x": rand(2, 3, 6, 6), "hi": np.array(0.5, np.float32)})


def test_a_bound_that_depends_on_the_shape_is_not_taken_for_zero() -> None:
    """The batch minus one is 0 for the one sample that the walk sees."""
    body = """
        s = Shape(a) \n f = Gather(s, zero) \n e = Sub(f, unit) \n c = Cast<to=1>(e) \n b = Clip(a, c)
    """
    constants = {"zero": np.int64(0), "unit": np.int64(1)}
    refused(between(body, constants=constants), "constant 'c' is computed by")


def test_zeros_may_become_a_bound() -> None:
    """Padding is zero and fits any scale; clipped to at least 1/2 it has one."""
    body = "p = Pad(a, pads) \n q = Clip(p, lo) \n b = Conv(q, w)"
    constants = {"pads": [0, 2, 0, 0, 0, 1, 0, 0], "lo": np.float32(0.5), "w": rand(3, 7, 1, 1)}
    holds(between(body, constants=constants), {"a": 1, "b": 3})


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_clip_of_other_types(dtype: type[Any]) -> None:
    """2 units in the last place for float16, whose small numbers are subnormal."""
    to = {np.float16: TensorProto.FLOAT16, np.float64: TensorProto.DOUBLE}[dtype]
    body = f"h = Cast<to={to}>(a) \n c = Clip(h, lo, hi) \n b = Cast<to=1>(c)"
    eps = 2 * float(np.finfo(dtype).eps) if dtype is np.float16 else 0
    holds(between(body, constants={"lo": dtype(0), "hi": dtype(0.5)}), {"a": 1, "b": 1}, rtol=eps)
    limit = np.finfo(dtype).max
    holds(between(body, constants={"lo": dtype(0), "hi": limit}), {"a": 4, "b": 4}, rtol=eps)
