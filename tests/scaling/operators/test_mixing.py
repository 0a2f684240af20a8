"""Operators that mix channels with constant weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from onnxnorm.model.files import Model
from onnxnorm.model.shapes import read_graph
from onnxnorm.scaling import find_layers, trace
from tests.helpers.graphs import between, model, rand
from tests.helpers.law_checks import RUNTIME, holds


@pytest.mark.parametrize("opset", [7, 11, 21, 22])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("spatial", [(9,), (6, 5), (4, 3, 5)])
def test_conv(spatial: tuple[int, ...], bias: bool, opset: int) -> None:
    constants = {"w": rand(6, 4, *[3] * len(spatial))} | ({"v": rand(6)} if bias else {})
    holds(between(f"b = Conv(a, w{', v' if bias else ''})", (2, 4, *spatial), constants, opset=opset), {"a": 4, "b": 6})


@pytest.mark.parametrize(
    "attributes",
    [
        "strides=[2,2]",
        "dilations=[2,2]",
        "pads=[1,0,2,1]",
        'auto_pad="SAME_UPPER"',
        'auto_pad="SAME_LOWER", strides=[2,2]',
        'auto_pad="VALID"',
    ],
)
def test_conv_attributes(attributes: str) -> None:
    constants = {"w": rand(6, 4, 3, 3), "v": rand(6)}
    holds(between(f"b = Conv<{attributes}>(a, w, v)", (2, 4, 7, 7), constants), {"a": 4, "b": 6})


@pytest.mark.parametrize(("group", "channels", "filters"), [(2, 4, 6), (4, 4, 4), (4, 4, 8), (3, 6, 3), (1, 1, 2)])
def test_conv_group(group: int, channels: int, filters: int) -> None:
    constants = {"w": rand(filters, channels // group, 3, 3), "v": rand(filters)}
    proto = between(f"b = Conv<group={group}>(a, w, v)", (2, channels, 5, 5), constants)
    holds(proto, {"a": channels, "b": filters})


@pytest.mark.parametrize(
    ("attributes", "group", "per_group"),
    [
        ("", 1, 6),
        ("group=2", 2, 3),
        ("group=4", 4, 1),
        ("strides=[2,2], output_padding=[1,1]", 1, 5),
        ("group=2, strides=[2,3], pads=[1,1,1,1], dilations=[1,2]", 2, 2),
        ('auto_pad="SAME_UPPER", strides=[2,2]', 1, 3),
        ("strides=[2,2], output_shape=[9,10]", 1, 3),
    ],
)
@pytest.mark.parametrize("bias", [True, False])
def test_conv_transpose(attributes: str, group: int, per_group: int, bias: bool) -> None:
    constants = {"w": rand(4, per_group, 3, 3)} | ({"v": rand(per_group * group)} if bias else {})
    body = f"b = ConvTranspose<{attributes}>(a, w{', v' if bias else ''})"
    holds(between(body, (2, 4, 5, 5), constants), {"a": 4, "b": per_group * group})


@pytest.mark.parametrize("rank", [1, 3])
def test_conv_transpose_ranks(rank: int) -> None:
    holds(between("b = ConvTranspose(a, w)", (2, 4, *[4] * rank), {"w": rand(4, 2, *[2] * rank)}), {"a": 4, "b": 2})


@pytest.mark.parametrize("op", ["Conv", "ConvTranspose"])
@pytest.mark.parametrize(("shape", "pinned"), [((4,), False), ((1,), True), ((4, 4, 3, 3), True)])
def test_a_bias_of_another_shape(op: str, shape: tuple[int, ...], pinned: bool) -> None:
    constants = {"w": rand(4, 4, 3, 3), "k": rand(4, 4, 3, 3), "v": rand(*shape)}
    proto = model(f"a = Conv(x, w) b = {op}(a, k, v) c = Relu(b) z = Conv(c, w)", {"x": (1, 4, 9, 9)}, constants)
    traced = trace(read_graph(Model.open(proto), {"x": (1, 4, 9, 9)}))
    reasons = [barrier.reason for barrier in traced.groups.reasons(traced.ids["a"])]
    assert reasons == ([f"its bias has shape {shape}, which is not that of its 4 filters"] if pinned else [])


def test_a_weight_that_is_computed() -> None:
    """Its scale is 1 here, so all channels that it reads share one, which it passes on."""
    body = "w2 = Sigmoid(k) \n b = Conv(a, w2)"
    proto = between(body, (2, 4, 4, 4), {"w": rand(4, 4, 1, 1)}, inputs={"k": (4, 4, 1, 1)})
    holds(proto, {"a": 1, "b": 1}, whole=True)
    body = "w2 = Sigmoid(k) \n b = ConvTranspose(a, w2, c)"
    proto = between(body, (2, 4, 4, 4), {"c": rand(5)}, inputs={"k": (4, 5, 1, 1)})
    holds(proto, {"a": 1, "b": 1}, whole=True)


COMPUTED = [
    ("Conv", "", [1, 4, 1, 1], (8, 1, 1, 1), 4),
    ("Conv", "<group=4>", [4, 1, 1, 1], (1, 1, 3, 3), 4),
    ("ConvTranspose", "", [4, 1, 1, 1], (1, 8, 1, 1), 4),
    ("ConvTranspose", "<group=2>", [4, 1, 1, 1], (1, 3, 2, 2), 4),
]


@pytest.mark.parametrize(("op", "group", "to", "factor", "free"), COMPUTED, ids=[row[0] + row[1] for row in COMPUTED])
def test_scales_of_a_computed_weight(op: str, group: str, to: list[int], factor: tuple[int, ...], free: int) -> None:
    """Those of the weight and of what it is multiplied by have to agree in their product, where it is summed."""
    body = f"p = GlobalAveragePool(a2) \n q = Reshape(p, to) \n m = Mul(q, v) \n b = {op}{group}(a, m)"
    proto = between(body, (1, 4, 4, 4), {"v": rand(*factor), "to": to}, branches=2)
    checked = holds(proto, {"a": free, "a2": free}, rtol=1e-6)
    product = checked.of_slot[checked.trace.ids["a"]] * checked.of_slot[checked.trace.ids["a2"]]
    groups = {"": 1, "<group=2>": 2, "<group=4>": 4}[group]
    assert len(np.unique(product.reshape(groups, -1), axis=1).ravel()) == groups


@pytest.mark.parametrize("op", ["Identity", "Cast<to=1>", "Transpose<perm=[0,1,2,3]>"])
def test_a_weight_behind_a_node_that_moves_it(op: str) -> None:
    holds(between(f"k = {op}(w) \n b = Conv(a, k)", constants={"w": rand(5, 4, 1, 1)}), {"a": 4, "b": 5})


def test_a_weight_behind_a_node_that_computes() -> None:
    holds(between("k = Tanh(w) \n b = Conv(a, k)", constants={"w": rand(5, 4, 1, 1)}), {"a": 1, "b": 1})


def test_a_depthwise_weight_behind_a_node_that_computes() -> None:
    """Each channel passes its scale on: a fixed blur that an exporter did not fold."""
    holds(between("k = Tanh(w) \n b = Conv<group=4>(a, k, c)", constants={"w": rand(8, 1, 3, 3), "c": rand(8)}),
          {"a": 4, "b": 4})  # fmt: skip


def test_a_weight_for_each_sample() -> None:
    """Demodulated weights, as StyleGAN has them, with the batch as groups."""
    body = """
        p = GlobalAveragePool(a) \n s = Sigmoid(p) \n m = Reshape(s, style) \n w2 = Mul(k, m) \n q = Mul(w2, w2)
        n = ReduceSum(q, axes) \n e = Add(n, eps) \n d = Sqrt(e) \n w3 = Div(w2, d) \n f = Reshape(w3, filters)
        g = Reshape(a, grouped) \n c = Conv<group=2>(g, f) \n h = Reshape(c, back) \n b = Relu(h)
    """
    constants = {
        "style": [2, 1, 4, 1, 1], "k": rand(1, 5, 4, 3, 3), "axes": [2, 3, 4], "eps": np.float32(1e-2),
        "filters": [10, 4, 3, 3], "grouped": [1, 8, 6, 6], "back": [2, 5, 4, 4],
    }  # fmt: skip
    holds(between(body, constants=constants), {"a": 0, "p": 0}, whole=True)


def test_a_matrix_that_is_computed() -> None:
    body = "t = Transpose<perm=[0,2,3,1]>(a) \n k = Tanh(w) \n m = MatMul(t, k) \n b = Transpose<perm=[0,3,1,2]>(m)"
    holds(between(body, constants={"w": rand(4, 5)}), {"a": 1, "b": 1})


@pytest.mark.parametrize(("scale", "scales"), [(np.float32(0.1), {"a": 1, "b": 1}), (rand(5) ** 2, {"a": 1, "b": 5})])
def test_a_quantized_weight_follows_by_its_scale(scale: Any, scales: dict[str, int]) -> None:
    """One scale, or one for each filter; the input's channels are tied, since no scale is along their axis."""
    constants = {"w": np.arange(20, dtype=np.int8).reshape(5, 4, 1, 1), "s": scale}
    holds(between("k = DequantizeLinear<axis=0>(w, s) \n b = Conv(a, k)", constants=constants), scales)


