"""Reductions by axis."""

from __future__ import annotations

import numpy as np
import pytest

from tests.helpers.graphs import between, model, rand
from tests.helpers.law_checks import RUNTIME, holds, refused

EPS = float(np.finfo(np.float32).eps)
OPS = ["ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceL1", "ReduceL2"]


@pytest.mark.parametrize("keepdims", [0, 1])
@pytest.mark.parametrize(
    ("axes", "free"),
    [([2, 3], 4), ([-1, -2], 4), ([3], 4), ([1], 1), ([-3, 2], 1), ([1, 2, 3], 1)],
    ids=str,
)
@pytest.mark.parametrize("op", OPS)
def test_reduce(op: str, axes: list[int], free: int, keepdims: int) -> None:
    text = str(axes).replace(" ", "")
    for opset in (11, 12):
        body = f"b = {op}<axes={text}, keepdims={keepdims}>(a)"
        holds(between(body, opset=opset, tail="none"), {"a": free, "b": free})
    body = f"b = {op}<keepdims={keepdims}>(a, axes)"
    holds(between(body, constants={"axes": axes}, opset=18, tail="none"), {"a": free, "b": free})


@pytest.mark.parametrize("keepdims", [0, 1])
@pytest.mark.parametrize("opset", [7, 13, 18])
@pytest.mark.parametrize("op", OPS)
def test_reduce_everything(op: str, opset: int, keepdims: int) -> None:
    """All axes if none are named; 10 channels times 36 places do not change the order of additions."""
    proto = between(f"b = {op}<keepdims={keepdims}>(a)", (1, 4, 3, 3), opset=opset, tail="none")
    holds(proto, {"a": 1, "b": 1})


@pytest.mark.skipif(RUNTIME < (1, 24), reason="ONNX Runtime takes empty axes from 1.24 on")
@pytest.mark.parametrize("op", ["ReduceMean", "ReduceSum"])
def test_reduce_nothing(op: str) -> None:
    """Empty axes mean all of them, or none if told so."""
    constants = {"none": np.empty(0, np.int64)}
    proto = between(f"b = {op}<noop_with_empty_axes=1>(a, none)", constants=constants, opset=18, tail="none")
    holds(proto, {"a": 4, "b": 4})
    proto = between(f"b = {op}<noop_with_empty_axes=1>(a)", opset=18, tail="none")
    holds(proto, {"a": 4, "b": 4})
    proto = between(f"b = {op}(a, none)", constants=constants, opset=18, tail="none")
    holds(proto, {"a": 1, "b": 1})


def test_reduce_of_rank_1_and_2() -> None:
    holds(between("b = ReduceSum<axes=[-1]>(a)", (2, 4), opset=11), {"a": 1, "b": 1})
    proto = model(
        "a = MatMul(x, w) \n z = ReduceMax<axes=[0], keepdims=0>(a)", {"x": (3,)}, {"w": rand(3, 4)}, opset=11
    )
    holds(proto, {"a": 1, "z": 1}, whole=True)


def test_axes_from_the_graph_pin() -> None:
    body = "b = ReduceSum(a, axes)"
    proto = between(body, inputs={"axes": (1,)}, input_types={"axes": 7}, opset=18, tail="none")
    refused(proto, "its axes are not constant", feed={"x": rand(2, 3, 6, 6), "axes": np.array([1])}, whole=True)


@pytest.mark.parametrize("attributes", ["", "reverse=1", "exclusive=1"])
@pytest.mark.parametrize(("axis", "free"), [(1, 1), (2, 4), (-1, 4), (-3, 1)])
def test_cumsum(axis: int, free: int, attributes: str) -> None:
    proto = between(f"b = CumSum<{attributes}>(a, axis)", constants={"axis": np.array(axis)}, opset=14)
    holds(proto, {"a": free, "b": free})


def test_cumsum_along_an_axis_from_the_graph_pins() -> None:
    proto = between("b = CumSum(a, axis)", inputs={"axis": ()}, input_types={"axis": 7}, opset=14)
    feed = {"x": rand(2, 3, 6, 6), "axis": np.array(1)}
    refused(proto, "its axis or the shape of its input is not known", feed=feed)


@pytest.mark.parametrize("op", ["ReduceLogSum", "ReduceLogSumExp", "ReduceProd"])
def test_barriers(op: str) -> None:
    reason = "logarithm of a sum" if "Log" in op else "it raises its input to a power"
    body = f"r = Abs(a) \n b = {op}<axes=[2,3]>(r)"
    assert refused(between(body, opset=11), reason).pinned("b")


def test_sums_of_squares() -> None:
    checked = holds(between("b = ReduceSumSquare<axes=[2,3]>(a)", opset=11), {"a": 4, "b": 4})
    assert (checked.of_slot[checked.trace.ids["b"]] == checked.of_slot[checked.trace.ids["a"]] ** 2).all()
    holds(between("b = ReduceSumSquare<axes=[1]>(a)", opset=11), {"a": 1, "b": 1})
