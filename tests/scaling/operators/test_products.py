"""Multiplication and division."""

from __future__ import annotations

import numpy as np
import pytest

from tests.helpers.graphs import between, floats, rand
from tests.helpers.law_checks import free_scales, holds, refused

SHAPES = [(), (1,), (6,), (4, 1, 1), (1, 4, 1, 1), (4, 6, 6), (2, 1, 1, 1), (1, 1, 1, 1, 1), (3, 1, 4, 1, 1)]
ONE_KEEPS = "it multiplies two activations, so one of them keeps its scale"


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("body", ["b = Mul(a, k)", "b = Mul(k, a)", "b = Div(a, k)"])
def test_constants_change_nothing(body: str, shape: tuple[int, ...]) -> None:
    holds(between(body, constants={"k": rand(*shape)}, tail="none"), {"a": 4, "b": 4}, whole=True)


def test_negative_and_zero_factors() -> None:
    holds(between("b = Mul(a, k)", constants={"k": floats([[[-1]], [[0]], [[2]], [[-0.0]]])}), {"a": 4, "b": 4})


def test_a_factor_that_depends_on_the_batch() -> None:
    body = "s = Shape(a) \n f = Gather(s, zero) \n c = Cast<to=1>(f) \n b = Div(a, c)"
    holds(between(body, constants={"zero": np.int64(0)}), {"a": 4, "b": 4})


def test_a_constant_divided_by_an_activation_pins() -> None:
    refused(between("b = Div(k, a)", constants={"k": np.float32(1)}), "it divides a constant by an activation")
    assert refused(between("b = Reciprocal(a)"), "it raises its input to a power").pinned("b")


def test_a_factor_that_is_also_a_bias_is_cloned() -> None:
    body = "p = Mul(a, k) \n b = Add(p, k)"
    checked = holds(between(body, constants={"k": rand(4, 1, 1)}), {"a": 4, "b": 4})
    assert any(tensor.name == "k_onnxnorm1" for tensor in checked.rewritten.proto.graph.initializer)


def test_two_activations() -> None:
    """The second one is the gate if both are of one size."""
    checked = holds(between("b = Mul(a, a2)", branches=2), {"a": 4, "a2": 0, "b": 4})
    assert checked.reasons("a2") == [ONE_KEEPS]


def test_the_smaller_of_two_activations_is_the_gate() -> None:
    body = "g = GlobalAveragePool(a2) \n m = ReduceMean<axes=[1]>(g) \n b = Mul(m, a)"
    holds(between(body, branches=2, opset=17), {"a": 4, "a2": 0, "m": 0, "b": 4})


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
    refused(between("g = Sigmoid(a) \n b = Mul(a, g)"), "it is not positively homogeneous")


def test_hard_swish_by_hand_pins() -> None:
    body = "p = Add(a, three) \n q = Clip(p, lo, six) \n r = Div(q, six) \n b = Mul(a, r)"
    constants = {"three": np.float32(3), "lo": np.float32(0), "six": np.float32(6)}
    refused(between(body, constants=constants), ONE_KEEPS)


def test_a_square_pins() -> None:
    assert refused(between("b = Mul(a, a)"), ONE_KEEPS).pinned("b")
    assert refused(between("r = Relu(a) \n b = Mul(r, a)"), ONE_KEEPS).pinned("b")


def test_a_product_that_is_added_to_its_factor_pins_the_other() -> None:
    """a * g + a: the scale of g must be 1, that of a is free."""
    holds(between("p = Mul(a, a2) \n b = Add(p, a)", branches=2), {"a": 4, "a2": 0, "b": 4})
    holds(between("p = Mul(a, a2) \n b = Add(p, a2)", branches=2), {"a": 0, "a2": 4, "b": 4})


def test_a_product_that_is_pinned_pins_both() -> None:
    holds(between("p = Mul(a, a2) \n b = Sigmoid(p)", branches=2), {"a": 0, "a2": 0})


def test_products_of_products() -> None:
    checked = holds(between("p = Mul(a, a2) \n q = Mul(a3, a4) \n b = Mul(p, q)", branches=4))
    assert free_scales(checked, "b") == 4
    checked = holds(between("p = Mul(a, a2) \n q = Mul(p, a) \n b = Div(q, a2)", branches=2))
    assert {free_scales(checked, "a"), free_scales(checked, "a2")} <= {0, 4}


def test_a_quotient() -> None:
    holds(between("b = Div(a, a2)", branches=2), {"a": 4, "a2": 0, "b": 4})


def test_a_value_divided_by_itself_is_1_whatever_its_scale() -> None:
    holds(between("b = Div(a, a)"), {"a": 4, "b": 0})


def test_a_value_divided_by_its_mean() -> None:
    holds(between("m = ReduceMean(a) \n b = Div(a, m)", (1, 4, 4, 4), opset=17), {"a": 1, "b": 0})
    holds(between("m = GlobalAveragePool(a) \n b = Div(a, m)"), {"a": 4, "b": 0})


def test_normalization_by_hand() -> None:
    """With an epsilon the square of the input is pinned, and it with it."""
    body = "q = Mul(a, a) \n m = ReduceMean<axes=[1]>(q) \n e = Add(m, eps) \n s = Sqrt(e) \n b = Div(a, s)"
    refused(between(body, constants={"eps": np.float32(1e-5)}, opset=17), "it raises its input to a power")


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
