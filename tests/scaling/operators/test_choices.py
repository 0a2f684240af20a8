"""Operators that compare, choose, put, turn or transform elements: scales are tied along the axes that they work on."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

from onnxnorm.errors import ModelError
from onnxnorm.model.files import Model
from onnxnorm.model.shapes import read_graph
from onnxnorm.scaling import trace
from tests.helpers.graphs import between, floats, model, rand
from tests.helpers.law_checks import free_scales, holds, refused
from tests.helpers.runtimes import recent

TURNED = "t = Transpose<perm=[0,2,3,1]>(a) \n"


@pytest.mark.parametrize(("axis", "free"), [(1, 1), (2, 4), (-1, 4), (-3, 1)])
@pytest.mark.parametrize("op", ["ArgMax", "ArgMin"])
def test_positions_have_no_scale(op: str, axis: int, free: int) -> None:
    checked = holds(between(f"i = {op}<axis={axis}>(a) \n b = Cast<to=1>(i)"), {"a": free, "i": 0})
    assert checked.reasons("i") == ["it points at elements"]


@pytest.mark.parametrize(("axis", "free"), [(1, 1), (3, 4)])
@pytest.mark.parametrize("opset", [10, 11, 21])
def test_top_values_pass_scales(opset: int, axis: int, free: int) -> None:
    proto = between(f"b, i = TopK<axis={axis}>(a, n)", constants={"n": [2]}, opset=opset, outputs=["i"])
    checked = holds(proto, {"a": free, "b": free, "i": 0})
    assert checked.reasons("i") == ["it counts or points at elements, so it has no scale"]


@pytest.mark.parametrize(("opset", "axis", "free"), [(11, 1, 1), (11, 2, 4), (13, 1, 1), (13, 3, 4)])
def test_hardmax(opset: int, axis: int, free: int) -> None:
    """Before opset 13 it works on all axes from the stated one on."""
    holds(between(f"b = Hardmax<axis={axis}>(a)", opset=opset, tail="none"), {"a": free, "b": 0})
    body = f"{TURNED} b = Hardmax<axis=2>(t)"
    holds(between(body, opset=opset, tail="none"), {"a": 1 if opset < 13 else 4, "b": 0})


def test_where_elements_are_not_0() -> None:
    """Scales do not matter to that."""
    holds(between("r = Relu(a) \n i = NonZero(r) \n b = Cast<to=1>(i)", tail="none"), {"a": 4, "b": 0}, whole=True)


def test_choices_of_unknown_shapes_are_refused() -> None:
    body = "n = ReduceSum(x) \n g = Cast<to=7>(n) \n c = Concat<axis=0>(g, rest) \n r = Expand(y, c) \n"
    held = {"one": [1], "rest": [3, 6, 6], "w": rand(4, 3, 1, 1), "k": [1]}
    for op in ("z = ArgMax<axis=1>(a)", "z, j = TopK(a, k)", "z = Hardmax(a)"):
        proto = model(f"{body} a = Conv(r, w) \n {op}", {"x": (2,), "y": (1, 3, 6, 6)}, held)
        refused(proto, "the shape of its input is not known", feed={"x": floats([1, 1]), "y": rand(1, 3, 6, 6)})


# --- putting -------------------------------------------------------------------------------------------------------

PLACES = {"i": np.asarray([0, 3, 1]).reshape(1, 1, 3, 1) * np.ones((2, 4, 1, 6), np.int64)}


@pytest.mark.parametrize("reduction", ["none", "add", "max", "min"])
def test_scattered_activations_are_tied_to_the_data(reduction: str) -> None:
    put = f'b = ScatterElements<axis=2, reduction="{reduction}">(a, i, u)'
    body = f"u = MaxPool<kernel_shape=[2,1], strides=[2,1]>(a2) \n {put}"
    holds(between(body, constants=PLACES, branches=2), {"a": 4, "a2": 4, "b": 4}, whole=True)


def test_scattered_along_channels_ties_them() -> None:
    index = {
        "i": np.asarray([0, 3]).reshape(1, 2, 1, 1) * np.ones((2, 1, 6, 6), np.int64),
        "n": [2],
        "o": [0],
        "e": [1],
    }
    body = "u = Slice(a2, o, n, e) \n b = ScatterElements<axis=1>(a, i, u)"
    holds(between(body, constants=index, branches=2), {"a": 1, "b": 1}, whole=True)


def test_scattered_into_a_part_of_another_axis_ties_that() -> None:
    """Updates for the first two channels only."""
    index = {"i": np.ones((2, 2, 1, 6), np.int64), "n": [2, 1], "o": [0, 0], "e": [1, 2]}
    holds(between("u = Slice(a2, o, n, e) \n b = ScatterElements<axis=2>(a, i, u)", constants=index, branches=2),
          {"a": 1, "b": 1}, whole=True)  # fmt: skip


def test_scattered_constants_follow() -> None:
    body = "b = ScatterElements<axis=2>(a, i, u)"
    held = PLACES | {"u": rand(2, 4, 3, 6)}
    holds(between(body, constants=held), {"a": 4, "b": 4}, whole=True)
    holds(between(body, constants=PLACES | {"u": np.zeros((2, 4, 3, 6), np.float32)}), {"a": 4, "b": 4}, whole=True)
    into = "u = MaxPool<kernel_shape=[2,1], strides=[2,1]>(a) \n b = ScatterElements<axis=2>(d, i, u)"
    holds(between(into, constants=PLACES | {"d": rand(2, 4, 6, 6)}), {"a": 4, "b": 4}, whole=True)


@pytest.mark.parametrize("shape", [(2, 4, 1), (1, 2, 4, 3, 6), ()])
def test_scattered_values_with_another_number_of_axes_are_not_legal(shape: tuple[int, ...]) -> None:
    body = "b = ScatterElements<axis=2>(a, i, u)"
    for scalar in (False, True):
        held = PLACES | {"u": rand(*shape)}
        graph = between(
            "s = ReduceMax<keepdims=0>(a) \n b = ScatterElements(s, i, u)" if scalar else body, constants=held
        )
        with pytest.raises(ModelError, match="which must have as many axes, and one at least"):
            trace(read_graph(Model.open(graph), {"x": (2, 3, 8, 8)}))


def test_scatter_of_opset_9() -> None:
    body = "u = MaxPool<kernel_shape=[2,1], strides=[2,1]>(a2) \n b = Scatter<axis=2>(a, i, u)"
    holds(between(body, constants=PLACES, branches=2, opset=10), {"a": 4, "b": 4}, whole=True)


@pytest.mark.parametrize(("index", "free"), [([[0, 1], [1, 2]], 1), ([[0], [1]], 4)])
def test_scattered_blocks(index: list[list[int]], free: int) -> None:
    """Blocks `(H, W)` at a sample and a channel; or `(C, H, W)` at a sample."""
    update = "g = Gather<axis=1>(a2, k)" if free == 1 else "g = Identity(a2)"
    body = f"{update} \n b = ScatterND(a, i, g)"
    held = {"i": index} | ({"k": np.int64(1)} if free == 1 else {})
    holds(between(body, (2, 4, 6, 6), held, branches=2), {"a": free, "b": free}, whole=True)


@pytest.mark.parametrize(
    "op", ['ScatterElements<axis=2, reduction="mul">(a, i, u)', 'ScatterND<reduction="mul">(a, j, v)']
)
def test_multiplied_into_is_refused(op: str) -> None:
    held = PLACES | {"u": rand(2, 4, 3, 6), "j": [[0]], "v": rand(1, 4, 6, 6)}
    proto = between(f"b = {op}", constants={name: value for name, value in held.items() if f" {name}" in op})
    refused(proto, "it multiplies values into others", whole=True)


# --- turning, transforming -----------------------------------------------------------------------------------------


def rotary(attributes: str, shape: tuple[int, ...], turned: int, **constants: Any) -> Any:
    """Behind a layer over the last axis."""
    held: dict[str, Any] = {
        "w": rand(3, shape[-1]),
        "k": rand(*shape[-1:], seed=1),
        "c": rand(1, 5, turned // 2, seed=2),
    }
    held["s"] = rand(1, 5, turned // 2, seed=3)
    source = (*shape[:-1], 3)
    body = f"a = MatMul(x, w) \n b = RotaryEmbedding<{attributes}>(a, c, s) \n z = Mul(b, k)"
    return model(body, {"x": source}, held | constants, opset=23)


@pytest.mark.parametrize(
    ("attributes", "shape", "turned", "free"),
    [
        ("interleaved=0", (1, 2, 5, 8), 8, 4),
        ("interleaved=1", (1, 2, 5, 8), 8, 4),
        pytest.param("interleaved=0, rotary_embedding_dim=4", (1, 2, 5, 8), 4, 6, marks=recent),
        ("num_heads=2", (1, 5, 16), 8, 8),
        ("num_heads=2, interleaved=1, rotary_embedding_dim=4", (1, 5, 16), 4, 12),
    ],
)
def test_rotary_embedding_ties_pairs(attributes: str, shape: tuple[int, ...], turned: int, free: int) -> None:
    holds(rotary(attributes, shape, turned), {"a": free, "b": free})


def test_angles_that_are_computed_keep_scale_1() -> None:
    proto = between("b = RotaryEmbedding(a, a2, a2)", (1, 2, 5, 8), branches=2, opset=23, tail="none")
    found = trace(read_graph(Model.open(proto), {"x": (1, 3, 5, 8)}), "scale")
    assert found.groups.is_pinned(found.ids["a2"]).all()
    assert not found.groups.is_pinned(found.ids["a"]).any()


@pytest.mark.parametrize("opset", [17, 20])
@pytest.mark.parametrize(("axis", "free"), [(1, 1), (2, 4)])
def test_a_transform_ties_its_axis(opset: int, axis: int, free: int) -> None:
    body = f"d = DFT<axis={axis}>(r)" if opset < 20 else "d = DFT(r, , axis)"
    held: dict[str, Any] = {"e": [-1], **({"axis": np.int64(axis)} if opset >= 20 else {})}
    proto = between(f"r = Unsqueeze(a, e) \n {body} \n b = Abs(d)", (2, 4, 8), held, opset=opset, tail="none")
    holds(proto, {"a": free, "b": free})


def test_a_transform_of_frames_ties_the_signal() -> None:
    body = "p = Transpose<perm=[1,0,2]>(a) \n f = Reshape(p, to) \n b = STFT(f, step, win)"
    held = {"to": [4, 8, 1], "step": np.int64(2), "win": np.abs(rand(4))}
    holds(between(body, (1, 4, 8), held, tail="none"), {"a": 4, "b": 4})


def test_the_rest_of_a_division() -> None:
    """`fmod` follows one scale."""
    one, each = np.full((), 0.75, np.float32), np.abs(rand(4, 1, 1))
    holds(between("b = Mod<fmod=1>(a, k)", constants={"k": one}, tail="none"), {"a": 1, "b": 1})
    holds(between("b = Mod<fmod=1>(a, k)", constants={"k": each}, tail="none"), {"a": 4, "b": 4})


@pytest.mark.skipif(onnx.defs.onnx_opset_version() < 28, reason="it came with opset 28")
@pytest.mark.parametrize(("level", "gates"), [("constants", 0), ("attributes", 1)])
def test_swiglu(level: Any, gates: int) -> None:
    """The gate keeps its scale, or has one that alpha follows; the value's scales pass. The runtime lacks it."""
    proto = between("b = SwiGLU(a, a2)", branches=2, opset=28, tail="none")
    found = trace(read_graph(Model.open(proto), {"x": (1, 3, 6, 6)}), "scale", level)
    groups = {name: set(found.groups.of[found.ids[name]].reshape(-1).tolist()) for name in ("a", "a2", "b")}
    free = {name: sum(found.groups.pinned[group] < 0 for group in each) for name, each in groups.items()}
    assert free == {"a": gates, "a2": 4, "b": 4}


