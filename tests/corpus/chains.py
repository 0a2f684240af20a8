"""Chains: what every tool should do."""

from __future__ import annotations

import numpy as np
import onnx

from tests.corpus.case import case
from tests.corpus.net import Net


@case(9, 0, 0, free="a b", scales={"a": 4, "b": 5})
def plain_chain() -> onnx.ModelProto:
    """Two convolutions and a head."""
    net = Net()
    return net.head(net.block(net.block(net.input(), 3, 4, "a"), 4, 5, "b"), 5)


@case(9, 0, 0, free="p")
def max_pool_between() -> onnx.ModelProto:
    """Conv, MaxPool, Conv: VGG."""
    net = Net(seed=2)
    p = net.op("MaxPool", net.block(net.input(), 3, 4), out="p", kernel_shape=[2, 2], strides=[2, 2])
    return net.head(net.block(p, 4, 5), 5)


@case(4, 0, 0, free="f", scales={"f": 4})
def flatten_then_gemm() -> onnx.ModelProto:
    """A dense layer that reads C*H*W numbers, the scales of C channels among them."""
    net = Net()
    f = net.op("Flatten", net.block(net.input(), 3, 4), out="f")
    net.gemm(f, 4 * 64, out="y")
    return net.model("y")


@case(4, 0, 0, free="a b", filters="conv")
def dynamic_size() -> onnx.ModelProto:
    """Batch, height and width are open."""
    net = Net()
    x = net.input(shape=("N", 3, "H", "W"))
    return net.head(net.op("LeakyRelu", net.bn(net.conv(x, 3, 4, b=None), 4, "a"), out="b", alpha=0.1), 4)


@case(4, 0, 0, free="r")
def fixed_batch() -> onnx.ModelProto:
    """The batch is fixed to 2."""
    net = Net()
    return net.head(net.block(net.input(shape=(2, 3, 8, 8)), 3, 4, "r"), 4)


@case(4, 0, 0, dead=1)
def dead_filter() -> onnx.ModelProto:
    """One filter never fires."""
    net = Net()
    w = net.random.normal(0, 1, (4, 3, 3, 3))
    w[2] = 0
    return net.head(net.block(net.input(), 3, 4, w=net.const(w), b=net.const([0.1, 0.2, -1, 0.3])), 4)


@case(4, 0, 0, dead=4)
def all_filters_dead() -> onnx.ModelProto:
    """A layer of zeros."""
    net = Net()
    return net.head(net.block(net.input(), 3, 4, w=net.const(np.zeros((4, 3, 3, 3))), b=None), 4)


@case(8, 0, 0)
def negative_means() -> onnx.ModelProto:
    """LeakyRelu after a negative bias: means below 0."""
    net = Net()
    a = net.op("LeakyRelu", net.conv(net.input(), 3, 4, b=net.const([-9, -8, 7, -9])), alpha=0.2)
    return net.head(net.op("LeakyRelu", net.conv(a, 4, 4), alpha=0.2), 4)


@case(10, 0, 0, free="r")
def bulky_weights() -> onnx.ModelProto:
    """Weights large enough to be left in the file."""
    net = Net()
    return net.head(net.block(net.block(net.input(shape=("N", 130, 4, 4)), 130, 4, "r"), 4, 6), 6)