def test_a_bias_that_is_an_activation_is_tied_to_the_output() -> None:
    body = "m = GlobalAveragePool(a2) \n s = Reshape(m, to) \n b = Conv(a, w, s)"
    proto = between(body, (1, 4, 4, 4), {"w": rand(4, 4, 1, 1), "to": [-1]}, branches=2)
    checked = holds(proto, {"a": 4, "b": 4})
    assert (checked.of_slot[checked.trace.ids["a2"]] == checked.of_slot[checked.trace.ids["b"]]).all()


def test_what_varies_over_space_is_tied_before_a_conv() -> None:
    body = "r = Concat<axis=2>(a, a2) \n b = Conv(r, w)"
    checked = holds(between(body, constants={"w": rand(4, 4, 3, 3)}, branches=2), {"a": 4, "b": 4})
    np.testing.assert_array_equal(checked.of_slot[checked.trace.ids["a"]], checked.of_slot[checked.trace.ids["a2"]])


def c_shapes() -> list[Any]:
    return [None, (), (1,), (5,), (1, 5), (2, 1), (2, 5), (1, 1)]


@pytest.mark.parametrize("c", c_shapes(), ids=str)
@pytest.mark.parametrize("opset", [11, 13])
@pytest.mark.parametrize("attributes", ["", "alpha=0.5, beta=2.0", "transB=1, beta=-1.5", "alpha=0.3, beta=0.7"])
def test_gemm(attributes: str, opset: int, c: tuple[int, ...] | None) -> None:
    weight = rand(5, 4) if "transB" in attributes else rand(4, 5)
    constants = {"w": weight} | ({} if c is None else {"c": rand(*c)})
    body = f"b = Gemm<{attributes}>(a, w{'' if c is None else ', c'})"
    tied = c is not None and c[-1:] != (5,)  # one number for all outputs
    holds(between(body, (2, 4), constants, opset=opset), {"a": 4, "b": 1 if tied else 5}, whole=True)


