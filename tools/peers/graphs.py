"""Small convolutional networks, each with one corner that a function-preserving rescaler has to get right.

Weights come from fixed seeds. Every output channel has a magnitude of its own, spread by a factor of about e up and
down, so that equalizing a pair of layers changes almost every weight of both.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

__all__ = ["GRAPHS", "SHAPE", "Graph", "build"]

SHAPE = (1, 3, 16, 16)
OPSET, IR = 13, 8
SPREAD = 1.0
Array = NDArray[Any]


class Net:
    """A graph in the making: every method adds nodes behind a value and returns the name of the new one."""

    def __init__(self, seed: int, *, constants_as_nodes: bool = False) -> None:
        self.rng = np.random.default_rng(seed)
        self.constants_as_nodes = constants_as_nodes
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.outputs: list[str] = []

    def constant(self, name: str, values: Array) -> str:
        tensor = numpy_helper.from_array(values, name)
        if self.constants_as_nodes:
            self.nodes.append(helper.make_node("Constant", [], [name], f"constant_{name}", value=tensor))
        else:
            self.initializers.append(tensor)
        return name

    def node(self, op: str, *inputs: str, **attributes: Any) -> str:
        name = f"{op.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [name], f"node_{name}", **attributes))
        return name

    def weights(self, outputs: int, inputs: int, kernel: int = 3) -> Array:
        """He-normal weights, times a magnitude per output channel."""
        shape = (outputs, inputs, kernel, kernel)
        scale = np.exp(SPREAD * self.rng.standard_normal(outputs)).reshape(-1, 1, 1, 1)
        values = self.rng.standard_normal(shape) * scale * (2 / (inputs * kernel * kernel)) ** 0.5
        return np.asarray(values, np.float32)

    def biases(self, outputs: int) -> Array:
        return (0.3 * self.rng.standard_normal(outputs)).astype(np.float32)

    def conv(self, value: str, weight: Array | str, bias: Array | str | None = None, **changes: Any) -> str:
        """A 3x3 convolution with every attribute spelled out, as PyTorch exports it."""
        number = len(self.nodes)
        names = [weight if isinstance(weight, str) else self.constant(f"w{number}", weight)]
        if bias is not None:
            names.append(bias if isinstance(bias, str) else self.constant(f"b{number}", bias))
        attributes = {"group": 1, "kernel_shape": [3, 3], "pads": [1] * 4, "strides": [1, 1], "dilations": [1, 1]}
        return self.node("Conv", value, *names, **attributes | changes)

    def layer(self, value: str, outputs: int, inputs: int, **changes: Any) -> str:
        """Conv and Relu, with weights and biases of their own."""
        weight = self.weights(outputs, inputs // changes.get("group", 1))
        return self.node("Relu", self.conv(value, weight, self.biases(outputs), **changes))

    def last(self, value: str, outputs: int, inputs: int) -> str:
        """The last layer: Conv, whose value is an output of the graph."""
        name = self.conv(value, self.weights(outputs, inputs), self.biases(outputs))
        self.outputs.append(name)
        return name

    def batch_norm(self, value: str, channels: int) -> str:
        rng, number = self.rng, len(self.nodes)
        parameters = {
            "scale": np.exp(rng.standard_normal(channels)),
            "shift": 0.3 * rng.standard_normal(channels),
            "mean": 0.3 * rng.standard_normal(channels),
            "var": np.exp(rng.standard_normal(channels)),
        }
        names = [self.constant(f"{key}{number}", array.astype(np.float32)) for key, array in parameters.items()]
        return self.node("BatchNormalization", value, *names, epsilon=1e-5)


def chain(net: Net) -> None:
    net.last(net.layer(net.layer("x", 16, 3), 24, 16), 8, 24)


def relu_is_output(net: Net) -> None:
    relu = net.layer("x", 16, 3)
    net.outputs.append(relu)
    net.last(relu, 8, 16)


def shared_weights(net: Net) -> None:
    weight = net.constant("shared", net.weights(16, 16))
    value = net.layer("x", 16, 3)
    for _ in range(2):
        value = net.node("Relu", net.conv(value, weight, net.biases(16)))
    net.last(value, 8, 16)


def shared_bias(net: Net) -> None:
    bias = net.constant("shared", net.biases(16))
    value = net.node("Relu", net.conv("x", net.weights(16, 3), bias))
    value = net.node("Relu", net.conv(value, net.weights(16, 16), bias))
    net.last(value, 8, 16)


def grouped(net: Net) -> None:
    net.last(net.layer(net.layer("x", 16, 3), 16, 16, group=2), 8, 16)


def pad_with_one(net: Net) -> None:
    pads = net.constant("pads", np.array([0, 0, 1, 1, 0, 0, 1, 1], np.int64))
    one = net.constant("one", np.array(1, np.float32))
    net.last(net.node("Pad", net.layer("x", 16, 3), pads, one, mode="constant"), 8, 16)


def mean_over_channels(net: Net) -> None:
    net.last(net.node("ReduceMean", net.layer("x", 16, 3), axes=[1], keepdims=1), 8, 1)


def dead_filter(net: Net) -> None:
    """Filters that training has driven to zero, and so has it the weights that read them."""
    first, second, bias = net.weights(16, 3), net.weights(8, 16), net.biases(16)
    for array in (first, bias, second.swapaxes(0, 1)):
        array[[3, 7]] = 0
    net.outputs.append(net.conv(net.node("Relu", net.conv("x", first, bias)), second, net.biases(8)))


def add_with_a_third_reader(net: Net) -> None:
    one, other = net.layer("x", 16, 3), net.layer("x", 16, 3)
    net.last(net.node("Add", one, other), 8, 16)
    net.last(other, 8, 16)


def max_pool(net: Net) -> None:
    net.last(net.node("MaxPool", net.layer("x", 16, 3), kernel_shape=[2, 2], strides=[2, 2]), 8, 16)


def concat(net: Net) -> None:
    net.last(net.node("Concat", net.layer("x", 16, 3), net.layer("x", 16, 3), axis=1), 8, 32)


def flatten(net: Net) -> None:
    value = net.node("Flatten", net.layer("x", 8, 3, strides=[2, 2]), axis=1)
    weight = net.constant("wg", net.weights(10, 8 * 8 * 8, 1).reshape(10, -1))
    net.outputs.append(net.node("Gemm", value, weight, net.constant("bg", net.biases(10)), transB=1))


def batch_norm(net: Net) -> None:
    value = "x"
    for outputs, inputs in ((16, 3), (24, 16)):
        value = net.node("Relu", net.batch_norm(net.conv(value, net.weights(outputs, inputs)), outputs))
    net.last(value, 8, 24)


@dataclass(frozen=True)
class Graph:
    """A graph's name, what is special about it, how to build it, and its element type."""

    name: str
    title: str
    make: Callable[[Net], None]
    half: bool = False
    constants_as_nodes: bool = False


