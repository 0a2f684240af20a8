"""Multiplication and division."""

from __future__ import annotations

import numpy as np
import pytest

from tests.helpers.graphs import between, floats, rand
from tests.helpers.law_checks import free_scales, holds, refused

SHAPES = [(), (1,), (6,), (4, 1, 1), (1, 4, 1, 1), (4, 6, 6), (2, 1, 1, 1), (1, 1, 1, 1, 1), (3, 1, 4, 1, 1)]
CANCEL = "it multiplies or divides, as in x * sigmoid(x), and the other scales there leave this one no choice but 1"


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("body", ["b = Mul(a, k)", "b = Mul(k, a)", "b = Div(a, k)"])
def test_constants_change_nothing(body: str, shape: tuple[int, ...]) -> None:
    holds(between(body, constants={"k": rand(*shape)}, tail="none"), {"a": 4, "b": 4}, whole=True)


def test_negative_and_zero_factors() -> None:
    holds(between("b = Mul(a, k)", constants={"k": floats([[[-1]], [[0]], [[2]], [[-0.0]]])}), {"a": 4, "b": 4})


def test_a_factor_that_depends_on_the_batch() -> None:
    body = "s = Shape(a) \n f = Gather(s, zero) \n c = Cast<to=1>(f) \n b = Div(a, c)"
    holds(between(body, constants={"zero": np.int64(0)}), {"a": 4, "b": 4})


def test_a_constant_factor_is_a_free_place() -> None:
    """A gate that lies between 0 and 1 is multiplied by constants: per channel, and by one for all of them."""
    holds(between("g = Sigmoid(a) \n b = Mul(g, k)", constants={"k": rand(4, 1, 1)}), {"a": 0, "b": 4})
    holds(between("g = Sigmoid(a) \n b = Div(g, k)", constants={"k": rand(1, 4, 1, 1)}), {"a": 0, "b": 4})
    holds(between("g = Sigmoid(a) \n b = Mul(k, g)", constants={"k": np.float32(2)}), {"a": 0, "b": 1})
    holds(between("m = Mul(a, k) \n b = Sigmoid(m)", constants={"k": rand(4, 1, 1)}), {"a": 4, "m": 0})
    holds(between("m = Mul(a, k) \n b = Sigmoid(m)", constants={"k": np.float32(2)}), {"a": 1, "m": 0})


def test_a_factor_that_may_not_change_passes_scales_on() -> None:
    body = "s = Shape(a) \n f = Gather(s, zero) \n c = Cast<to=1>(f) \n m = Mul(a, c) \n b = Sigmoid(m)"
    refused(between(body, constants={"zero": np.int64(1)}), "scaling its input does not just scale its output")


def test_reciprocals() -> None:
    holds(between("b = Div(k, a)", constants={"k": np.float32(1)}), {"a": 4, "b": 4})
    holds(between("b = Div(k, a)", constants={"k": rand(4, 1, 1)}), {"a": 4, "b": 4})
    checked = holds(between("b = Reciprocal(a)"), {"a": 4, "b": 4})
    of_slot, ids = checked.of_slot, checked.trace.ids
    np.testing.assert_array_equal(of_slot[ids["a"]] * of_slot[ids["b"]], 1)


def test_a_factor_that_is_also_a_bias_is_cloned() -> None:
    body = "p = Mul(a, k) \n b = Add(p, k)"
    checked = holds(between(body, constants={"k": rand(4, 1, 1)}), {"a": 4, "b": 4})
    assert any(tensor.name == "k_onnxnorm1" for tensor in checked.rewritten.proto.graph.initializer)


def test_two_activations() -> None:
    holds(between("b = Mul(a, a2)", branches=2), {"a": 4, "a2": 4, "b": 4})


def test_two_activations_that_broadcast() -> None:
    body = "g = GlobalAveragePool(a2) \n m = ReduceMean<axes=[1]>(g) \n b = Mul(m, a)"
    holds(between(body, branches=2, opset=17), {"a": 4, "a2": 1, "m": 1, "b": 4})


@pytest.mark.parametrize("op", ["Sigmoid", "HardSigmoid", "Tanh", "Softmax<axis=1>"])
def test_a_gate_that_is_pinned_lets_the_other_pass(op: str) -> None:
    body = f"g = {op}(a2) \n b = Mul(g, a)"
    holds(between(body, branches=2), {"a": 4, "a2": 0, "g": 0, "b": 4})