@pytest.mark.parametrize("opset", [7, 9])
def test_gemm_before_opset_11_always_has_c(opset: int) -> None:
    proto = between("b = Gemm<transB=1>(a, w, c)", (2, 4), {"w": rand(5, 4), "c": rand(5)}, opset=opset)
    holds(proto, {"a": 4, "b": 5})


def test_gemm_with_a_scalar_zero_ties_nothing() -> None:
    holds(between("b = Gemm(a, w, c)", (2, 4), {"w": rand(4, 5), "c": np.zeros((), np.float32)}), {"a": 4, "b": 5})


@pytest.mark.parametrize("c", [None, (), (3,), (5, 1), (5, 3), (1, 3)], ids=str)
@pytest.mark.parametrize(("trans_a", "trans_b"), [(0, 0), (1, 0), (0, 1), (1, 1)])
def test_gemm_with_the_constant_on_the_left(trans_a: int, trans_b: int, c: tuple[int, ...] | None) -> None:
    constants = {"w": rand(4, 5) if trans_a else rand(5, 4), "m": rand(3, 4)} | ({} if c is None else {"c": rand(*c)})
    right = "Transpose(a)" if not trans_b else "Identity(a)"
    body = f"q = {right} \n b = Gemm<transA={trans_a}, transB={trans_b}>(w, q{'' if c is None else ', c'})"
    per_row = c is None or c in {(5, 1), (5, 3)}
    holds(between(body, (3, 4), constants, tail="none"), {"a": 4, "b": 5 if per_row else 1}, whole=True)


