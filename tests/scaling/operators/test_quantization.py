"""Quantization: the step follows the scale, so that the integers stay as they are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.helpers.graphs import between, floats, rand
from tests.helpers.law_checks import holds, refused

STEP = np.float32(0.05)
STEPS = np.abs(rand(4)) * np.float32(0.02) + np.float32(0.01)
ZERO_POINT = {"p": np.uint8(120)}


@pytest.mark.parametrize("step", [STEP, floats([0.05])], ids=["number", "vector"])
def test_one_step_has_one_scale_on_each_side(step: Any) -> None:
    body = "q = QuantizeLinear(a, s, p) \n b = DequantizeLinear(q, s, p)"
    constants = {"s": step, "p": np.full(step.shape, 120, np.uint8)}
    checked = holds(between(body, constants=constants), {"a": 1, "q": 0, "b": 1})
    assert checked.reasons("q") == ["it is a number of steps"]
    assert checked.of_slot[checked.trace.ids["a"]].flat[0] != checked.of_slot[checked.trace.ids["b"]].flat[0]


def test_a_step_for_each_channel_has_a_scale_for_each() -> None:
    body = "q = QuantizeLinear<axis=1>(a, s, p) \n b = DequantizeLinear<axis=1>(q, s, p)"
    constants = {"s": STEPS, "p": np.full(4, 7, np.int8)}
    holds(between(body, constants=constants), {"a": 4, "q": 0, "b": 4})


def test_steps_along_another_axis_tie_channels() -> None:
    body = "q = QuantizeLinear<axis=-1>(a, s) \n b = DequantizeLinear<axis=-1>(q, s)"
    holds(between(body, (2, 4, 3, 4), {"s": STEPS}), {"a": 1, "b": 1})


def test_steps_for_blocks_have_one_scale() -> None:
    body = "q = QuantizeLinear<axis=1, block_size=2>(a, s, p) \n b = DequantizeLinear<axis=1, block_size=2>(q, s, p)"
    constants = {"s": np.abs(rand(2, 2, 6, 6)) + 1, "p": np.zeros((2, 2, 6, 6), np.int8)}
    holds(between(body, constants=constants), {"a": 1, "b": 1}, whole=True)


def test_a_step_by_the_range_of_the_input() -> None:
    """Dynamic quantization, as one operator."""
    body = "q, s, p = DynamicQuantizeLinear(a) \n b = DequantizeLinear(q, s, p)"
    checked = holds(between(body), {"a": 1, "q": 0, "s": 1, "p": 0, "b": 1})
    assert (checked.of_slot[checked.trace.ids["a"]] == checked.of_slot[checked.trace.ids["s"]]).all()


def test_a_step_that_is_computed_shares_the_scale_of_its_input() -> None:
    body = """
        m = Abs(a) \n r = ReduceMax<keepdims=0>(m) \n s = Mul(r, k)
        q = QuantizeLinear(a, s, p) \n b = DequantizeLinear(q, s, p)
    """
    constants = {"k": np.float32(2**-7), "p": np.int8(0)}
    checked = holds(between(body, constants=constants, opset=17), {"a": 1, "s": 1, "q": 0, "b": 1})
    assert (checked.of_slot[checked.trace.ids["a"]] == checked.of_slot[checked.trace.ids["s"]]).all()


def test_a_product_of_integers_is_scaled_behind() -> None:
    """As quantize_dynamic writes a dense layer: the steps of both sides are multiplied in at the end."""
    body = """
        q, s, p = DynamicQuantizeLinear(a) \n i = MatMulInteger(q, w, p) \n f = Cast<to=1>(i)
        t = Mul(s, k) \n b = Mul(f, t)
    """
    constants = {"w": np.arange(20, dtype=np.int8).reshape(4, 5) - 9, "k": np.float32(0.01)}
    holds(between(body, (2, 4), constants), {"a": 1, "i": 0, "f": 0, "b": 1})


def test_a_step_that_the_caller_may_replace_pins() -> None:
    body = "q = QuantizeLinear(a, s, p) \n b = DequantizeLinear(q, t, p)"
    proto = between(body, constants={"t": STEP, **ZERO_POINT}, inputs={"s": ()}, opset=19)
    feed = {"x": rand(2, 3, 6, 6), "s": np.asarray(STEP)}
    checked = refused(proto, "it is a graph input", feed=feed)
    assert checked.free("b")


def test_other_scales_give_the_same_integers_but_for_those_between_two_steps() -> None:
    """With scales that are no powers of two few numbers are rounded to the other step."""
    body = "q = QuantizeLinear(a, s, p) \n b = DequantizeLinear(q, s, p)"
    proto = between(body, constants={"s": STEP, **ZERO_POINT})
    holds(proto, {"a": 1, "b": 1}, power_of_two=False, rtol=0.01)
