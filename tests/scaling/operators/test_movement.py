"""Operators that rearrange data: Reshape, Transpose, DepthToSpace and their kin."""

from __future__ import annotations

import numpy as np
import pytest

from tests.helpers.graphs import between, feeds, model, rand
from tests.helpers.law_checks import holds, refused

UNKNOWN = "where it moves things is computed from the graph's inputs"


@pytest.mark.parametrize(
    ("to", "free"),
    [
        ([0, -1], 4),
        ([0, 4, 36], 4),
        ([-1, 4, 36], 4),
        ([0, 0, -1], 4),
        ([0, 2, 2, 6, 6], 4),
        ([-1, 12, 12], 4),
        ([-1, 6], 4),
    ],
    ids=str,
)
def test_reshape(to: list[int], free: int) -> None:
    holds(between("b = Reshape(a, to)", constants={"to": to}, tail="none"), {"a": free, "b": free}, whole=True)


def test_reshape_to_the_vector_of_a_classifier() -> None:
    holds(between("b = Reshape(a, to)", constants={"to": [-1, 144]}), {"a": 4, "b": 4})


@pytest.mark.parametrize("opset", [7, 13, 21])
def test_reshape_to_a_computed_shape(opset: int) -> None:
    unsqueeze = "Unsqueeze<axes=[0]>(n)" if opset < 13 else "Unsqueeze(n, first)"
    body = f"""
        s = Shape(a) \n n = Gather(s, zero) \n u = {unsqueeze} \n t = Concat<axis=0>(u, rest) \n r = Reshape(a, t)
        b = MatMul(r, w)
    """
    constants = {"zero": np.int64(0), "rest": [-1], "w": rand(144, 5)} | ({"first": [0]} if opset >= 13 else {})
    holds(between(body, constants=constants, opset=opset, tail="none"), {"a": 4, "b": 5})


def test_reshape_to_a_shape_by_arithmetic() -> None:
    body = """
        s = Shape(a) \n n, c, h, w = Split<axis=0>(s) \n hw = Mul(h, w) \n half = Div(c, two) \n
        t = Concat<axis=0>(n, two, half, hw) \n r = Reshape(a, t) \n q = Transpose<perm=[0,2,1,3]>(r) \n
        b = Reshape(q, s)
    """
    holds(between(body, constants={"two": [2]}, opset=13, tail="none"), {"a": 4, "b": 4})


def test_reshape_from_the_graph_pins() -> None:
    proto = between("b = Reshape(a, to)", inputs={"to": (2,)}, input_types={"to": 7}, tail="none")
    refused(proto, UNKNOWN, feed=feeds(proto) | {"to": np.array([2, 144])}, whole=True)


@pytest.mark.parametrize("axis", [1, -3, 0, 2, 4])
def test_flatten(axis: int) -> None:
    holds(between(f"b = Flatten<axis={axis}>(a)", tail="none"), {"a": 4, "b": 4}, whole=True)


@pytest.mark.parametrize("opset", [7, 9, 13])
def test_flatten_before_a_dense_layer(opset: int) -> None:
    """Its channels are 36 inputs each."""
    constants = {"w": rand(5, 144), "c": rand(5)}
    proto = between("f = Flatten(a) \n b = Gemm<transB=1>(f, w, c)", constants=constants, opset=opset)
    holds(proto, {"a": 4, "f": 4, "b": 5})


@pytest.mark.parametrize("attributes", ["", "<perm=[0,2,3,1]>", "<perm=[1,0,3,2]>", "<perm=[0,1,2,3]>"])
def test_transpose(attributes: str) -> None:
    holds(between(f"b = Transpose{attributes}(a)", tail="none"), {"a": 4, "b": 4})


def test_there_and_back_with_channels_last() -> None:
    body = """
        t = Transpose<perm=[0,2,3,1]>(a) \n m = Mul(t, k) \n p = Add(m, c) \n r = Relu(p) \n d = MatMul(r, w)
        b = Transpose<perm=[0,3,1,2]>(d)
    """
    constants = {"k": rand(4), "c": rand(4), "w": rand(4, 5)}
    holds(between(body, constants=constants), {"a": 4, "r": 4, "b": 5})


@pytest.mark.parametrize("opset", [7, 11, 13])
def test_squeeze_and_unsqueeze(opset: int) -> None:
    squeeze = "Squeeze<axes=[2,3]>(g)" if opset < 13 else "Squeeze(g, axes)"
    unsqueeze = "Unsqueeze<axes=[2,3]>(s)" if opset < 13 else "Unsqueeze(s, axes)"
    body = f"g = GlobalAveragePool(a) \n s = {squeeze} \n b = {unsqueeze}"
    constants = {"axes": [2, 3]} if opset >= 13 else {}
    holds(between(body, constants=constants, opset=opset), {"a": 4, "s": 4, "b": 4})