def test_gemm_transposing_its_input() -> None:
    body = "t = Transpose(a) \n b = Gemm<transA=1, transB=1>(t, w)"
    holds(between(body, (3, 4), {"w": rand(5, 4)}), {"a": 4, "b": 5}, whole=True)


def test_gemm_with_an_activation_for_c_ties_it() -> None:
    checked = holds(between("b = Gemm(a, w, a2)", (2, 4), {"w": rand(4, 4)}, branches=2), {"a": 4, "a2": 4, "b": 4})
    np.testing.assert_array_equal(checked.of_slot[checked.trace.ids["a2"]], checked.of_slot[checked.trace.ids["b"]])


def test_gemm_of_two_activations() -> None:
    body = "t = Transpose(a2) \n b = Gemm(a, t)"
    checked = holds(between(body, (3, 3), branches=2), whole=True)
    scale = checked.of_slot[checked.trace.ids["a"]] * checked.of_slot[checked.trace.ids["a2"]]
    assert (scale == scale.flat[0]).all()
    holds(
        between("b = Gemm<transA=1, transB=1, alpha=0.5>(a, a2, k)", (3, 3), {"k": rand(1, 1)}, branches=2), whole=True
    )


@pytest.mark.parametrize("weight", [(4, 5), (1, 4, 5), (2, 4, 5), (1, 2, 4, 5)], ids=str)
@pytest.mark.parametrize("shape", [(2, 4), (2, 3, 4), (2, 2, 3, 4)], ids=str)
def test_matmul_by_a_constant(shape: tuple[int, ...], weight: tuple[int, ...]) -> None:
    # Channels on the last axis, which a MatMul puts there.
    proto = model(
        "a = MatMul(x, w0) \n b = MatMul(a, w) \n z = MatMul(b, w1)",
        {"x": (*shape[:-1], 3)},
        {"w0": rand(3, shape[-1]), "w": rand(*weight), "w1": rand(5, 2)},
    )
    holds(proto, {"a": 4, "b": 5}, whole=True)


@pytest.mark.parametrize("weight", [(5, 4), (2, 5, 4)], ids=str)
def test_matmul_with_the_constant_on_the_left(weight: tuple[int, ...]) -> None:
    body = "r = Reshape(a, to) \n b = MatMul(w, r)"
    proto = between(body, (2, 4, 3, 3), {"w": rand(*weight), "to": [0, 4, 9]}, tail="none")
    holds(proto, {"a": 4, "b": 5})


def test_matmul_of_a_vector() -> None:
    proto = model("a = MatMul(x, w0) \n z = MatMul(a, w1)", {"x": (3,)}, {"w0": rand(3, 4), "w1": rand(4, 2)})
    holds(proto, {"a": 4, "z": 2}, whole=True)


@pytest.mark.parametrize(("body", "free"), [("b = MatMul(a, v)", 1), ("b = MatMul(v, a)", 4)])
def test_matmul_by_a_constant_vector(body: str, free: int) -> None:
    """Its elements follow the scales of what they meet: channels on the right end in one number, on the left not."""
    holds(between(body, (4, 4), {"v": rand(4)}, tail="none"), {"a": 4, "b": free}, whole=True)


def test_matmul_by_a_constant_vector_over_a_stack() -> None:
    holds(between("b = MatMul(v, a)", (2, 4, 5, 6), {"v": rand(5)}, tail="none"), {"a": 4, "b": 4})
    holds(between("b = MatMul(a, v)", (2, 4, 5, 6), {"v": rand(6)}, tail="none"), {"a": 4, "b": 4})


def test_a_vector_of_a_dense_layer_is_no_filter_for_each_position() -> None:
    proto = between("b = MatMul(a, v)", (2, 4, 5, 6), {"v": rand(6)}, tail="none")
    walked = trace(read_graph(Model.open(proto), {"x": (1, 3, 5, 6)}))
    assert [layer.output for layer in find_layers(walked, "all")] == ["a"]


