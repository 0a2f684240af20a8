"""Reductions by axis."""

from __future__ import annotations

import numpy as np
import pytest

import onnxnorm
from onnxnorm.errors import ModelError
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


@pytest.mark.parametrize("op", ["ReduceLogSum", "ReduceLogSumExp"])
def test_barriers(op: str) -> None:
    reason = "logarithm of a sum"
    body = f"r = Abs(a) \n b = {op}<axes=[2,3]>(r)"
    assert refused(between(body, opset=11), reason).pinned("b")


def test_sums_of_squares() -> None:
    checked = holds(between("b = ReduceSumSquare<axes=[2,3]>(a)", opset=11), {"a": 4, "b": 4})
    assert (checked.of_slot[checked.trace.ids["b"]] == checked.of_slot[checked.trace.ids["a"]] ** 2).all()
    holds(between("b = ReduceSumSquare<axes=[1]>(a)", opset=11), {"a": 1, "b": 1})


@pytest.mark.parametrize(("axes", "free", "power"), [([1], 1, 4), ([3], 4, 3), ([], 1, 1)], ids=str)
def test_products(axes: list[int], free: int, power: int) -> None:
    """The scale is raised to the number of factors; none at all are all of them here, too many."""
    body = f"b = ReduceProd<keepdims=1>(a{', axes' if axes else ''})"
    proto = between(body, (2, 4, 3, 3), constants={"axes": axes} if axes else {}, opset=18)
    if not axes:
        refused(proto, "it multiplies 36 elements")
        return
    checked = holds(proto, {"a": free, "b": free}, rtol=EPS)
    a, b = (checked.of_slot[checked.trace.ids[name]] for name in ("a", "b"))
    np.testing.assert_array_equal(np.broadcast_to(a**power, b.shape) if b.size > 1 else a.flat[0] ** power, b)


def test_a_product_along_an_axis_of_open_size_pins() -> None:
    proto = between("b = ReduceProd(a, axes)", constants={"axes": [0]}, opset=18, batch="n", tail="none")
    refused(proto, "it raises its input to a power that the size of the input decides")


@pytest.mark.parametrize("rows", [1, 2, 3, 4])
def test_determinants(rows: int) -> None:
    """Each is a sum of products of as many elements as there are rows."""
    checked = holds(between("b = Det(a)", (2, 4, rows, rows), tail="none"), {"a": 4, "b": 4})
    a, b = (checked.of_slot[checked.trace.ids[name]] for name in ("a", "b"))
    np.testing.assert_array_equal(a.ravel() ** rows, b.ravel())


def test_a_determinant_ties_rows_and_columns() -> None:
    body = "m = Reshape(a, to) \n b = Det(m)"
    checked = holds(between(body, (1, 4, 1, 1), {"to": [2, 2]}, tail="none"), {"a": 1, "b": 1}, whole=True)
    assert (checked.of_slot[checked.trace.ids["a"]].flat[0] ** 2 == checked.of_slot[checked.trace.ids["b"]]).all()


def test_determinants_of_many_rows_or_of_open_size_pin() -> None:
    refused(between("b = Det(a)", tail="none"), "it multiplies 6 elements")
    body = "f = Flatten(a) \n t = Transpose(f) \n m = MatMul(f, t) \n b = Det(m)"
    proto = between(body, (2, 2, 1, 3), batch="n", tail="none")
    refused(proto, "it raises its input to a power that the size of the input decides", "m", whole=True)


def test_unique_elements_share_a_scale() -> None:
    proto = between("b, places, back, counts = Unique(a)", tail="none", outputs=["places", "counts"])
    holds(proto, {"a": 1, "b": 1, "places": 0, "counts": 0}, whole=True)


def test_boxes_and_scores_have_a_scale_each() -> None:
    """Overlaps are quotients of areas; the threshold of the scores follows."""
    body = """
        boxes = MatMul(x, w4) \n s = MatMul(x, w2) \n scores = Transpose<perm=[0,2,1]>(s)
        n = NonMaxSuppression(boxes, scores, most, overlap, least) \n z = Cast<to=1>(n)
    """
    constants = {"w4": rand(3, 4), "w2": rand(3, 2, seed=1), "most": np.int64(3), "overlap": np.float32(0.3)}
    proto = model(body, {"x": (1, 9, 3)}, constants | {"least": np.float32(0.5)})
    checked = holds(proto, {"boxes": 1, "s": 1, "n": 0})
    assert len(checked.expected["z"]) > 1
    missing = model(body, {"x": (1, 9, 3), "least": ()}, constants)
    refused(missing, "its threshold is not", "s", feed={"x": rand(1, 9, 3), "least": np.array(0.5, np.float32)})


def test_a_single_number_has_no_axis_to_work_along() -> None:
    """Found by the fuzzer: the shape inference of ONNX takes this one for legal."""
    with pytest.raises(
        ModelError, match="value 'x' is a single number, and a node that reads it works along its axis -1"
    ):
        onnxnorm.plan(model("z = LpNormalization(x)", {"x": ()}))
