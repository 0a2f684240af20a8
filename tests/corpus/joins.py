"""Joins: sums, concatenations, and what ties filters of several layers."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto

from tests.corpus.case import case
from tests.corpus.net import Net


@case(4, 8, 0, scales={"s": 4})
def add_with_a_third_reader() -> onnx.ModelProto:
    """The other producer of an Add also feeds a third node."""
    net = Net()
    x = net.input()
    a, b = net.block(x, 3, 4), net.block(x, 3, 4)
    s = net.op("Add", a, b, out="s")
    return net.head(net.op("Concat", s, net.block(b, 4, 4), axis=1), 8)


@case(0, 0, 8, pinned="s a")
def add_whose_reader_is_a_barrier() -> onnx.ModelProto:
    """Its twin: the third node is a Tanh, which pins both."""
    net = Net()
    x = net.input()
    a, b = net.block(x, 3, 4, "a"), net.block(x, 3, 4)
    s = net.op("Add", a, b, out="s")
    return net.head(net.op("Concat", s, net.op("Tanh", b), axis=1), 8)


@case(4, 0, 0, free="s")
def added_to_itself() -> onnx.ModelProto:
    """x + x."""
    net = Net()
    a = net.block(net.input(), 3, 4)
    return net.head(net.op("Add", a, a, out="s"), 4)


@case(4, 0, 0, free="s a")
def multiplied_by_itself() -> onnx.ModelProto:
    """x * x."""
    net = Net()
    a = net.block(net.input(), 3, 4, "a")
    return net.head(net.op("Mul", a, a, out="s"), 4)


@case(0, 4, 0, scales={"a": 1})
def divided_by_itself() -> onnx.ModelProto:
    """|x + 1| / (x + 1): the quotient of a scale by itself is 1; the constant ties all channels."""
    net = Net()
    a = net.block(net.input(), 3, 4, "a")
    b = net.op("Add", a, net.const([1.0]))
    return net.head(net.op("Div", net.op("Abs", b), b), 4)


@case(4, 0, 0, free="s", scales={"s": 4})
def concatenated_with_itself() -> onnx.ModelProto:
    """Concat(x, x)."""
    net = Net()
    a = net.block(net.input(), 3, 4)
    return net.head(net.op("Concat", a, a, axis=1, out="s"), 8)


@case(4, 0, 0, free="s")
def crelu() -> onnx.ModelProto:
    """Concat(x, -x), then Relu."""
    net = Net()
    a = net.conv(net.input(), 3, 4)
    return net.head(net.relu(net.op("Concat", a, net.op("Neg", a), axis=1), "s"), 8)


@case(3, 0, 0, free="a")
def constant_per_channel_added() -> onnx.ModelProto:
    """A constant with a number per channel."""
    net = Net()
    c = net.const(np.array([1.0, -0.5, 0.25]).reshape(3, 1, 1))
    return net.head(net.relu(net.op("Add", net.conv(net.input(), 3, 3), c), "a"), 3)


@case(3, 0, 0, free="a")
def constant_map_added() -> onnx.ModelProto:
    """A constant with a number per element (a positional embedding), on the left of a Sub."""
    net = Net()
    c = net.const(net.random.normal(0, 1, (1, 3, 8, 8)))
    return net.head(net.relu(net.op("Sub", c, net.conv(net.input(), 3, 3)), "a"), 3)


@case(0, 3, 0, free="a", scales={"a": 1})
def scalar_added() -> onnx.ModelProto:
    """A scalar can carry one scale only."""
    net = Net()
    return net.head(net.relu(net.op("Add", net.conv(net.input(), 3, 3), net.const(0.5)), "a"), 3)


@case(3, 0, 0, free="a", scales={"a": 3})
def zero_added() -> onnx.ModelProto:
    """Its twin: zero carries all scales."""
    net = Net()
    return net.head(net.relu(net.op("Add", net.conv(net.input(), 3, 3), net.const([0.0])), "a"), 3)


@case(0, 3, 0, free="a", scales={"a": 1})
def positions_added() -> onnx.ModelProto:
    """A constant with a number per row, mostly zero, the same for all channels."""
    net = Net()
    c = net.const(np.where(np.arange(8) == 3, 0.5, 0).reshape(8, 1))
    return net.head(net.relu(net.op("Add", net.conv(net.input(), 3, 3), c), "a"), 3)


@case(0, 4, 0, scales={"a": 1})
def reduce_mean_over_channels() -> onnx.ModelProto:
    """A mean over channels: they share a scale."""
    net = Net()
    m = net.op("ReduceMean", net.block(net.input(), 3, 4, "a"), net.ints(1), keepdims=1)
    return net.head(m, 1)


@case(4, 0, 0, scales={"m": 4})
def reduce_mean_over_positions() -> onnx.ModelProto:
    """Its twin: a mean over positions keeps channels apart."""
    net = Net(13)
    m = net.op("ReduceMean", net.block(net.input(), 3, 4), axes=[-1, -2], keepdims=0, out="m")
    net.gemm(m, 4, out="y")
    return net.model("y")


@case(0, 4, 0, scales={"a": 1})
def maximum_with_a_scalar() -> onnx.ModelProto:
    """Max(x, 0.2), a constant to be scaled."""
    net = Net()
    return net.head(net.op("Max", net.conv(net.input(), 3, 4), net.const([0.2]), out="a"), 4)


@case(4, 4, 0, free="a")
def minimum_of_two() -> onnx.ModelProto:
    """Min of two activations, and an untied layer behind."""
    net = Net()
    x = net.input()
    a = net.op("Min", net.conv(x, 3, 2), net.conv(x, 3, 2), out="a")
    return net.head(net.block(a, 2, 4), 4)


@case(0, 8, 0, scales={"a": 4})
def where_constant_condition() -> onnx.ModelProto:
    """A constant mask chooses between two activations."""
    net = Net()
    mask = net.const(net.random.random((1, 1, 8, 8)) < 0.5, dtype=TensorProto.BOOL)
    x = net.input()
    return net.head(net.op("Where", mask, net.block(x, 3, 4), net.block(x, 3, 4), out="a"), 4)


@case(0, 4, 0, scales={"a": 1})
def where_constant_branch() -> onnx.ModelProto:
    """Where chooses between an activation and a number."""
    net = Net()
    mask = net.const(net.random.random((1, 1, 8, 8)) < 0.5, dtype=TensorProto.BOOL)
    return net.head(net.relu(net.op("Where", mask, net.conv(net.input(), 3, 4), net.const([1.5])), "a"), 4)


@case(4, 0, 0, free="a")
def condition_from_sign() -> onnx.ModelProto:
    """The sign of an activation has no scale and pins nothing."""
    net = Net()
    a = net.conv(net.input(), 3, 4, out="a")
    return net.head(net.op("Mul", net.relu(a), net.op("Sign", a)), 4)