def test_matmul_of_vectors_of_activations() -> None:
    first = "p = ReduceMax<keepdims=0>(a, first) \n q = ReduceMax<keepdims=0>(a2, first)"
    held = {"first": [0]}
    proto = between(f"{first} \n b = MatMul(p, q)", (2, 4), held, branches=2, tail="none")
    checked = holds(proto, {"a": 4, "a2": 4, "b": 1}, whole=True, rtol=1e-6)
    product = checked.of_slot[checked.trace.ids["a"]] * checked.of_slot[checked.trace.ids["a2"]]
    assert np.ptp(product) == 0
    proto = between(f"{first} \n b = MatMul(p, a2)", (4, 4), held, branches=2, tail="none")
    holds(proto, {"a": 1, "a2": 4, "b": 4}, whole=True, rtol=1e-6)
    proto = between(f"{first} \n b = MatMul(a2, p)", (4, 4), held, branches=2, tail="none")
    holds(proto, {"a": 4, "a2": 4, "b": 1}, whole=True, rtol=1e-6)


def test_matmul_of_two_activations() -> None:
    holds(between("b = MatMul(a, a2)", (2, 4, 5, 5), branches=2), {"a": 4, "a2": 4, "b": 4})


def test_matmul_over_space_ties_nothing_but_space() -> None:
    """A constant over the last axis of an image mixes columns: columns share a scale, rows and channels too."""
    holds(between("b = MatMul(a, w)", (2, 4, 5, 5), {"w": rand(5, 5)}, tail="none"), {"a": 1, "b": 5})


@pytest.mark.skipif(RUNTIME < (1, 25), reason="ONNX Runtime runs this operator from 1.25 on")
def test_deform_conv_pins_offsets() -> None:
    body = "o = Conv(a, w2) \n b = DeformConv(a, w, o, v)"
    constants = {"w": rand(5, 4, 1, 1), "w2": rand(2, 4, 1, 1), "v": rand(5)}
    checked = holds(between(body, constants=constants, opset=22), {"a": 4, "b": 5, "o": 0})
    assert checked.reasons("o") == ["it says where the operator reads, and how much that counts"]


@pytest.mark.skipif(RUNTIME < (1, 25), reason="ONNX Runtime runs this operator from 1.25 on")
@pytest.mark.parametrize("bias", ["v", ""])
def test_deform_conv_pins_the_mask(bias: str) -> None:
    body = f"o = Conv(a, w2) \n m = Conv(a, w3) \n b = DeformConv(a, w, o, {bias}, m)"
    constants = {"w": rand(5, 4, 1, 1), "w2": rand(2, 4, 1, 1), "w3": rand(1, 4, 1, 1, seed=1)}
    constants |= {"v": rand(5)} if bias else {}
    checked = holds(between(body, constants=constants, opset=22), {"a": 4, "b": 5, "o": 0, "m": 0})
    assert checked.reasons("m") == ["it says where the operator reads, and how much that counts"]


def test_float64() -> None:
    constants = {"w": rand(4, 5, dtype=np.float64), "v": rand(1, 5, dtype=np.float64)}
    body = "r = Gemm(a, w, v) \n b = Relu(r)"
    holds(between(body, (2, 4), constants, dtype=np.float64), {"a": 4, "b": 5})


def test_float16() -> None:
    """Small float16 numbers are subnormal, and a power of two not exact for them: 2 units in the last place."""
    constants = {"w": rand(5, 4, 3, 3, dtype=np.float16), "v": rand(5, dtype=np.float16)}
    proto = between("r = Conv(a, w, v) \n b = Relu(r)", constants=constants, dtype=np.float16)
    holds(proto, {"a": 4, "b": 5}, rtol=2 * float(np.finfo(np.float16).eps))


def test_a_group_that_does_not_divide_the_filters_pins() -> None:
    """Not legal, and not noticed by ONNX's checker; only a walk sees it, since no runtime takes it."""
    proto = between("b = Conv<group=2>(a, w)", constants={"w": rand(4, 2, 1, 1)})
    next(item for item in proto.graph.node if item.op_type == "Conv" and "w" in item.input).attribute[0].i = 3
    walked = trace(read_graph(Model.open(proto), {"x": (1, 3, 6, 6)}))
    assert walked.groups.is_pinned(walked.ids["a"]).all()
