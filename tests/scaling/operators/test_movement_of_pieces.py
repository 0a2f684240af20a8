"""Operators that join and choose pieces: Concat, Split, Slice, Gather and their kin."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.helpers.graphs import between, feeds, model, rand
from tests.helpers.law_checks import holds, refused
from tests.helpers.scales_check import check_scales

UNKNOWN = "where it moves things is computed from the graph's inputs"


@pytest.mark.parametrize("opset", [7, 13, 21])
@pytest.mark.parametrize("axis", [1, -3])
def test_concat(axis: int, opset: int) -> None:
    if axis < 0 and opset < 11:
        pytest.skip("counting from the end came with opset 11")
    holds(between(f"b = Concat<axis={axis}>(a, a2)", branches=2, opset=opset), {"a": 4, "a2": 4, "b": 8})
    holds(between(f"b = Concat<axis={axis}>(a, a, a)", opset=opset), {"a": 4, "b": 4})


@pytest.mark.parametrize("axis", [2, -1])
def test_concat_of_other_axes(axis: int) -> None:
    """A Conv behind it ties what it reads at one channel."""
    body = f"b = Concat<axis={axis}>(a, a2)"
    checked = holds(between(body, branches=2), {"a": 4, "a2": 4})
    np.testing.assert_array_equal(checked.of_slot[checked.trace.ids["a"]], checked.of_slot[checked.trace.ids["a2"]])
    holds(between(body, branches=2, tail="none"), {"a": 4, "a2": 4, "b": 8})


def test_concat_of_samples_ties_them() -> None:
    """Which sample comes from where depends on how many there are; a slice takes the second, of the first operand."""
    body = "c = Concat<axis=0>(a, a2) \n s = Slice(c, i, j, k) \n b = Mul(s, f)"
    proto = between(body, (2, 4, 3, 3), {"i": [1], "j": [2], "k": [0], "f": rand(4, 1, 1)}, branches=2, batch="N")
    checked = holds(proto, {"a": 4, "a2": 4, "b": 4})
    np.testing.assert_array_equal(checked.of_slot[checked.trace.ids["a"]], checked.of_slot[checked.trace.ids["a2"]])


def test_channels_that_are_folded_into_the_batch_are_tied() -> None:
    body = "f = Reshape(a, fold) \n c = Conv(f, w) \n b = Reshape(c, unfold)"
    constants = {"fold": [-1, 1, 6, 6], "unfold": [-1, 4, 6, 6], "w": rand(1, 1, 1, 1)}
    holds(between(body, constants=constants, batch="N"), {"a": 1, "f": 1, "b": 1})


def test_concat_with_constants() -> None:
    """Numbers stay as they are; zeros fit any scale."""
    for value in (np.ones((2, 2, 6, 6), np.float32), np.zeros((2, 2, 6, 6), np.float32)):
        proto = between("b = Concat<axis=1>(a, k)", constants={"k": value})
        holds(proto, {"a": 4, "b": 4}, whole=True)
    proto = between("b = Concat<axis=2>(a, k)", constants={"k": np.ones((2, 4, 1, 6), np.float32)})
    assert "meets constant" in refused(proto, "meets constant 'k', which stays", whole=True).reasons("a")[0]
    proto = between("b = Concat<axis=2>(a, k)", constants={"k": np.zeros((2, 4, 1, 6), np.float32)})
    holds(proto, {"a": 4, "b": 4}, whole=True)


@pytest.mark.parametrize(
    ("opset", "body"),
    [
        (7, "p, q = Split<axis=1, split=[1,3]>(a)"),
        (11, "p, q = Split<axis=-3>(a)"),
        (13, "p, q = Split<axis=1>(a, sizes)"),
        (18, "p, q = Split<axis=1, num_outputs=2>(a)"),
        (18, "p, q = Split<axis=1>(a, sizes)"),
    ],
)
def test_split(opset: int, body: str) -> None:
    constants = {"sizes": [1, 3]} if "sizes" in body else {}
    proto = between(body + " \n b = Concat<axis=1>(q, p)", constants=constants, opset=opset)
    checked = holds(proto, {"a": 4, "b": 4})
    assert checked.distinct("p") + checked.distinct("q") == 4


def test_split_into_uneven_parts() -> None:
    body = "p, q, r = Split<axis=1, num_outputs=3>(a) \n b = Concat<axis=1>(r, p)"
    holds(between(body, (2, 5, 3, 3), opset=18), {"a": 5, "p": 2, "r": 1, "b": 3})


@pytest.mark.parametrize(
    ("slices", "free"),
    [
        ({"starts": [1], "ends": [3], "axes": [1]}, 2),
        ({"starts": [-2], "ends": [9999], "axes": [-3]}, 2),
        ({"starts": [-1], "ends": [-9999], "axes": [1], "steps": [-1]}, 4),
        ({"starts": [3], "ends": [0], "axes": [1], "steps": [-2]}, 2),
        ({"starts": [0], "ends": [2**63 - 1], "axes": [2], "steps": [2]}, 4),
        ({"starts": [0, 1, 0, 0], "ends": [9, 3, 4, 5]}, 2),
        ({"starts": [1, 0], "ends": [4, 3], "axes": [1, 3], "steps": [2, 1]}, 2),
    ],
    ids=str,
)
@pytest.mark.parametrize("opset", [10, 13])
def test_slice(slices: dict[str, list[int]], free: int, opset: int) -> None:
    proto = between(f"b = Slice(a, {', '.join(slices)})", constants=slices, opset=opset)
    checked = holds(proto, {"b": free})
    assert checked.free("a")


@pytest.mark.parametrize("opset", [7, 9])
def test_slice_by_attributes(opset: int) -> None:
    holds(between("b = Slice<starts=[1], ends=[-1], axes=[1]>(a)", opset=opset), {"b": 2})
    holds(between("b = Slice<starts=[0,1], ends=[2,3]>(a)", opset=opset), {"b": 2})


def test_slice_from_the_graph_pins() -> None:
    proto = between("b = Slice(a, s, e, axes)", constants={"e": [9], "axes": [1]}, inputs={"s": (1,)},
                    input_types={"s": 7}, tail="none")  # fmt: skip
    refused(proto, UNKNOWN, feed=feeds(proto) | {"s": np.array([1])}, whole=True)


@pytest.mark.parametrize("axis", [1, -3])
@pytest.mark.parametrize("indices", [[2, 0], [-1, -1, 0], [[0, 1], [2, 3]]], ids=str)
def test_gather(indices: Any, axis: int) -> None:
    proto = between(f"b = Gather<axis={axis}>(a, i)", constants={"i": indices}, tail="none")
    holds(proto, {"b": len(set(np.array(indices).ravel() % 4))})


def test_gather_of_one() -> None:
    holds(between("b = Gather<axis=1>(a, i)", constants={"i": np.int64(2)}, tail="none"), {"b": 1})
    holds(between("b = Gather<axis=3>(a, i)", constants={"i": np.int64(-1)}, tail="none"), {"b": 4})


def test_gather_from_the_batch() -> None:
    """The second sample, of which the walk knows nothing."""
    holds(between("b = Gather<axis=0>(a, i)", constants={"i": [1, 0]}), {"a": 4, "b": 4})


def test_gather_at_places_from_the_graph() -> None:
    """Along an axis on which no scale varies they need not be known."""
    inputs, kinds = {"i": (2,)}, {"i": 7}
    proto = between("b = Gather<axis=2>(a, i)", inputs=inputs, input_types=kinds)
    holds(proto, {"a": 4, "b": 4}, feed=feeds(proto) | {"i": np.array([5, 1])}, whole=True)
    proto = between("b = Gather<axis=1>(a, i)", inputs=inputs, input_types=kinds)
    refused(proto, UNKNOWN, feed=feeds(proto) | {"i": np.array([3, 1])}, whole=True)


def test_gather_elements() -> None:
    index = np.zeros((1, 4, 6, 6), np.int64) + np.arange(4).reshape(1, 4, 1, 1)[:, ::-1]
    holds(between("b = GatherElements<axis=1>(a, i)", (1, 4, 6, 6), {"i": index}), {"b": 4})
    index = np.random.default_rng(0).integers(0, 4, (1, 4, 6, 6))
    holds(between("b = GatherElements<axis=1>(a, i)", (1, 4, 6, 6), {"i": index}))


def test_gather_nd() -> None:
    body = "t = Transpose<perm=[1,0,2,3]>(a) \n g = GatherND(t, i) \n b = Transpose<perm=[1,0,2,3]>(g)"
    holds(between(body, constants={"i": [[2], [0], [-1]]}), {"a": 4, "b": 3})
    holds(between("b = GatherND<batch_dims=1>(a, i)", (1, 4, 3, 3), {"i": [[[3], [1]]]}), {"b": 2})


def test_compress() -> None:
    constants = {"c": np.array([True, False, True, True])}
    holds(between("b = Compress<axis=1>(a, c)", constants=constants, tail="none"), {"b": 3})
    proto = between("b = Compress<axis=1>(a, c)", inputs={"c": (4,)}, input_types={"c": 9}, tail="none")
    refused(proto, UNKNOWN, feed=feeds(proto) | {"c": constants["c"]}, whole=True)


def test_empty_tensors_constrain_nothing() -> None:
    proto = between("e = Slice(a, i, j, k) \n b = Concat<axis=1>(e, a)", constants={"i": [0], "j": [0], "k": [1]})
    holds(proto, {"a": 4, "b": 4})
    body = "e = Slice(a, i, j, k) \n r = Relu(e) \n b = Concat<axis=1>(r, a, e, a)"
    holds(between(body, constants={"i": [4], "j": [9], "k": [1]}), {"a": 4, "b": 4})


def test_what_may_have_elements_for_another_size_pins() -> None:
    body = "a = Conv(x, w) \n e = Slice(a, i, j, k) \n c = Concat<axis=2>(e, a) \n z = Relu(c)"
    constants = {"w": rand(4, 3, 1, 1), "i": [6], "j": [9], "k": [2]}
    proto = model(body, {"x": ("n", 3, "h", 6)}, constants)
    refused(proto, "for this size of the input", feed={"x": rand(2, 3, 6, 6)})


def test_gather_from_a_vector_with_a_scalar_index() -> None:
    """An element of a value of rank 1 has no axes left; one of a single element too, whose only scale it has."""
    for count, index in ((4, 2), (1, 0)):
        body = "p = ReduceMean(a, axes) \n s = Squeeze(p) \n f = Reshape(s, flat) \n g = Gather(f, k) \n b = Mul(a, g)"
        constants = {"axes": [0, 2, 3], "flat": [count], "k": np.array(index)}
        proto = between(body, (2, count, 6, 6), constants=constants)
        check_scales(proto, feeds(proto))