# --- named axes ----------------------------------------------------------------------------------------------------

EQUATIONS = [
    ("nchw,cd->ndhw", {"w": rand(4, 5)}, 4, 5),
    ("nchw,dc->ndhw", {"w": rand(5, 4)}, 4, 5),
    ("nchw, ck -> nhwk", {"w": rand(4, 5)}, 4, 5),
    ("nchw,w->nch", {"w": rand(6)}, 1, 1),
    ("nchw,c->nchw", {"w": rand(4)}, 4, 4),
    ("nchw,cw->nhw", {"w": rand(4, 6)}, 4, 6),
    ("nchw,chwd->nd", {"w": rand(4, 6, 6, 3)}, 4, 3),
    ("nchw,d->nd", {"w": rand(3)}, 1, 3),
]


@pytest.mark.parametrize(("equation", "held", "read", "written"), EQUATIONS, ids=[row[0] for row in EQUATIONS])
def test_einsum_with_a_constant(equation: str, held: dict[str, Any], read: int, written: int) -> None:
    proto = between(f'b = Einsum<equation="{equation}">(a, w)', constants=held, tail="none")
    holds(proto, {"a": read, "b": written})


def test_einsum_with_the_constant_first_and_an_implicit_output() -> None:
    proto = between('b = Einsum<equation="dc,nchw->ndhw">(w, a)', constants={"w": rand(5, 4)}, tail="none")
    holds(proto, {"a": 4, "b": 5})
    proto = between('b = Einsum<equation="acef,cd">(a, w)', constants={"w": rand(4, 5)}, tail="none")
    holds(proto, {"a": 4, "b": 5})


