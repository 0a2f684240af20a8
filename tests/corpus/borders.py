"""Outputs and inputs of the graph."""

from __future__ import annotations

import onnx

from tests.corpus.case import case
from tests.corpus.net import Net


@case(5, 0, 4, pinned="r", reason="graph output")
def relu_is_also_output() -> onnx.ModelProto:
    """An intermediate activation that is visible from outside."""
    net = Net()
    r = net.block(net.input(), 3, 4, "r")
    net.head(net.block(r, 4, 5), 5)
    return net.model("y", r)


@case(0, 0, 4, pinned="r", reason="graph output")
def conv_is_output() -> onnx.ModelProto:
    """The last layer is what the network is for."""
    net = Net()
    return net.model(net.conv(net.input(), 3, 4, out="r"))


@case(4, 0, 7, free="a", pinned="b c")
def two_heads() -> onnx.ModelProto:
    """A trunk with two outputs of convolutions."""
    net = Net()
    a = net.block(net.input(), 3, 4, "a")
    return net.model(net.conv(a, 4, 5, out="b"), net.conv(a, 4, 2, out="c"))


@case(4, 0, 0)
def input_is_output() -> onnx.ModelProto:
    """A graph input handed through, and a constant beside it."""
    net = Net()
    x = net.input()
    net.head(net.block(x, 3, 4), 4)
    net.op("Identity", net.const([1.0, 2.0]), out="k")
    net.op("Identity", x, out="z")
    return net.model("y", "k", "z")


@case(0, 0, 3, pinned="s", reason="graph input")
def residual_on_input() -> onnx.ModelProto:
    """x + conv(x): tied to the input, whose scale is 1."""
    net = Net()
    x = net.input()
    return net.head(net.relu(net.op("Add", x, net.conv(x, 3, 3), out="s")), 3)


@case(8, 0, 0, free="a b")
def two_inputs() -> onnx.ModelProto:
    """Two inputs of different sizes, joined behind their pools."""
    net = Net()
    a = net.block(net.input("x"), 3, 4, "a")
    b = net.block(net.input("z", ("N", 1, 5, 7)), 1, 4, "b")
    pooled = [net.op("GlobalAveragePool", value) for value in (a, b)]
    return net.head(net.op("Concat", *pooled, axis=1), 8)