@pytest.mark.parametrize("axes", [[-1], [-3, -1], [1, 5], [0]], ids=str)
def test_unsqueeze_anywhere(axes: list[int]) -> None:
    body = "u = Unsqueeze(a, axes) \n r = Relu(u) \n b = Squeeze(r, axes)"
    holds(between(body, constants={"axes": axes}), {"a": 4, "u": 4, "b": 4})
    text = str(axes).replace(" ", "")
    body = f"u = Unsqueeze<axes={text}>(a) \n r = Relu(u) \n b = Squeeze<axes={text}>(r)"
    holds(between(body, opset=11), {"a": 4, "u": 4, "b": 4})


def test_squeeze_of_what_is_1() -> None:
    """It names no axis, so the sizes of the batch decide: a batch of 1 loses its axis."""
    body = "g = GlobalAveragePool(a) \n b = Squeeze(g)"
    holds(between(body, tail="none"), {"a": 4, "b": 4}, whole=True)
    holds(between(body, (1, 4, 3, 3), tail="none"), {"a": 4, "b": 4})
    holds(between("b = Squeeze(a)", (1, 1, 3, 3), tail="none"), {"a": 1, "b": 1})


def test_expand() -> None:
    body = "g = GlobalAveragePool(a) \n b = Expand(g, to)"
    holds(between(body, constants={"to": [1, 1, 3, 2]}), {"a": 4, "b": 4})
    holds(between(body, constants={"to": [3, 1, 1, 2, 3]}, tail="none"), {"a": 4, "b": 4}, whole=True)
    body = "m = ReduceMean<axes=[1]>(a) \n b = Expand(m, to)"
    holds(between(body, constants={"to": [1, 5, 1, 1]}, opset=17), {"a": 1, "b": 1})


@pytest.mark.parametrize("repeats", [[1, 1, 2, 1], [1, 3, 1, 1], [2, 1, 1, 1], [1, 2, 2, 1]], ids=str)
def test_tile(repeats: list[int]) -> None:
    holds(between("b = Tile(a, r)", constants={"r": repeats}), {"a": 4, "b": 4})


@pytest.mark.parametrize("attributes", ["blocksize=2", 'blocksize=2, mode="DCR"', 'blocksize=2, mode="CRD"'])
@pytest.mark.parametrize("opset", [11, 13])
def test_depth_to_space(attributes: str, opset: int) -> None:
    """Four channels become one image, so a convolution behind it ties them."""
    proto = between(f"b = DepthToSpace<{attributes}>(a)", (2, 8, 3, 3), opset=opset)
    holds(proto, {"a": 2})
    proto = between(f"b = DepthToSpace<{attributes}>(a)", (2, 8, 3, 3), opset=opset, tail="none")
    holds(proto, {"a": 8, "b": 8})


def test_depth_to_space_in_opset_7() -> None:
    holds(between("b = DepthToSpace<blocksize=2>(a)", (2, 8, 3, 3), opset=7), {"a": 2})


def test_space_to_depth() -> None:
    holds(between("b = SpaceToDepth<blocksize=2>(a)"), {"a": 4, "b": 4})
    holds(between("s = SpaceToDepth<blocksize=3>(a) \n b = DepthToSpace<blocksize=3>(s)"), {"a": 4, "s": 4, "b": 4})


def test_channel_shuffle() -> None:
    body = """
        r = Reshape(a, apart) \n t = Transpose<perm=[0,2,1,3,4]>(r) \n s = Reshape(t, whole)
        b = Conv<group=2>(s, w)
    """
    constants = {"apart": [0, 2, 3, 5, 5], "whole": [0, 6, 5, 5], "w": rand(4, 3, 1, 1)}
    holds(between(body, (2, 6, 5, 5), constants), {"a": 6, "s": 6, "b": 4})


@pytest.mark.parametrize(("attributes", "k"), [("", None), ("upper=0", 1), ("upper=1", -1)])
def test_trilu(attributes: str, k: int | None) -> None:
    constants = {} if k is None else {"k": np.int64(k)}
    body = f"b = Trilu<{attributes}>(a{', k' if constants else ''})"
    holds(between(body, constants=constants, opset=14), {"a": 4, "b": 4})


def test_trilu_over_channels() -> None:
    body = "t = Transpose<perm=[0,3,2,1]>(a) \n b = Trilu(t)"
    holds(between(body, constants={}, opset=14, tail="none"), {"a": 4, "b": 4})


def test_reverse_sequence() -> None:
    body = "t = Transpose<perm=[2,0,1,3]>(a) \n b = ReverseSequence(t, n)"
    holds(between(body, constants={"n": [2, 5]}, tail="none"), {"a": 4, "b": 4})
    body = "t = Transpose<perm=[1,0,2,3]>(a) \n b = ReverseSequence(t, n)"
    holds(between(body, constants={"n": [2, 3]}, tail="none"), {"a": 1, "b": 1})


def test_what_the_reference_cannot_run_pins() -> None:
    """The walk sees one sample, the model wants two."""
    proto = between("b = Reshape(a, to)", constants={"to": [2, 2, 72]}, tail="none")
    refused(proto, "ONNX's reference implementation does not run it")
    holds(proto, {"a": 4, "b": 4}, whole=True)