@pytest.mark.parametrize(
    ("equation", "held", "read", "written"),
    [
        ("n...w,w->n...", {"w": rand(6)}, 1, 1),
        ("nc...,cd->nd...", {"w": rand(4, 5)}, 4, 5),
        ("nc...,cd", {"w": rand(4, 5)}, 4, 5),
        ("...hw,...->...hw", {"w": rand(1, 4)}, 4, 4),
    ],
)
def test_an_ellipsis_stands_for_labels(equation: str, held: dict[str, Any], read: int, written: int) -> None:
    proto = between(f'b = Einsum<equation="{equation}">(a, w)', constants=held, tail="none")
    holds(proto, {"a": read, "b": written})


@pytest.mark.parametrize(
    ("equation", "read", "written"),
    [
        ("nchw,nchw->nchw", 4, 4),
        ("nchw,nchw->nc", 4, 4),
        ("nchw,ndhw->ncd", 4, 16),
        ("...hw,...hw", 4, 4),
        ("nchw,ncwk->nchk", 4, 4),
    ],
)
def test_einsum_of_two_activations_multiplies_scales(equation: str, read: int, written: int) -> None:
    proto = between(f'b = Einsum<equation="{equation}">(a, a2)', branches=2, tail="none")
    holds(proto, {"a": read, "a2": read, "b": written}, rtol=1e-6)


