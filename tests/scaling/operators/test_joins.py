"""Operators that join operands of one scale."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import numpy_helper

from onnxnorm.scaling.levels import LEVELS, Level
from tests.helpers.graphs import between, floats, model, rand
from tests.helpers.law_checks import holds, refused

JOINS = ["Add", "Sub", "Sum", "Mean", "Max", "Min"]
SHAPES: list[tuple[tuple[int, ...], int]] = [
    # Of a constant, and how many scales are left to 4 channels.
    ((), 1),
    ((1,), 1),
    ((6,), 1),
    ((1, 1, 1), 1),
    ((6, 6), 1),
    ((4, 1, 1), 4),
    ((1, 4, 1, 1), 4),
    ((4, 6, 6), 4),
    ((1, 4, 1, 6), 4),
    ((2, 4, 6, 6), 4),
    ((2, 1, 1, 1), 1),
    ((1, 1, 1, 1, 1), 1),
    ((3, 1, 4, 1, 1), 4),
]


@pytest.mark.parametrize("op", JOINS)
@pytest.mark.parametrize("opset", [8, 21])
def test_activations(op: str, opset: int) -> None:
    checked = holds(between(f"b = {op}(a, a2)", branches=2, opset=opset), {"a": 4, "a2": 4, "b": 4})
    np.testing.assert_array_equal(checked.of_slot[checked.trace.ids["a"]], checked.of_slot[checked.trace.ids["a2"]])


@pytest.mark.parametrize("op", ["Sum", "Mean", "Max", "Min"])
@pytest.mark.parametrize("count", [1, 3])
def test_any_number_of_activations(op: str, count: int) -> None:
    names = ", ".join(["a", "a2", "a3"][:count])
    holds(between(f"b = {op}({names})", branches=count), {"a": 4, "b": 4})


@pytest.mark.parametrize("op", ["Add", "Sub", "Max"])
def test_activations_that_broadcast(op: str) -> None:
    body = f"m = GlobalAveragePool(a2) \n b = {op}(a, m)"
    holds(between(body, branches=2), {"a": 4, "a2": 4, "b": 4})
    body = f"m = ReduceMean<axes=[1]>(a2) \n b = {op}(a, m)"
    holds(between(body, branches=2, opset=17), {"a": 1, "a2": 1, "b": 1})
    body = f"m = ReduceMean<axes=[0,1,2], keepdims=0>(a2) \n b = {op}(m, a)"
    holds(between(body, branches=2, opset=17), {"a": 1, "a2": 1, "b": 1}, whole=True)


@pytest.mark.parametrize(("shape", "free"), SHAPES, ids=str)
@pytest.mark.parametrize("op", JOINS)
def test_constants(op: str, shape: tuple[int, ...], free: int) -> None:
    for body in (f"b = {op}(a, k)", f"b = {op}(k, a)"):
        holds(between(body, constants={"k": rand(*shape)}, tail="none"), {"a": free, "b": free}, whole=True)


@pytest.mark.parametrize("op", JOINS)
@pytest.mark.parametrize("shape", [(), (1,), (6,), (1, 1, 1), (4, 1, 1), (1, 1, 1, 1, 1)], ids=str)
def test_zeros_tie_nothing(op: str, shape: tuple[int, ...]) -> None:
    holds(between(f"b = {op}(a, k)", constants={"k": np.zeros(shape, np.float32)}, tail="none"), {"a": 4, "b": 4})


def test_a_constant_that_is_partly_zero_ties_where_it_is_not() -> None:
    """One number per column for all channels: all of them are tied as soon as one column is not 0."""
    holds(between("b = Add(a, k)", constants={"k": floats([0, 0, 1, 0, 0, 0])}), {"a": 1, "b": 1})


@pytest.mark.parametrize("op", ["Max", "Min"])
def test_infinite_bounds_tie(op: str) -> None:
    """Infinity is a number like others here; the tie costs little, and the output stays."""
    low = np.float32(-np.inf if op == "Max" else np.inf)
    holds(between(f"b = {op}(a, k)", constants={"k": np.asarray(low)}), {"a": 1, "b": 1})


@pytest.mark.parametrize("op", [*JOINS, "Mul", "Div"])
def test_numbers_without_axes(op: str) -> None:
    body = f"m = ReduceMax<keepdims=0>(a) \n n = ReduceL1<keepdims=0>(a2) \n c = {op}(m, n) \n b = Add(c, k)"
    proto = between(body, (1, 4, 3, 3), {"k": np.asarray(np.float32(0.3))}, branches=2, opset=17, tail="none")
    holds(proto, {"b": 1} if op != "Div" else None)


def test_a_value_with_itself() -> None:
    holds(between("b = Add(a, a)"), {"a": 4, "b": 4})
    holds(between("c = Sub(a, a) \n b = Add(c, a)"), {"a": 4, "b": 4})


def test_one_constant_twice() -> None:
    holds(between("b = Sum(a, k, k)", constants={"k": rand(4, 1, 1)}), {"a": 4, "b": 4})


def test_a_constant_for_two_values_is_cloned() -> None:
    body = "p = Add(a, k) \n q = Add(a2, k) \n b = Concat<axis=1>(p, q)"
    checked = holds(between(body, constants={"k": rand(4, 1, 1)}, branches=2), {"a": 4, "a2": 4, "b": 8})
    assert any(tensor.name == "k_onnxnorm1" for tensor in checked.rewritten.proto.graph.initializer)


@pytest.mark.parametrize("attribute", ["value_float=1.5", "value_floats=[1.0,2.0,3.0,4.0]"])
def test_a_constant_node_without_a_tensor_pins(attribute: str) -> None:
    body = f"k = Constant<{attribute}>() \n q = Reshape(k, to) \n b = Add(a, q)"
    to = [4, 1, 1] if "s=" in attribute else [1]
    refused(between(body, constants={"to": to}), "is computed by Reshape")
    if "s=" not in attribute:
        refused(between("k = Constant<value_float=1.5>() \n b = Add(a, k)"), "is a Constant node without a tensor")


def test_a_constant_node_with_a_tensor_is_edited() -> None:
    body = "k = Constant<value = float[4,1,1] {1.0, -2.0, 3.0, 0.5}>() \n b = Add(a, k)"
    holds(between(body), {"a": 4, "b": 4})


@pytest.mark.parametrize("op", ["Identity", "Cast<to=1>", "Transpose<perm=[0,1,2]>"])
def test_a_constant_behind_a_node_that_moves_it(op: str) -> None:
    holds(between(f"k2 = {op}(k) \n b = Add(a, k2)", constants={"k": rand(4, 1, 1)}), {"a": 4, "b": 4})


def test_a_constant_behind_a_node_that_computes_pins() -> None:
    proto = between("k2 = Sigmoid(k) \n b = Add(a, k2)", constants={"k": rand(4, 1, 1)})
    refused(proto, "constant 'k2' is computed by")


def test_a_constant_that_another_operator_reads_is_cloned() -> None:
    body = "p = Add(a, k) \n q = Pow(a2, k) \n b = Concat<axis=1>(q, p)"
    proto = between(body, constants={"k": floats([[[1]], [[2]], [[1]], [[3]]])}, branches=2)
    holds(proto, 4)
    body = "p = Add(a, k) \n q = Sigmoid(k) \n b = Mul(p, q)"
    holds(between(body, constants={"k": rand(4, 1, 1)}), 4)


def test_a_number_that_depends_on_the_batch_is_not_taken_for_zero() -> None:
    """The batch minus one is 0 for the one sample that the walk sees."""
    body = """
        s = Shape(a) \n f = Gather(s, zero) \n e = Sub(f, unit) \n c = Cast<to=1>(e) \n b = Add(a, c)
    """
    constants = {"zero": np.int64(0), "unit": np.int64(1)}
    refused(between(body, constants=constants), "constant 'c' is computed by")


def test_zeros_of_a_computed_shape_are_zeros() -> None:
    body = "s = Shape(a) \n c = ConstantOfShape(s) \n b = Add(a, c)"
    holds(between(body), {"a": 4, "b": 4})


def test_padding_may_become_a_number() -> None:
    """Zero channels are given numbers by an Add; these get scales of their own."""
    body = "p = Pad(a, pads) \n q = Add(p, k) \n r = Relu(q) \n b = Conv(r, w)"
    constants = {"pads": [0, 2, 0, 0, 0, 1, 0, 0], "k": rand(7, 1, 1), "w": rand(3, 7, 1, 1)}
    holds(between(body, constants=constants), {"a": 4, "p": 4, "q": 7, "b": 3})
    body = "p = Pad(a, pads) \n q = Max(p, k) \n b = Conv(q, w)"
    holds(between(body, constants=constants), {"a": 4, "q": 7})
    body = "p = Pad(a, pads) \n q = Add(p, a2) \n b = Conv(q, w)"
    holds(
        between(body, (2, 4, 3, 3), constants={"pads": [0, 0, 0, 0, 0, 0, 0, 0], "w": rand(3, 4, 1, 1)}, branches=2), 4
    )


def test_padding_shortcut_of_a_residual_block() -> None:
    body = "p = Pad(a, pads) \n c = Conv(a, w) \n b = Add(p, c)"
    holds(between(body, constants={"pads": [0, 1, 0, 0, 0, 1, 0, 0], "w": rand(6, 4, 1, 1)}), {"a": 4, "b": 6})


def test_nan_and_infinity_pass() -> None:
    body = "q = Max(a, k) \n r = Min(q, a2) \n b = Clip(r, lo)"
    proto = between(body, constants={"k": floats([[[np.nan]], [[np.inf]], [[-np.inf]], [[1]]]),
                                     "lo": np.float32(0)}, branches=2, tail="none")  # fmt: skip
    holds(proto, {"a": 4, "b": 4})


def test_where_with_a_condition_from_a_comparison_with_zero() -> None:
    body = "m = Greater(a, zero) \n n = Neg(a) \n b = Where(m, a, n)"
    checked = holds(between(body, constants={"zero": np.float32(0)}), {"a": 4, "b": 4, "m": 0})
    assert "compares with 0" in checked.reasons("m")[0]


@pytest.mark.parametrize("op", ["Greater", "GreaterOrEqual", "Less", "LessOrEqual"])
def test_comparisons(op: str) -> None:
    body = f"m = {op}(a, k) \n c = Cast<to=1>(m) \n b = Mul(a, c)"
    holds(between(body, constants={"k": np.zeros((1, 1), np.float32)}), {"a": 4})
    holds(between(body, constants={"k": np.float32(0.1)}), {"a": 1, "m": 0})
    holds(between(body, constants={"k": rand(4, 1, 1)}), {"a": 4, "m": 0})
    checked = holds(between(f"m = {op}(a, a2) \n b = Cast<to=1>(m)", branches=2), {"a": 4, "a2": 4, "m": 0})
    assert checked.reasons("m") == ["it says how values compare that share a scale"]
    np.testing.assert_array_equal(checked.of_slot[checked.trace.ids["a"]], checked.of_slot[checked.trace.ids["a2"]])
    refused(
        between(f"s = Sigmoid(a2) \n m = {op}(a, s) \n b = Cast<to=1>(m)", branches=2), "does not just scale its output"
    )


def test_equality_is_a_matter_of_rounding() -> None:
    body = "m = Equal(a, k) \n c = Cast<to=1>(m) \n b = Mul(a, c)"
    holds(between(body, constants={"k": np.zeros((1, 1), np.float32)}), {"a": 4})
    refused(between(body, constants={"k": np.float32(0.1)}), "which rounding decides")


@pytest.mark.parametrize("level", LEVELS)
def test_comparisons_of_integers_change_nothing(level: Level) -> None:
    body = "i = ArgMax<axis=1>(a) \n m = Equal(i, k) \n c = Cast<to=1>(m) \n b = Mul(a, c)"
    checked = holds(between(body, constants={"k": np.int64(2)}), {"a": 1, "i": 0, "m": 0}, level=level)
    (k,) = (tensor for tensor in checked.rewritten.proto.graph.initializer if tensor.name == "k")
    assert numpy_helper.to_array(k) == 2


@pytest.mark.parametrize(("shape", "free"), SHAPES[:10], ids=str)
def test_where_with_constants(shape: tuple[int, ...], free: int) -> None:
    constants: dict[str, Any] = {"k": rand(*shape), "c": rand(4, 6, 6) > 0}
    for operands in ("a, k", "k, a"):
        proto = between(f"b = Where(c, {operands})", constants=constants, tail="none")
        holds(proto, {"a": free, "b": free}, whole=True)


def test_where_with_a_masking_number_is_tied_and_with_zero_is_not() -> None:
    constants = {"m": rand(6, 6) > 0, "lowest": np.float32(-1e9), "zero": np.float32(0)}
    holds(between("b = Where(m, a, lowest)", constants=constants, tail="none"), {"a": 1})
    holds(between("b = Where(m, zero, a)", constants=constants), {"a": 4, "b": 4})


def test_where_of_two_constants() -> None:
    body = "m = Greater(a, zero) \n c = Where(m, p, q) \n b = Mul(a, c)"
    holds(between(body, constants={"zero": np.float32(0), "p": np.float32(1), "q": np.float32(0.1)}), {"a": 4, "c": 0})


def test_where_that_broadcasts_its_operands() -> None:
    body = "g = GlobalMaxPool(a) \n b = Where(m, a2, g)"
    holds(between(body, constants={"m": rand(3, 1, 1, 6, 6) > 0}, branches=2, tail="none"), {"a": 4, "b": 4})


@pytest.mark.parametrize("op", ["Add", "Sub", "Mul", "Div", "Max"])
def test_integers_are_left_alone(op: str) -> None:
    body = f"h = Cast<to=6>(a) \n i = {op}(h, k) \n b = Cast<to=1>(i)"
    refused(between(body, constants={"k": np.int32(3)}, opset=14), "it casts to or from something else")


@pytest.mark.parametrize("op", ["Add", "Max"])
def test_float64(op: str) -> None:
    body = f"r = {op}(a, k) \n b = Relu(r)"
    proto = between(body, (2, 4), {"k": rand(4, dtype=np.float64)}, dtype=np.float64)
    holds(proto, {"a": 4, "b": 4})


def test_unknown_shapes() -> None:
    """What stands behind an operator without shapes has none; nothing may be guessed of its rank."""
    proto = model(
        "n = ReduceSum(x) \n g = Cast<to=7>(n) \n c = Concat<axis=0>(g, rest) \n r = Expand(y, c) \n"
        "a = Conv(r, w) \n p = BatchNormalization(a, s, s, s, s) \n q = Add(p, k) \n z = Mul(q, k2)",
        {"x": (2,), "y": (1, 3, 2, 2)},
        {
            "one": [1],
            "rest": [3, 2, 2],
            "w": rand(2, 3, 1, 1),
            "s": floats([1, 2]),
            "k": rand(2),
            "k2": rand(1, 2, 1, 1, 1),
        },
    )
    holds(proto, {"a": 2}, whole=True, feed={"x": floats([1, 1]), "y": rand(1, 3, 2, 2)})


def test_a_bound_that_nothing_exceeds_stays_at_the_largest_number() -> None:
    """3e38 times 16 is more than float32 has."""
    for op in ("Max", "Min"):
        proto = between(f"b = {op}(a, k)", constants={"k": floats([[[3e38 if op == "Min" else -3e38]]])})
        assert all(edit.bounds for edit in holds(proto, {"a": 1, "b": 1}).trace.edits if edit.constant.name == "k")
