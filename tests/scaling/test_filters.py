"""Which nodes have filters, and where each is measured: behind the non-linearity that it reaches first."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from onnxnorm.model.files import Model
from onnxnorm.model.shapes import read_graph
from onnxnorm.scaling import Layer, Site, Trace, find_layers, trace
from onnxnorm.scaling.filters import FilterKind
from tests.corpus import CASES, Net, feeds


def walked(proto: onnx.ModelProto) -> Trace:
    return trace(read_graph(Model.open(proto), {name: array.shape for name, array in feeds(proto).items()}))


def layers_of(proto: onnx.ModelProto, kind: FilterKind = "conv") -> dict[str, Layer]:
    return {layer.output: layer for layer in find_layers(walked(proto), kind)}


Tail = Callable[[Net, str], str]


def site(tail: Tail) -> tuple[str, str]:
    """Where the filters of a convolution `c` are measured that `tail` reads."""
    net = Net()
    net.conv(net.input(), 3, 4, out="c")
    end = tail(net, "c")
    found = layers_of(net.head(end, 4))["c"].site
    assert found.axis == 1
    return found.value, found.measure


def constant(net: Net) -> str:
    return net.const(np.ones((4, 1, 1)))


@pytest.mark.parametrize("kind", [TensorProto.INT32, TensorProto.STRING, TensorProto.BOOL])
def test_before_what_is_no_floating_point(kind: int) -> None:
    """Integers that a Cast makes of an activation have no mean of their own to bring to a target."""
    assert site(lambda net, c: net.op("Cast", net.op("Cast", c, to=kind), to=TensorProto.FLOAT)) == ("c", "mean_abs")
    assert site(lambda net, c: net.relu(net.op("Cast", net.op("Cast", c, to=kind), to=TensorProto.FLOAT))) == (
        "c",
        "mean_abs",
    )
    wide = TensorProto.DOUBLE
    assert site(lambda net, c: net.relu(net.op("Cast", c, to=wide), "r"))[0] == "r"


@pytest.mark.parametrize("kind", ["Relu", "LeakyRelu", "Abs", "Sigmoid", "Tanh", "Elu", "HardSwish", "Softplus"])
def test_behind_a_nonlinearity(kind: str) -> None:
    assert site(lambda net, c: net.op(kind, c, out="r")) == ("r", "mean")


@pytest.mark.parametrize(
    "tail",
    [
        lambda net, c: net.relu(net.bn(c, 4), "r"),
        lambda net, c: net.relu(net.op("Add", c, constant(net)), "r"),
        lambda net, c: net.relu(net.op("Mul", constant(net), c), "r"),
        lambda net, c: net.relu(net.op("Sub", constant(net), c), "r"),
        lambda net, c: net.relu(net.op("MaxPool", net.op("Identity", c), kernel_shape=[2, 2]), "r"),
        lambda net, c: net.relu(net.op("Add", c, net.conv("x", 3, 4)), "r"),
        lambda net, c: net.relu(net.op("Dropout", net.op("Neg", c)), "r"),
        lambda net, c: net.op("Clip", c, net.const(0.0), net.const(6.0), out="r"),
        lambda net, c: net.op("PRelu", c, constant(net), out="r"),
        lambda net, c: net.op("Max", c, net.const(0.0), out="r"),
        lambda net, c: net.relu(net.relu(c, "r"), "later"),
        lambda net, c: net.op("Concat", net.relu(c, "r"), net.op("Add", c, constant(net)), axis=1) and "r",
        lambda net, c: net.relu(net.op("InstanceNormalization", c, net.bias(4), net.bias(4)), "r"),
    ],
)
def test_through_what_keeps_the_channel(tail: Tail) -> None:
    assert site(tail) == ("r", "mean")


def test_through_transposes() -> None:
    net = Net()
    net.conv(net.input(), 3, 4, out="c")
    r = net.relu(net.op("Add", net.op("Transpose", "c", perm=[0, 2, 3, 1]), net.bias(4)), "r")
    net.gemm(net.op("ReduceMean", r, net.ints(1, 2), keepdims=0), 4, out="y")
    assert layers_of(net.model("y"))["c"].site == Site("r", 3, "mean")


@pytest.mark.parametrize(
    ("tail", "value"),
    [
        (lambda net, c: net.conv(c, 4, 4), "c"),
        (lambda net, c: net.conv(net.bn(c, 4, "n"), 4, 4), "n"),
        (lambda net, c: net.conv(net.op("Add", net.bn(c, 4), constant(net), out="n"), 4, 4), "n"),
        (lambda net, c: net.conv(net.op("MaxPool", c, kernel_shape=[2, 2]), 4, 4), "c"),
        (lambda net, c: net.conv(net.op("Add", c, net.conv("x", 3, 4)), 4, 4), "c"),
        (lambda net, c: net.op("Mul", c, net.op("Sigmoid", net.conv("x", 3, 4))), "c"),
        (lambda net, c: net.relu(net.op("Concat", c, c, axis=1)) and net.conv("x", 3, 4), "c"),
    ],
)
def test_before_a_nonlinearity_its_own_output(tail: Tail, value: str) -> None:
    assert site(tail) == (value, "mean_abs")


def test_a_graph_output_ends_the_search() -> None:
    net = Net()
    c = net.conv(net.input(), 3, 4, out="c")
    net.relu(net.bn(c, 4, "n"), "r")
    for outputs, expected in (
        (("r",), Site("r", 1, "mean")),
        (("c", "r"), Site("c", 1, "mean_abs")),
        (("n", "r"), Site("r", 1, "mean")),  # equally near: the non-linearity counts
    ):
        assert layers_of(net.model(*outputs))["c"].site == expected


def test_what_a_subgraph_reads_ends_the_search() -> None:
    layers = layers_of(CASES["branch_captures_activation"].build())
    assert [layer.site.value for layer in layers.values()] == ["a", "b"]


def test_filters_that_share_a_site() -> None:
    net = Net()
    x = net.input()
    s = net.relu(net.op("Add", net.conv(x, 3, 4, out="a"), net.conv(x, 3, 4, out="b")), "s")
    found = walked(net.head(s, 4))
    layers = find_layers(found)
    assert [layer.site for layer in layers] == [Site("s", 1, "mean")] * 2
    assert layers[0].slots.tolist() == layers[1].slots.tolist()


def test_the_slots_are_those_of_the_site() -> None:
    """Between a convolution and its BatchNormalization the slots are idle."""
    net = Net()
    net.relu(net.bn(net.conv(net.input(), 3, 4, out="c"), 4), "r")
    found = walked(net.head("r", 4))
    (layer,) = find_layers(found)
    assert layer.slots.tolist() == found.ids["r"].reshape(-1).tolist() != found.ids["c"].reshape(-1).tolist()
    assert not found.groups.is_pinned(layer.slots).any()


@pytest.mark.parametrize(("kind", "expected"), [("conv", []), ("all", ["g", "m", "left", "y"])])
def test_dense_layers_only_on_demand(kind: FilterKind, expected: list[str]) -> None:
    net = Net()
    g = net.relu(net.gemm(net.input(shape=("N", 6)), 6, 5, "g"))
    m = net.relu(net.op("MatMul", g, net.weight(5, 4), out="m"))
    left = net.op("MatMul", net.weight(1, 1), net.op("MatMul", m, net.op("Transpose", m)), out="left")
    del left
    net.op("Gemm", m, net.weight(3, 4), net.bias(3), transB=1, out="y")
    layers = layers_of(net.model("y", "left"), kind)
    assert [name for name in expected if name != "left"] == list(layers)
    assert {layer.op for layer in layers.values()} <= {"Gemm", "MatMul"}


def test_no_filters_no_layers() -> None:
    net = Net()
    net.relu(net.input(), "y")
    assert find_layers(walked(net.model("y"))) == ()


@pytest.mark.parametrize("name", list(CASES))
def test_every_convolution_is_a_layer(name: str) -> None:
    proto = CASES[name].build()
    layers = layers_of(proto)
    assert list(layers) == [n.output[0] for n in ordered(proto) if n.op_type in {"Conv", "ConvTranspose"}]
    for layer in layers.values():
        assert layer.slots.shape == (layer.channels,)


def ordered(proto: onnx.ModelProto) -> list[onnx.NodeProto]:
    nodes = {node.output[0]: node for node in proto.graph.node}
    return [nodes[found.outputs[0]] for found in walked(proto).graph.nodes]