GRAPHS = (
    Graph("chain", "three Convs and their Relus", chain),
    Graph("relu_is_output", "a Relu that is also a graph output", relu_is_output),
    Graph("shared_weights", "weights used by two Convs", shared_weights),
    Graph("shared_bias", "a bias used by two Convs", shared_bias),
    Graph("grouped", "Conv with group=2", grouped),
    Graph("pad_with_one", "Pad with constant 1", pad_with_one),
    Graph("mean_over_channels", "ReduceMean over channels", mean_over_channels),
    Graph("half", "fp16 model", chain, half=True),
    Graph("dead_filter", "dead filters", dead_filter),
    Graph("third_reader", "Add whose other producer feeds a third node", add_with_a_third_reader),
    Graph("max_pool", "Conv→MaxPool→Conv", max_pool),
    Graph("concat", "Concat", concat),
    Graph("flatten", "Flatten→Gemm", flatten),
    Graph("batch_norm", "unfolded BatchNormalization", batch_norm),
    Graph("constant_nodes", "weights as Constant nodes", chain, constants_as_nodes=True),
)


def build(graph: Graph) -> onnx.ModelProto:
    """The model of a graph, checked, with shapes inferred, which some tools need."""
    net = Net(seed=1, constants_as_nodes=graph.constants_as_nodes)
    graph.make(net)
    kind = TensorProto.FLOAT16 if graph.half else TensorProto.FLOAT
    if graph.half:
        net.initializers = [
            numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), tensor.name)
            for tensor in net.initializers
        ]
    proto = helper.make_graph(
        net.nodes,
        graph.name,
        [helper.make_tensor_value_info("x", kind, SHAPE)],
        [helper.make_tensor_value_info(name, kind, None) for name in net.outputs],
        net.initializers,
    )
    model = helper.make_model(proto, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR)
    model = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    onnx.checker.check_model(model, full_check=True)
    return model
