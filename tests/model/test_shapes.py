"""Reading a model: nodes in order, concrete shapes of every value, and constants that nodes compute."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from onnxnorm.errors import ModelError
from onnxnorm.model.evaluation import evaluate
from onnxnorm.model.files import Model
from onnxnorm.model.graph import Graph, input_specs, ordered_nodes
from onnxnorm.model.shapes import check_legal, read_graph, sample_shapes
from onnxnorm.runtime import Runtime
from onnxnorm.scaling import trace
from tests.corpus import CASES, FLOAT, Net, feeds


def read(proto: onnx.ModelProto, batch: int = 1) -> Graph:
    return read_graph(Model.open(proto), {name: array.shape for name, array in feeds(proto, batch).items()})


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.runs and case.legal])
def test_shapes_are_those_of_the_runtime(name: str) -> None:
    """Every shape that is claimed to be known is the one that the values have."""
    proto = CASES[name].build()
    graph = read(proto, 2)
    values = [name for node in proto.graph.node for name in node.output]
    inner = [name for name in values if name in graph.shapes and name not in graph.constants]
    del proto.graph.output[:]
    proto.graph.output.extend(helper.make_tensor_value_info(o, graph.types[o], None) for o in inner)
    results = Runtime("cpu", threads=1).session(proto, optimize=False).run(feeds(proto, 2))
    assert {o: array.shape for o, array in results.items()} == {o: graph.shapes[o] for o in inner}
    assert inner


@pytest.mark.parametrize("name", ["computed_reshape", "tensorflow_reshape", "channel_shuffle"])
def test_computed_targets_are_resolved(name: str) -> None:
    proto = CASES[name].build()
    for batch in (1, 2):
        graph = read(proto, batch)
        reshapes = [node for node in graph.nodes if node.op == "Reshape"]
        assert reshapes
        for node in reshapes:
            assert node.outputs[0] in graph.shapes
            assert node.inputs[1] in graph.constants


def test_computed_constants_are_computed_once_and_late() -> None:
    net = Net()
    t = net.op("Transpose", net.const(np.arange(6.0).reshape(2, 3)), out="t", perm=[1, 0])
    net.op("Random" + "UniformLike", t, out="r")
    net.op("Add", net.input(shape=("N", 3, 2)), t, out="y")
    graph = read(net.model("y"))
    constant = graph.constants["t"]
    assert (constant.home, constant.shape) == ("computed", (3, 2))
    assert constant.fixed == "is computed by Transpose node 'Transpose_t'"
    np.testing.assert_array_equal(constant.values(), np.arange(6.0).reshape(2, 3).T)
    assert constant.values() is constant.values()
    assert "r" not in graph.constants


@pytest.mark.parametrize("opset", [10, 13, 18, 21])
def test_dequantized_weights_in_every_opset(opset: int) -> None:
    net = Net(opset)
    q = net.const([[1, -2], [3, 4]], dtype=TensorProto.INT8)
    w = net.op("DequantizeLinear", q, net.const(0.5), net.const(0, dtype=TensorProto.INT8), out="w")
    net.op("MatMul", net.input(shape=("N", 2)), w, out="y")
    np.testing.assert_array_equal(read(net.model("y")).constants["w"].values(), [[0.5, -1], [1.5, 2]])


def test_the_files_claims_count_where_inference_is_silent() -> None:
    net = Net()
    net.domains.append("elsewhere")
    net.op("Thing", net.input(shape=("N", 3, "H", "W")), domain="elsewhere", out="t")
    net.info("t", ("N", 7, "H", 4))
    net.relu("t", "r")
    net.info("r", ("N", 5, 5, 5))  # wrong: inference knows better
    net.op("Thing", "r", domain="elsewhere", out="y")
    net.info("y", ("N", "somebody knows"))
    graph = read(net.model("y"))
    assert graph.shapes["t"] == graph.shapes["r"] == (1, 7, 10, 4)
    assert "y" not in graph.shapes


def test_group_normalization_has_the_shape_of_its_input() -> None:
    for name in ("y", "z"):
        net = Net(21, ir=10)
        net.op("GroupNormalization", net.input(shape=("N", 4, 6)), net.bias(4), net.bias(4), num_groups=2, out="y")
        net.relu("y", "z")
        assert read(net.model("z")).shapes[name] == (1, 4, 6)


@pytest.mark.parametrize("domain", ["", "ai.onnx"])
def test_both_spellings_of_the_domain(domain: str) -> None:
    net = Net()
    s = net.op("Slice", net.input(), net.ints(1), net.ints(3), net.ints(1), domain=domain, out="s")
    net.op("Relu", s, domain=domain, out="y")
    graph = read(net.model("y"))
    assert graph.shapes["s"] == graph.shapes["y"] == (1, 2, 8, 8)
    node = graph.nodes[0]
    constants = {name: graph.constants[name].values() for name in node.inputs[1:]}
    moved = evaluate(node, {"x": np.arange(3).reshape(1, 3, 1, 1), **constants})
    assert moved[0].reshape(-1).tolist() == [1, 2]


# --- order ---------------------------------------------------------------------------------------------------------


def test_order() -> None:
    forward = CASES["residual_after_activation"].build()
    backward = CASES["nodes_out_of_order"].build()
    nodes = ordered_nodes(Model.open(backward))
    assert [node.index for node in ordered_nodes(Model.open(forward))] == list(range(len(forward.graph.node)))
    done = {"x"} | {tensor.name for tensor in backward.graph.initializer}
    for node in nodes:
        assert set(node.inputs) <= done
        done |= set(node.outputs)
    assert read(backward).shapes.keys() == read(forward).shapes.keys()


def test_what_a_subgraph_captures_comes_before_it() -> None:
    proto = CASES["branch_captures_activation"].build()
    nodes = list(reversed(proto.graph.node))
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    order = [node.label for node in ordered_nodes(Model.open(proto))]
    assert order.index("Relu_a") < order.index("If_c")


def test_cycles() -> None:
    net = Net()
    net.op("Add", net.input(), "b", out="a")
    net.relu("a", "b")
    net.relu("b", "y")
    with pytest.raises(ModelError, match=r"cycle through (Add_a, Relu_b|Relu_b, Add_a)"):
        read(net.model("y"))
    net = Net()
    net.op("Add", net.input(), "a", out="a")
    with pytest.raises(ModelError, match="cycle"):
        read(net.model("a"))


# --- inputs --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dims", "expected"),
    [
        (("N", 3, "H", "W"), (1, 3, 20, 30)),
        (("N", "H", "W", 3), (1, 20, 30, 3)),
        (("N", "C", "H", "W"), (1, 3, 20, 30)),
        ((4, 3, 8, "W"), (4, 3, 8, 30)),
        (("N", 5), (1, 5)),
        (("N", "T"), (1, 224)),
        ((), ()),
    ],
)
def test_sample_shapes(dims: tuple[int | str, ...], expected: tuple[int, ...]) -> None:
    net = Net()
    net.input("x", dims)
    net.relu("x", "y")
    net.const([1.0], "w")
    net.inputs.append(helper.make_tensor_value_info("w", FLOAT, [1]))
    specs = input_specs(Model.open(net.model("y")))
    assert [spec.name for spec in specs] == ["x"]
    assert sample_shapes(specs, (20, 30)) == {"x": expected}


def test_inputs_that_cannot_be_fed() -> None:
    for kind, message in (
        (helper.make_sequence_type_proto(helper.make_tensor_type_proto(FLOAT, [1])), "not a tensor"),
        (helper.make_tensor_type_proto(FLOAT, None), "no shape"),
        (helper.make_tensor_type_proto(0, [1]), "unknown element type 0"),
    ):
        net = Net()
        net.relu(net.input("x", (1,)), "y")
        proto = net.model("y")
        proto.graph.input[0].type.CopyFrom(kind)
        with pytest.raises(ModelError, match=message):
            input_specs(Model.open(proto))


# --- graphs that are not legal -------------------------------------------------------------------------------------


def test_nodes_that_break_the_rules_are_the_models_fault() -> None:
    """What no runtime would take is refused in words, whatever it makes a law stumble over."""

    def no_input(net: Net) -> None:
        net.nodes.append(helper.make_node("Relu", [], ["y"], name="bad"))

    def too_many_inputs(net: Net) -> None:
        net.op("Mul", "x", "x", "x", out="y", name="bad")

    def missing_weight(net: Net) -> None:
        net.op("Gemm", "x", out="y", name="bad")

    def flat_weight(net: Net) -> None:
        net.op("Conv", "x", net.const([1.0, 2.0]), out="y", name="bad")

    for spoil in (no_input, too_many_inputs, missing_weight, flat_weight):
        net = Net()
        net.input("x")
        spoil(net)
        with pytest.raises(ModelError, match=r"'bad'|not consistent"):
            trace(read(net.model("y")))


def test_legal_nodes_pass() -> None:
    for name in ("plain_chain", "u_net", "recurrent_head", "custom_domain", "branch_captures_weight"):
        graph = read(CASES[name].build())
        assert len(graph.nodes) > 1, name
        for node in graph.nodes:
            check_legal(node, graph)
