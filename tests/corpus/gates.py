"""Gates: products of two values, one of which decides about the other."""

from __future__ import annotations

import numpy as np
import onnx

from tests.corpus.case import case
from tests.corpus.net import Net


@case(4, 0, 4, free="a m", pinned="g")
def gate_with_sigmoid() -> onnx.ModelProto:
    """conv(x) * sigmoid(conv(x)): the gate is pinned, the other passes through."""
    net = Net()
    x = net.input()
    g = net.op("Sigmoid", net.conv(x, 3, 4), out="g")
    return net.head(net.relu(net.op("Mul", g, net.conv(x, 3, 4, out="a"), out="m")), 4)


@case(8, 0, 0, free="m")
def gate_of_two_relus() -> onnx.ModelProto:
    """Both sides are free, and the product has the product of their scales."""
    net = Net()
    x = net.input()
    return net.head(net.op("Mul", net.block(x, 3, 4), net.block(x, 3, 4), out="m"), 4)


@case(6, 0, 4, free="r m")
def squeeze_and_excitation() -> onnx.ModelProto:
    """SE: pool, two 1x1 convolutions, HardSigmoid, and the product."""
    net = Net(seed=6)
    r = net.block(net.input(), 3, 4, "r")
    s = net.block(net.op("GlobalAveragePool", r), 4, 2, k=1)
    return net.head(net.op("Mul", r, net.op("HardSigmoid", net.conv(s, 2, 4, k=1)), out="m"), 4)


@case(4, 0, 1, free="r m")
def spatial_attention() -> onnx.ModelProto:
    """A gate with one channel, over positions."""
    net = Net()
    r = net.block(net.input(), 3, 4, "r")
    return net.head(net.op("Mul", r, net.op("Sigmoid", net.conv(r, 4, 1)), out="m"), 4)


@case(0, 0, 4, pinned="a")
def swish() -> onnx.ModelProto:
    """x * sigmoid(x)."""
    net = Net()
    a = net.conv(net.input(), 3, 4, out="a")
    return net.head(net.op("Mul", a, net.op("Sigmoid", a)), 4)


@case(0, 4, 0, free="a")
def hard_swish_by_hand() -> onnx.ModelProto:
    """x * clip(x + 3, 0, 6) / 6."""
    net = Net()
    a = net.conv(net.input(), 3, 4, out="a")
    c = net.op("Clip", net.op("Add", a, net.const(3.0)), net.const(0.0), net.const(6.0))
    return net.head(net.op("Div", net.op("Mul", a, c), net.const(6.0)), 4)


@case(0, 4, 0, free="a")
def product_must_be_one() -> onnx.ModelProto:
    """A product that goes into a barrier: one factor has the inverse scale of the other."""
    net = Net()
    x = net.input()
    m = net.op("Mul", net.block(x, 3, 2, "a"), net.block(x, 3, 2))
    return net.head(net.op("Softmax", m, axis=1), 2)


@case(8, 0, 4)
def product_of_three() -> onnx.ModelProto:
    """(a / b) joined with c: a quotient whose divisor is pinned."""
    net = Net()
    x = net.input()
    b = net.op("Add", net.op("Sigmoid", net.conv(x, 3, 4)), net.const(1.0))
    q = net.op("Div", net.block(x, 3, 4), b)
    return net.head(net.op("Concat", q, net.block(x, 3, 4), axis=1), 8)


@case(4, 0, 0, free="a")
def divided_by_constant() -> onnx.ModelProto:
    """Div by a constant per channel."""
    net = Net()
    c = net.const(net.random.uniform(1, 2, (4, 1, 1)))
    return net.head(net.op("Div", net.block(net.input(), 3, 4, "a"), c), 4)


@case(4, 0, 0, free="a")
def constant_divided() -> onnx.ModelProto:
    """1 / x."""
    net = Net()
    a = net.op("Add", net.block(net.input(), 3, 4), net.const(np.ones((4, 1, 1))), out="a")
    return net.head(net.op("Div", net.const(1.0), a), 4)
