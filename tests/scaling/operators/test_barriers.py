"""Barriers: operators that refuse on purpose, those that nobody knows, and the walk around them."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from onnxnorm.scaling.laws import LAWS, law, refuses
from onnxnorm.scaling.operators import load_all
from tests.helpers.graphs import between, floats, model, rand
from tests.helpers.law_checks import holds, refused
from tests.helpers.scales_check import traced

CURVES = ["Sigmoid", "Tanh", "Softmax<axis=1>", "LogSoftmax", "HardSigmoid", "HardSwish", "Softplus", "Softsign", "Elu",
          "Selu", "Mish", "Gelu", "Exp", "Erf", "Sin", "Floor", "Round", "Ceil"]  # fmt: skip


@pytest.mark.parametrize("op", CURVES)
def test_curves(op: str) -> None:
    assert refused(between(f"b = {op}(a)"), "scaling its input does not just scale its output").pinned("b")


BARRIERS: list[tuple[str, dict[str, Any], str]] = [
    ("s = SequenceConstruct(a, a) \n b = ConcatFromSequence<axis=1>(s)", {}, "it handles sequences"),
]  # fmt: skip


@pytest.mark.parametrize(("body", "constants", "reason"), BARRIERS, ids=[body.split("(")[0] for body, _, _ in BARRIERS])
def test_barriers(body: str, constants: dict[str, Any], reason: str) -> None:
    # Some pick an element of a flat index, so that the walk sees the batch.
    refused(between(body, constants=constants, tail="none"), reason, whole=True)


@pytest.mark.parametrize("op", ["LSTM", "GRU", "RNN"])
def test_recurrent_layers(op: str) -> None:
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[op]
    constants = {"w": rand(1, gates * 5, 4), "r": rand(1, gates * 5, 5)}
    body = f"t = Transpose<perm=[2,0,1]>(a) \n y, b = {op}<hidden_size=5>(t, w, r)"
    checked = holds(between(body, (2, 4, 3), constants), {"a": 4, "b": 0})
    assert checked.reasons("b") == ["it runs gates, and scaling their inputs does not just scale their outputs"]


@pytest.mark.parametrize("op", ["LSTM", "GRU", "RNN"])
def test_recurrent_layers_with_computed_weights(op: str) -> None:
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[op]
    body = f"w2 = Tanh(w) \n t = Transpose<perm=[2,0,1]>(a) \n y, b = {op}<hidden_size=5>(t, w2, r)"
    proto = between(body, (2, 4, 3), {"w": rand(1, gates * 5, 4), "r": rand(1, gates * 5, 5)})
    assert refused(proto, "its weight is no constant that may change").pinned("b")


@pytest.mark.parametrize(("domain", "op"), [("my.domain", "Relu"), ("com.example", "Anything")])
def test_other_domains_pin_whatever_their_names(domain: str, op: str) -> None:
    """No runtime runs them; the walk goes through, and the Conv behind has slots of its own."""
    body = f"c = {domain}.{op}(a) \n d = Conv(c, w) \n p = BatchNormalization(d, s, s, s, s) \n b = Add(p, k)"
    constants = {"w": rand(5, 4, 1, 1), "s": floats([1, 2, 3, 4, 5]), "k": rand(5, 1, 1)}
    found = traced(between(body, constants=constants, domains=(domain,), tail="none"))
    assert found.groups.is_pinned(found.ids["a"]).all()
    assert found.groups.reasons(found.ids["a"])[0].reason == (
        f"{domain}::{op} has no law, so its input and output keep their scales"
    )
    assert not found.groups.is_pinned(found.ids["d"]).any()
    assert len(np.unique(found.groups.of[found.ids["b"]])) == 5


def test_operators_of_the_runtime_pin() -> None:
    body = "c = com.microsoft.Gelu(a) \n b = Relu(c)"
    refused(between(body, domains=("com.microsoft",), tail="none"), "com.microsoft::Gelu has no law")


def behind_an_unknown(body: str, constants: dict[str, Any] | None = None) -> onnx.ModelProto:
    return between(f"u = my.Op(a) \n {body}", constants=constants or {}, domains=("my",), tail="none")


@pytest.mark.parametrize(
    "body",
    [
        "b = BatchNormalization(u, s, s, s, s)",
        "c = Conv(u, w) \n b = MaxPool<kernel_shape=[2,2]>(c)",
        "b = GlobalAveragePool(u)",
        "c = Conv(u, w) \n b = Add(c, k5)",
        "c = Conv(u, w) \n b = Mul(c, k5)",
        "c = Conv(u, w) \n b = Mul(c, u)",
        "c = Conv(u, w) \n b = Div(c, u)",
        "c = Conv(u, w) \n b = Max(c, u)",
        "c = Conv(u, w) \n b = Where(m, c, u)",
        "c = Conv(u, w) \n b = Reshape(c, to)",
        "c = Conv(u, w) \n b = Flatten(c)",
        "c = Conv(u, w) \n b = Concat<axis=1>(c, u)",
        "c = Conv(u, w) \n b = Concat<axis=1>(c, c)",
        "c = Conv(u, w) \n b = Transpose(c)",
        "c = Conv(u, w) \n p, b = Split<axis=1, num_outputs=2>(c)",
        "c = Conv(u, w) \n b = Slice(c, i0, i1, i1)",
        "c = Conv(u, w) \n b = Gather(c, i1)",
        "c = Conv(u, w) \n b = Expand(c, to)",
        "c = Conv(u, w) \n b = Tile(c, to)",
        "c = Conv(u, w) \n b = Squeeze(c)",
        "c = Conv(u, w) \n b = Unsqueeze(c, i1)",
        "c = Conv(u, w) \n b = DepthToSpace<blocksize=2>(c)",
        "c = Conv(u, w) \n b = Trilu(c)",
        "c = Conv(u, w) \n b = Pad(c, to)",
        'c = Conv(u, w) \n b = Resize<mode="nearest">(c, none, k4)',
        "c = Conv(u, w) \n b = ReduceMean(c, i1)",
        "c = Conv(u, w) \n b = CumSum(c, axis)",
        "c = Conv(u, w) \n b = LpNormalization(c)",
        "c = Conv(u, w) \n b = LayerNormalization(c, s)",
        "c = Conv(u, w) \n b = InstanceNormalization(c, s, s)",
        "c = Conv(u, w) \n b = GroupNormalization<num_groups=2>(c, s, s)",
        "c = Conv(u, w) \n b = MatMul(c, g)",
        "c = Conv(u, w) \n b = MatMul(g, c)",
        "c = Conv(u, w) \n b = Gemm(c, g)",
        "c = Conv(u, w) \n b = MatMul(c, u)",
        "b = MatMul(u, g)",
        "b = MatMul(g, u)",
        "b = Gemm(u, g, s)",
        "b = Gemm(g, u)",
        "m2 = MatMul(u, g) \n b = BatchNormalization(m2, s, s, s, s)",
        "m2 = MatMul(u, g) \n b = Conv(m2, w)",
        "c = ConvTranspose(u, w) \n b = PRelu(c, k4)",
        "c = Conv(u, w) \n b = GridSample(c, u)",
        "c = Conv(u, w) \n b = RoiAlign(c, u, i1)",
        "c = Conv(u, w) \n b = Col2Im(c, i1, i1)",
        "c = Conv(u, w) \n b = MaxUnpool<kernel_shape=[2,2]>(c, u)",
        "c = Conv(u, w) \n b = Clip(c, axis2)",
        "c = Conv(u, w) \n b = ReverseSequence(c, i1)",
        "c = Conv(u, w) \n b = Compress<axis=1>(c, m)",
        "c = Conv(u, w) \n b = GatherND(c, i1)",
        "c = Conv(u, w) \n b = GatherElements(c, i1)",
        "c = Conv(u, w) \n b = DeformConv(c, w, u)",
        "c = Conv(u, w) \n b = CenterCropPad(c, to)",
        "b = Conv(u, u)",
        "b = Sum(u, s, k5)",
        "b = Cast<to=10>(u)",
        "b = Clip(u, axis2)",
    ],
)
def test_values_of_unknown_shape_never_crash(body: str) -> None:
    constants = {
        "w": rand(4, 4, 1, 1),
        "s": floats([1, 2, 3, 4]),
        "k5": rand(1, 4, 1, 1, 1),
        "k4": rand(4, 1, 1),
        "g": rand(4, 4),
        "to": [1, 1, 1, 1],
        "i0": [0],
        "i1": [1],
        "axis": np.int64(1),
        "axis2": np.float32(0.5),
        "m": np.array([True, False, True, True]),
        "none": np.empty(0, np.float32),
    }
    found = traced(behind_an_unknown(body, constants))
    assert found.groups.is_pinned(found.ids["a"]).all()
    assert "b" in found.ids


@pytest.mark.parametrize(
    ("body", "free"),
    [
        ("c = Conv(u, w) \n d = BatchNormalization(c, s, s, s, s) \n e = Relu(d) \n b = Add(e, d)", 4),
        ("c = Conv(u, w) \n d = MaxPool<kernel_shape=[2,2]>(c) \n b = Conv(d, w)", 4),
        ("c = Conv(u, w) \n b = Mul(c, k)", 4),
        ("c = Conv(u, w) \n b = Mul(c, k5)", 0),  # which axis the channels are on behind it is not known
    ],
)
def test_values_of_unknown_shape_but_known_axes(body: str, free: int) -> None:
    constants = {"w": rand(4, 4, 1, 1), "s": floats([1, 2, 3, 4]), "k": rand(4, 1, 1), "k5": rand(1, 4, 1, 1, 1)}
    found = traced(behind_an_unknown(body, constants))
    groups = found.groups.of[found.ids["b"][~found.groups.is_pinned(found.ids["b"])]]
    assert len(np.unique(groups)) == free


def with_if(branch: str, **constants: Any) -> onnx.ModelProto:
    """A model with an If whose branches are `branch`, which may read `a`."""
    proto = between("c = Greater(q, k) \n b = Relu(a)", constants=constants | {"k": np.float32(0)}, inputs={"q": ()})
    graph = onnx.parser.parse_graph(f"g () => (float[2,4,6,6] y) {{ {branch} }}")
    node = helper.make_node("If", ["c"], ["r"], then_branch=graph, else_branch=graph)
    proto.graph.node.insert(3, node)
    proto.graph.output.append(helper.make_tensor_value_info("r", onnx.TensorProto.FLOAT, (2, 4, 6, 6)))
    return proto


def test_what_a_subgraph_reads_is_pinned() -> None:
    feed = {"x": rand(2, 3, 6, 6), "q": np.array(1, np.float32)}
    checked = refused(with_if("y = Neg(a)"), "it runs a subgraph, and scales are not followed into it", feed=feed)
    assert checked.pinned("r")


def test_a_constant_that_a_subgraph_reads_is_cloned() -> None:
    proto = with_if("y = Add(v, w4)", v=rand(2, 4, 6, 6), w4=rand(4, 1, 1))
    proto.graph.node[2].CopyFrom(helper.make_node("Add", ["a", "w4"], ["b"]))
    assert {node.op_type for node in proto.graph.node} == {"Conv", "Greater", "Add", "If"}
    feed = {"x": rand(2, 3, 6, 6), "q": np.array(1, np.float32)}
    checked = holds(proto, 4, feed=feed)
    assert [node.input[1] for node in checked.rewritten.proto.graph.node if node.op_type == "Add"] == ["w4_onnxnorm1"]


@pytest.mark.parametrize("depth", [1, 2])
def test_a_weight_that_branches_read_is_cloned(depth: int) -> None:
    """A convolution in a branch, of a branch, has the weights of one outside; only that one needs them scaled."""
    proto = with_if("y = Conv(v, w)", v=rand(2, 3, 6, 6), w=rand(4, 3, 1, 1))
    branching = proto.graph.node[3]
    for _ in range(depth - 1):
        branching.output[0] = "inner"
        inner = helper.make_graph([branching], "outer", [], [onnx.ValueInfoProto(name="inner")])
        branching = helper.make_node("If", ["c"], ["r"], then_branch=inner, else_branch=inner)
    proto.graph.node[3].CopyFrom(branching)
    (outside,) = (node for node in proto.graph.node if node.output[0] == "a")
    outside.input[1] = "w"
    feed = {"x": rand(2, 3, 6, 6), "q": np.array(1, np.float32)}
    checked = holds(proto, {"a": 4, "r": 0}, feed=feed)
    (reader,) = (node for node in checked.rewritten.proto.graph.node if node.output[0] == "a")
    assert reader.input[1] == "w_onnxnorm1"
    before, after = (
        next(numpy_helper.to_array(tensor) for tensor in model.graph.initializer if tensor.name == "w")
        for model in (proto, checked.rewritten.to_proto())
    )
    np.testing.assert_array_equal(before, after)


def test_loop() -> None:
    body = helper.make_graph(
        [helper.make_node("Add", ["s", "a"], ["s2"]), helper.make_node("Identity", ["go"], ["go2"])],
        "body",
        [helper.make_tensor_value_info("i", onnx.TensorProto.INT64, ()),
         helper.make_tensor_value_info("go", onnx.TensorProto.BOOL, ()),
         helper.make_tensor_value_info("s", onnx.TensorProto.FLOAT, (2, 4, 3, 3))],
        [helper.make_tensor_value_info("go2", onnx.TensorProto.BOOL, ()),
         helper.make_tensor_value_info("s2", onnx.TensorProto.FLOAT, (2, 4, 3, 3))],
    )  # fmt: skip
    proto = between("b = Relu(a)", (2, 4, 3, 3), {"n": np.int64(2), "t": np.bool_(True), "s0": rand(2, 4, 3, 3)})
    proto.graph.node.insert(1, helper.make_node("Loop", ["n", "t", "s0"], ["r"], body=body))
    proto.graph.output.append(helper.make_tensor_value_info("r", onnx.TensorProto.FLOAT, (2, 4, 3, 3)))
    refused(proto, "it runs a subgraph")


@pytest.mark.parametrize("opset", [6, 1])
def test_older_opsets_pin(opset: int) -> None:
    """There, an Add broadcasts by attributes of its own."""
    proto = between("b = Relu(a)", opset=7)
    proto.opset_import[0].version = opset
    found = traced(proto)
    assert found.groups.is_pinned(found.ids["a"]).all()
    assert "the laws hold for opsets 7 to" in found.groups.reasons(found.ids["a"])[0].reason


def test_reading_a_shape_pins_nothing() -> None:
    body = "s = Shape(a) \n n = Size(a) \n b = Relu(a)"
    holds(between(body, outputs=["s", "n"]), {"a": 4, "b": 4}, whole=True)


def test_outputs_and_inputs() -> None:
    proto = model("z = Relu(x)", {"x": (2, 3, 4, 4)})
    found = traced(proto)
    assert [barrier.reason for barrier in found.groups.reasons(found.ids["z"])] == ["it is a graph input"]
    proto = between("b = Relu(a)", outputs=["b"])
    found = traced(proto, "keep")
    assert [barrier.reason for barrier in found.groups.reasons(found.ids["a"])] == ["it is a graph output"]
    holds(proto, {"a": 4})


def test_a_constant_that_the_caller_may_replace_pins() -> None:
    proto = between("b = Add(a, k)", constants={"k": rand(4, 1, 1)})
    proto.graph.input.append(helper.make_tensor_value_info("k", onnx.TensorProto.FLOAT, (4, 1, 1)))
    refused(proto, "is also a graph input", feed={"x": rand(2, 3, 6, 6)})


def test_a_constant_that_is_an_output_stays_and_is_copied() -> None:
    proto = between("b = Add(a, k)", constants={"k": rand(4, 1, 1)})
    proto.graph.output.append(helper.make_tensor_value_info("k", onnx.TensorProto.FLOAT, (4, 1, 1)))
    checked = holds(proto, 4, feed={"x": rand(2, 3, 6, 6)})
    np.testing.assert_array_equal(checked.got["k"], checked.expected["k"])


@pytest.mark.parametrize("layout", ["float_data", "raw_data", "node"])
def test_where_constants_live(layout: str) -> None:
    proto = between("b = Add(a, k)", constants={"k": rand(4, 1, 1)})
    index = next(i for i, tensor in enumerate(proto.graph.initializer) if tensor.name == "k")
    values = numpy_helper.to_array(proto.graph.initializer[index])
    tensor = helper.make_tensor("k", onnx.TensorProto.FLOAT, (4, 1, 1), values.ravel().tolist())
    if layout == "float_data":
        proto.graph.initializer[index].CopyFrom(tensor)
    if layout == "node":
        del proto.graph.initializer[index]
        proto.graph.node.insert(0, helper.make_node("Constant", [], ["k"], value=tensor))
    holds(proto, {"a": 4, "b": 4})


def test_registering_twice_raises() -> None:
    load_all()
    with pytest.raises(ValueError, match="operator Relu has two laws"):
        law("Relu")(LAWS["Relu"].apply)
    with pytest.raises(ValueError, match="operator Sigmoid has two laws"):
        refuses("again", "Sigmoid")


def test_names_of_nodes_do_not_matter() -> None:
    proto = between("r = Relu(a) \n b = Add(r, k)", constants={"k": rand(4, 1, 1)})
    holds(proto, {"a": 4, "b": 4})
    for node in proto.graph.node:
        node.name = "same"  # which ONNX Runtime rejects
    assert not (found := traced(proto)).groups.is_pinned(found.ids["a"]).any()
