"""Synthetic networks of any number of nodes, one family per way in which a graph can be large.

`mixed` repeats a block with everything in it: Conv, BatchNormalization, Relu, the Add of a residual, two branches and a
Concat, a gate (GlobalAveragePool, Conv, Sigmoid, Mul) and a pool. `residual` is one trunk to which every block adds, so
all its channels share their scales from end to end. `relu6` has one pair of Clip bounds that all its activations share.
`silu` has the product of every convolution with its Sigmoid. `gated` multiplies a trunk by one linear branch after the
other, so that each product of scales hangs on the next.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

__all__ = ["FAMILIES", "network"]

CHANNELS = 16
SIZE = 16

Array = npt.NDArray[np.float32]


class Builder:
    """Nodes and initializers, with names that count up."""

    def __init__(self, seed: int = 0) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, Array] = {}
        self._rng = np.random.default_rng(seed)

    def add(self, op: str, *inputs: str, **attributes: Any) -> str:
        """Append a node; returns the name of its output."""
        output = f"{op.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(inputs), [output], output, **attributes))
        return output

    def constant(self, name: str, array: npt.ArrayLike) -> str:
        """Keep an initializer; returns its name."""
        self.constants[name] = np.asarray(array, np.float32)
        return name

    def conv(self, value: str, inputs: int = CHANNELS, outputs: int = CHANNELS, kernel: int = 3) -> str:
        """A convolution that keeps the size, with a bias."""
        index = len(self.nodes)
        weight = self._rng.standard_normal((outputs, inputs, kernel, kernel)) / (inputs * kernel * kernel) ** 0.5
        return self.add(
            "Conv",
            value,
            self.constant(f"weight_{index}", weight.astype(np.float32)),
            self.constant(f"bias_{index}", np.full(outputs, 0.1, np.float32)),
            pads=[kernel // 2] * 4,
        )

    def norm(self, value: str) -> str:
        """A BatchNormalization that changes little."""
        index = len(self.nodes)
        parts = {"gamma": 1.1, "beta": 0.1, "mean": 0.05, "variance": 1.2}
        names = [self.constant(f"{part}_{index}", np.full(CHANNELS, number)) for part, number in parts.items()]
        return self.add("BatchNormalization", value, *names)


def mixed(build: Builder, value: str) -> Iterator[str]:
    while True:
        inner = build.add("Relu", build.norm(build.conv(value)))
        joined = build.add("Relu", build.add("Add", build.norm(build.conv(inner)), value))
        halves = [build.add("Relu", build.conv(joined, outputs=CHANNELS // 2)) for _ in range(2)]
        both = build.add("Concat", *halves, axis=1)
        gate = build.add("Sigmoid", build.conv(build.add("GlobalAveragePool", both), kernel=1))
        gated = build.add("Mul", both, gate)
        value = build.add("MaxPool", gated, kernel_shape=[3, 3], pads=[1, 1, 1, 1])
        yield value


def residual(build: Builder, value: str) -> Iterator[str]:
    value = build.conv(value)
    while True:
        branch = build.norm(build.conv(build.add("Relu", value)))
        value = build.add("Add", value, branch)
        yield value


def relu6(build: Builder, value: str) -> Iterator[str]:
    low, high = build.constant("low", 0), build.constant("high", 6)
    while True:
        value = build.add("Clip", build.conv(value), low, high)
        yield value


def silu(build: Builder, value: str) -> Iterator[str]:
    while True:
        inner = build.conv(value)
        value = build.add("Mul", inner, build.add("Sigmoid", inner))
        yield value


def gated(build: Builder, value: str) -> Iterator[str]:
    value = build.conv(value)
    while True:
        value = build.add("Mul", value, build.conv(build.add("Relu", value), kernel=1))
        yield value


FAMILIES: Mapping[str, Callable[[Builder, str], Iterator[str]]] = {
    "mixed": mixed,
    "residual": residual,
    "relu6": relu6,
    "silu": silu,
    "gated": gated,
}


def network(family: str, nodes: int) -> onnx.ModelProto:
    """A network of at least this many nodes, by less than one block more; input `(N, 3, 16, 16)`."""
    build = Builder()
    blocks = FAMILIES[family](build, build.conv("input", inputs=3))
    output = next(value for value in blocks if len(build.nodes) >= nodes - 1)
    output = build.conv(output, kernel=1)
    graph = helper.make_graph(
        build.nodes,
        family,
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", 3, SIZE, SIZE])],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["N", CHANNELS, SIZE, SIZE])],
        [numpy_helper.from_array(array, name) for name, array in build.constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