def test_squeeze_and_excitation() -> None:
    body = """
        p = GlobalAveragePool(a) \n q = Conv(p, w1) \n r = Relu(q) \n s = Conv(r, w2) \n g = Sigmoid(s) \n b = Mul(a, g)
    """
    checked = holds(between(body, constants={"w1": rand(2, 4, 1, 1), "w2": rand(4, 2, 1, 1)}), {"a": 4, "r": 2, "s": 0})
    np.testing.assert_array_equal(checked.of_slot[checked.trace.ids["a"]], checked.of_slot[checked.trace.ids["b"]])


def test_swish_pins() -> None:
    refused(between("g = Sigmoid(a) \n b = Mul(a, g)"), "scaling its input does not just scale its output")


def test_hard_swish_by_hand_has_one_scale() -> None:
    body = "p = Add(a, three) \n q = Clip(p, lo, six) \n r = Div(q, six) \n b = Mul(a, r)"
    constants = {"three": np.float32(3), "lo": np.float32(0), "six": np.float32(6)}
    holds(between(body, constants=constants), {"a": 1, "b": 1})


def test_gelu_by_hand_has_one_scale() -> None:
    body = "d = Div(a, root) \n e = Erf(d) \n f = Add(e, one) \n g = Mul(a, f) \n b = Mul(g, half)"
    constants = {"root": np.float32(2**0.5), "one": np.float32(1), "half": np.float32(0.5)}
    holds(between(body, constants=constants), {"a": 1, "d": 0, "g": 1, "b": 1})


def test_squares() -> None:
    checked = holds(between("b = Mul(a, a)"), {"a": 4, "b": 4})
    of_slot, ids = checked.of_slot, checked.trace.ids
    np.testing.assert_array_equal(of_slot[ids["b"]], of_slot[ids["a"]] ** 2)
    holds(between("r = Relu(a) \n b = Mul(r, a)"), {"a": 4, "b": 4})


@pytest.mark.parametrize(("exponent", "free"), [(2, 4), (3, 4), (1, 4), (0.5, 4), (-1, 4), (0, 0)])
def test_powers(exponent: float, free: int) -> None:
    """Powers of two stay so only where roots are taken of even ones, which the walk sees to."""
    body = "c = Abs(a) \n b = Pow(c, k)"
    proto = between(body, constants={"k": np.float32(exponent)})
    checked = holds(proto, {"a": 4, "b": free}, rtol=1e-5 if exponent in {0.5, 3} else 0)
    of_slot, ids = checked.of_slot, checked.trace.ids
    assert (of_slot[ids["b"]] == of_slot[ids["a"]] ** exponent).all()


def test_powers_that_pin() -> None:
    refused(between("c = Abs(a) \n b = Pow(c, k)", constants={"k": np.float32(0.123)}), "not a fraction of small")
    refused(between("c = Abs(a) \n b = Pow(c, k)", constants={"k": floats([1, 2, 2, 2, 2, 2])}), "different powers")
    refused(between("b = Pow(k, a)", constants={"k": np.float32(2)}), "its exponent is not a constant")


def test_roots_halve_exponents() -> None:
    body = "c = Abs(a) \n b = Sqrt(c)"
    checked = holds(between(body), {"a": 4, "b": 4})
    of_slot, ids = checked.of_slot, checked.trace.ids
    np.testing.assert_array_equal(of_slot[ids["b"]] ** 2, of_slot[ids["a"]])


def test_a_magnitude() -> None:
    """sqrt(x * x + y * y + epsilon) is of degree 1, with the epsilon scaled by the square."""
    body = """
        two = Constant<value_float=2.0>() \n p = Pow(a, k) \n q = Pow(a2, k) \n s = Add(p, q) \n e = Add(s, eps)
        b = Sqrt(e)
    """
    holds(between(body, constants={"k": np.float32(2), "eps": rand(4, 1, 1) ** 2}, branches=2), {"a": 4, "b": 4})


def test_a_product_that_is_added_to_its_factor_pins_the_other() -> None:
    """a * g + a: the scale of g must be 1, that of a is free."""
    holds(between("p = Mul(a, a2) \n b = Add(p, a)", branches=2), {"a": 4, "a2": 0, "b": 4})
    holds(between("p = Mul(a, a2) \n b = Add(p, a2)", branches=2), {"a": 0, "a2": 4, "b": 4})


def test_scales_of_a_product_that_is_pinned_cancel() -> None:
    checked = holds(between("p = Mul(a, a2) \n b = Sigmoid(p)", branches=2), {"a": 4, "a2": 4, "p": 0})
    of_slot, ids = checked.of_slot, checked.trace.ids
    np.testing.assert_array_equal(of_slot[ids["a"]] * of_slot[ids["a2"]], 1)
    assert checked.reasons("p") == ["scaling its input does not just scale its output"]