@pytest.mark.parametrize("equation", ["nchw,nchw->nhw", "nchw,nchw->n", "nchw,nchw"])
def test_scales_agree_in_products_that_are_summed(equation: str) -> None:
    checked = holds(between(f'b = Einsum<equation="{equation}">(a, a2)', branches=2, tail="none"), rtol=1e-6)
    product = checked.of_slot[checked.trace.ids["a"]] * checked.of_slot[checked.trace.ids["a2"]]
    assert np.ptp(product) == 0
    assert np.ptp(checked.of_slot[checked.trace.ids["a"]]) > 0


@pytest.mark.parametrize(("equation", "free"), [("nchw->nc", 4), ("nchw->nhwc", 4), ("nchw->nhw", 1), ("nchh->nc", 4)])
def test_einsum_of_one_activation(equation: str, free: int) -> None:
    holds(between(f'b = Einsum<equation="{equation}">(a)', tail="none"), {"a": free, "b": free}, rtol=1e-6)


def test_a_diagonal_of_channels_has_their_scales() -> None:
    """Rows and columns of a matrix have scales of their own; an element of its diagonal has the product."""
    body = 'm = Einsum<equation="nchw,ndhw->ncd">(a, a2) \n b = Einsum<equation="ncc->nc">(m)'
    checked = holds(between(body, branches=2, tail="none"), {"a": 4, "a2": 4, "b": 4}, rtol=1e-6)
    product = checked.of_slot[checked.trace.ids["a"]] * checked.of_slot[checked.trace.ids["a2"]]
    np.testing.assert_array_equal(product.ravel(), checked.of_slot[checked.trace.ids["b"]].ravel())


def test_an_equation_for_another_number_of_inputs() -> None:
    """Inference overlooks it where a shape is not known."""
    proto = between('u = Identity(a) \n b = Einsum<equation="nchw">(u, w)', constants={"w": rand(4, 4)}, tail="none")
    proto.graph.node[-1].input[0] = proto.graph.node[-2].output[0] = "unknown"
    next(node for node in proto.graph.node if "unknown" in node.output).domain = "own"
    proto.opset_import.add(domain="own", version=1)
    found = trace(read_graph(Model.open(proto), {"x": (2, 3, 8, 8)}))
    assert "its equation is for another number of inputs" in {barrier.reason for barrier in found.groups.barriers}


def test_einsum_of_three() -> None:
    proto = between(
        'b = Einsum<equation="nchw,nchw,c->nc">(a, a2, w)', constants={"w": rand(4)}, branches=2, tail="none"
    )
    holds(proto, {"a": 4, "a2": 4, "b": 4}, rtol=1e-6)


def test_einsum_with_a_constant_that_may_not_change() -> None:
    body = 'k = Tanh(w) \n b = Einsum<equation="nchw,cd->ndhw">(a, k)'
    holds(between(body, constants={"w": rand(4, 5)}), {"a": 1, "b": 1}, rtol=1e-6)


def test_einsum_of_many_products_ties_what_is_summed() -> None:
    """There are too many products, 66 by 66 by 66 of them, to look at one by one."""
    body = 'm = Einsum<equation="nchw,ndhw->ncd">(a, a2) \n b = Einsum<equation="ncd,ned->nce">(m, m)'
    checked = holds(between(body, (1, 66, 1, 1), branches=2, tail="none"), rtol=1e-5)
    assert free_scales(checked, "a") == 66
    assert free_scales(checked, "a2") == 1
