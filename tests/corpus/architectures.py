"""Small versions of known architectures."""

from __future__ import annotations

import onnx

from tests.corpus.case import case
from tests.corpus.net import Net


@case(4, 8, 0, scales={"s": 4})
def residual_after_activation() -> onnx.ModelProto:
    """ResNet: Conv, BN, Relu, Conv, BN, Add, Relu; an identity shortcut."""
    net = Net()
    stem = net.relu(net.bn(net.conv(net.input(), 3, 4, b=None), 4), "stem")
    a = net.relu(net.bn(net.conv(stem, 4, 4, b=None), 4), "a")
    b = net.bn(net.conv(a, 4, 4, b=None), 4)
    return net.head(net.relu(net.op("Add", b, stem), "s"), 4)


@case(20, 0, 0)
def residual_before_activation() -> onnx.ModelProto:
    """Pre-activation ResNet: two blocks on one trunk, filters measured behind BatchNormalizations of their own."""
    net = Net()
    trunk = net.conv(net.input(), 3, 4)
    for _ in range(2):
        a = net.relu(net.bn(trunk, 4))
        a = net.relu(net.bn(net.conv(a, 4, 4, b=None), 4))
        trunk = net.op("Add", trunk, net.conv(a, 4, 4))
    return net.head(net.relu(net.bn(trunk, 4)), 4)


@case(9, 0, 0, free="d")
def dense_net() -> onnx.ModelProto:
    """DenseNet: each layer reads all before it, through a BatchNormalization of its own."""
    net = Net()
    x = net.block(net.input(), 3, 3)
    for channels in (3, 6):
        y = net.conv(net.relu(net.bn(x, channels)), channels, 3)
        x = net.op("Concat", x, y, axis=1, out="d" if channels == 6 else "")
    return net.head(net.relu(net.bn(x, 9)), 9)


@case(0, 36, 0, clones=True)
def inverted_residual() -> onnx.ModelProto:
    """MobileNet v2: expand, depthwise, project, Add; ReLU6 with bounds shared by all."""
    net = Net()
    low, high = net.const(0.0), net.const(6.0)
    stem = net.op("Clip", net.conv(net.input(), 3, 4), low, high)
    a = net.op("Clip", net.bn(net.conv(stem, 4, 12, k=1, b=None), 12), low, high)
    b = net.op("Clip", net.bn(net.conv(a, 12, 12, group=12, b=None), 12), low, high)
    s = net.op("Add", stem, net.bn(net.conv(b, 12, 4, k=1, b=None), 4))
    return net.head(net.op("Clip", net.conv(s, 4, 4, k=1), low, high), 4)


@case(19, 0, 1)
def u_net() -> onnx.ModelProto:
    """Down, up by ConvTranspose, and a skip by Concat; a Sigmoid at the end."""
    net = Net()
    a = net.block(net.input(), 3, 4)
    b = net.block(net.op("MaxPool", a, kernel_shape=[2, 2], strides=[2, 2]), 4, 6)
    up = net.op("ConvTranspose", b, net.weight(6, 4, 2, 2), net.bias(4), strides=[2, 2])
    c = net.block(net.op("Concat", up, a, axis=1), 8, 5)
    return net.model(net.op("Sigmoid", net.conv(c, 5, 1, k=1), out="y"))


@case(13, 0, 0, free="c")
def inception() -> onnx.ModelProto:
    """Four branches and a Concat, one through an AveragePool."""
    net = Net()
    x = net.block(net.input(), 3, 3)
    pooled = net.op("AveragePool", x, kernel_shape=[3, 3], pads=[1] * 4)
    branches = [net.block(x, 3, 2, k=1), net.block(net.block(x, 3, 2, k=1), 2, 3), net.block(pooled, 3, 3, k=1), x]
    return net.head(net.op("Concat", *branches, axis=1, out="c"), 11)