def test_what_cancels_says_so() -> None:
    assert refused(between("p = Mul(a, a) \n b = Sigmoid(p)"), CANCEL).reasons("p") == [
        "scaling its input does not just scale its output"
    ]


def test_products_of_products() -> None:
    checked = holds(between("p = Mul(a, a2) \n q = Mul(a3, a4) \n b = Mul(p, q)", branches=4))
    assert free_scales(checked, "b") == 4
    checked = holds(between("p = Mul(a, a2) \n q = Mul(p, a) \n b = Div(q, a2)", branches=2))
    assert {free_scales(checked, "a"), free_scales(checked, "a2")} == {4}


def test_a_quotient() -> None:
    holds(between("b = Div(a, a2)", branches=2), {"a": 4, "a2": 4, "b": 4})


def test_a_value_divided_by_itself_is_1_whatever_its_scale() -> None:
    holds(between("b = Div(a, a)"), {"a": 4, "b": 0})


def test_a_value_divided_by_its_mean() -> None:
    holds(between("m = ReduceMean(a) \n b = Div(a, m)", (1, 4, 4, 4), opset=17), {"a": 1, "b": 0})
    holds(between("m = GlobalAveragePool(a) \n b = Div(a, m)"), {"a": 4, "b": 0})


def test_normalization_by_hand() -> None:
    """The epsilon follows the square of the input's scale, and the output has none."""
    body = "q = Mul(a, a) \n m = ReduceMean<axes=[1]>(q) \n e = Add(m, eps) \n s = Sqrt(e) \n b = Div(a, s)"
    checked = holds(between(body, constants={"eps": np.float32(1e-2)}, opset=17), {"a": 1, "b": 0})
    assert checked.reasons("b") == [CANCEL]


def test_matrices_of_two_activations() -> None:
    """Attention: scales of queries and keys cancel, those of values pass."""
    body = """
        q = Reshape(a, flat) \n k = Reshape(a2, flat) \n v = Reshape(a3, flat) \n qt = Transpose<perm=[0,2,1]>(q)
        s = MatMul(qt, k) \n p = Softmax<axis=2>(s) \n vt = Transpose<perm=[0,2,1]>(v) \n o = MatMul(p, vt)
        ot = Transpose<perm=[0,2,1]>(o) \n b = Reshape(ot, square)
    """
    constants = {"flat": [0, 4, 36], "square": [0, 4, 6, 6]}
    checked = holds(between(body, constants=constants, branches=3), {"a": 4, "a2": 4, "s": 0, "o": 4, "b": 4})
    of_slot, ids = checked.of_slot, checked.trace.ids
    np.testing.assert_array_equal(of_slot[ids["a"]] * of_slot[ids["a2"]], 1)


def test_zeros_times_something() -> None:
    body = "p = Pad(a, pads) \n q = Pad(a2, pads2) \n m = Mul(p, q) \n b = Add(m, k)"
    constants = {"pads": [0, 1, 0, 0, 0, 2, 0, 0], "pads2": [0, 3, 0, 0, 0, 0, 0, 0], "k": rand(7, 1, 1)}
    holds(between(body, constants=constants, branches=2), {"b": 7})


def test_what_divides_by_padding_is_not_zero() -> None:
    """x / 0 is infinite or not a number, which fit any scale but are no zeros."""
    body = "p = Pad(a2, pads) \n d = Div(a, p) \n b = Clip(d, lo, hi)"
    constants = {"pads": [0, 1, 0, 0, 0, -1, 0, 0], "lo": np.float32(-1), "hi": np.float32(1)}
    holds(between(body, constants=constants, branches=2, tail="none"))
    body = "p = Pad(a2, pads) \n d = Div(a, p) \n b = Concat<axis=1>(d, a)"
    holds(between(body, constants=constants, branches=2, tail="none"))


@pytest.mark.parametrize("opset", [7, 13, 14])
def test_opsets(opset: int) -> None:
    holds(between("g = Sigmoid(a2) \n b = Mul(a, g)", branches=2, opset=opset), {"a": 4})


def test_float64() -> None:
    proto = between("g = Sigmoid(a2) \n c = Mul(a, g) \n b = Div(c, k)", (2, 4), {"k": rand(4, dtype=np.float64)},
                    branches=2, dtype=np.float64)  # fmt: skip
    holds(proto, {"a": 4, "b": 4})