def test_slices_of_padding() -> None:
    """A slice that is padding alone is zero; it gets a scale where it gets a number."""
    body = "p = Pad(a, pads) \n s = Slice(p, i, j, k) \n t = Add(s, c) \n b = Relu(t)"
    constants = {"pads": [0, 2, 0, 0, 0, 0, 0, 0], "i": [0], "j": [2], "k": [1], "c": rand(2, 1, 1)}
    holds(between(body, constants=constants), {"s": 0, "t": 1})


def test_vectors_and_numbers() -> None:
    proto = model(
        "a = MatMul(x, w) \n r = Reshape(a, to) \n s = Slice(r, i, j, k) \n t = Transpose(s) \n g = Gather(a, one) \n"
        "u = Unsqueeze(g, first) \n c = Concat<axis=0>(a, u) \n z = Mul(c, c2) \n y = Identity(t)",
        {"x": (3,)},
        {
            "w": rand(3, 4),
            "to": [2, 2],
            "i": [1],
            "j": [2],
            "k": [1],
            "one": np.int64(1),
            "first": [0],
            "c2": rand(5),
        },
        ("z", "y"),
    )
    holds(proto, {"a": 4, "z": 5, "y": 2, "g": 1}, whole=True)


@pytest.mark.parametrize("size", [1, 2])
def test_axes_of_size_1(size: int) -> None:
    body = "t = Transpose<perm=[0,2,3,1]>(a) \n r = Reshape(t, to) \n b = Reshape(r, back)"
    holds(between(body, (size, 1, 1, 1), {"to": [0, -1], "back": [0, 1, 1, 1]}), {"a": 1, "b": 1})


def test_types() -> None:
    """Slots have one type, values any."""
    body = "h = Cast<to=10>(a) \n t = Transpose<perm=[0,2,3,1]>(h) \n p = Pad(t, pads, v) \n b = Cast<to=1>(p)"
    constants = {"pads": [0, 0, 0, 1, 0, 0, 0, 1], "v": np.float16(0)}
    holds(between(body, constants=constants, tail="none"), {"a": 4, "b": 4}, rtol=2 * float(np.finfo(np.float16).eps))


def test_what_moves_too_many_elements_pins(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small file can declare a tensor whose slots would fill the memory."""
    proto = between("t = Transpose<perm=[0,2,1,3]>(a) \n b = DepthToSpace<blocksize=2>(t)", (2, 4, 4, 6), tail="none")
    assert holds(proto).free("a")
    monkeypatch.setattr("onnxnorm.scaling.operators.movement._MOST_ELEMENTS", 20)
    refused(proto, "moves more than 20 elements")


LARGE = [
    ("b = DepthToSpace<blocksize=2>(a)", (2, 8, 3, 3), 8, 2),  # whose channels are in turn along H and W
    ('b = DepthToSpace<blocksize=2, mode="CRD">(a)', (2, 8, 3, 3), 8, 2),
    ("b = SpaceToDepth<blocksize=2>(a)", (2, 4, 6, 6), 4, 4),
    ("s = SpaceToDepth<blocksize=3>(a) \n b = DepthToSpace<blocksize=3>(s)", (2, 4, 6, 6), 4, 4),
    ("b = Tile(a, r)", (2, 4, 6, 6), 4, 4),
]


@pytest.mark.parametrize(("body", "shape", "free", "large"), LARGE, ids=[case[0].split("(")[0] for case in LARGE])
def test_blocks_of_a_large_image(
    body: str, shape: tuple[int, ...], free: int, large: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Slots of one block are moved if those of all would be too many."""
    constants = {"r": [1, 3, 2, 1]} if "Tile" in body else {}
    proto = between(body, shape, constants, tail="none")
    holds(proto, {"a": free})
    monkeypatch.setattr("onnxnorm.scaling.operators.movement._MOST_ELEMENTS", 60)
    holds(proto, {"a": large})
    monkeypatch.setattr("onnxnorm.scaling.operators.movement._MOST_ELEMENTS", 3)
    refused(proto, "moves more than 3 elements")


@pytest.mark.parametrize(("most", "free"), [(1 << 24, 4), (8, 2)])
def test_groups_of_channels_of_a_large_image(most: int, free: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Channels of a group share a scale if its slots are too many to write out, as behind its norm anyway."""
    monkeypatch.setattr("onnxnorm.scaling.operators.movement._MOST_ELEMENTS", most)
    constants = {"groups": [0, 2, -1], "back": [0, 4, 6, 6], "axis": [2]}
    there, back = "g = Reshape(a, groups)", "b = Reshape(g, back)"
    holds(between(f"{there} \n {back}", constants=constants), {"a": free, "b": free})
    normed = f"{there} \n m = ReduceMax(g, axis) \n d = Sub(g, m) \n b = Reshape(d, back)"
    holds(between(normed, constants=constants), {"a": 2, "b": 2})
