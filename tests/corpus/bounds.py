"""Bounds: Clip and its kind."""

from __future__ import annotations

import onnx

from tests.corpus.case import case
from tests.corpus.net import Net


@case(0, 8, 0, scales={"a": 1, "b": 1}, clones=True)
def relu6_with_shared_bounds() -> onnx.ModelProto:
    """Two ReLU6 that share their bounds: each has one scale, so the upper bound is cloned."""
    net = Net()
    low, high = net.const(0.0), net.const(6.0)
    a = net.op("Clip", net.conv(net.input(), 3, 4), low, high, out="a")
    return net.head(net.op("Clip", net.conv(a, 4, 4), low, high, out="b"), 4)


@case(0, 0, 4, pinned="a", reason="attributes")
def relu6_with_attributes() -> onnx.ModelProto:
    """Before opset 11 the bounds are attributes."""
    net = Net(10)
    return net.head(net.op("Clip", net.conv(net.input(), 3, 4), min=0.0, max=6.0, out="a"), 4)


@case(4, 0, 0, scales={"a": 4})
def clip_at_zero_with_attributes() -> onnx.ModelProto:
    """Its twin: only a lower bound of 0."""
    net = Net(10)
    return net.head(net.op("Clip", net.conv(net.input(), 3, 4), min=0.0, out="a"), 4)


@case(0, 4, 0, scales={"a": 1})
def clip_without_lower_bound() -> onnx.ModelProto:
    """An optional input left out."""
    net = Net()
    return net.head(net.op("Clip", net.conv(net.input(), 3, 4), "", net.const(0.7), out="a"), 4)


@case(0, 0, 4, pinned="a", reason="bounds are not constants")
def clip_with_computed_bound() -> onnx.ModelProto:
    """A bound that comes from the data."""
    net = Net()
    x = net.input()
    bound = net.op("Abs", net.op("ReduceMean", x, keepdims=0))
    return net.head(net.op("Clip", net.conv(x, 3, 4), "", bound, out="a"), 4)


@case(4, 0, 0, scales={"a": 4})
def thresholded_relu_at_zero() -> onnx.ModelProto:
    """ThresholdedRelu with threshold 0 is Relu."""
    net = Net()
    return net.head(net.op("ThresholdedRelu", net.conv(net.input(), 3, 4), alpha=0.0, out="a"), 4)


@case(0, 0, 4, pinned="a", reason="threshold")
def thresholded_relu_at_one() -> onnx.ModelProto:
    """Its twin."""
    net = Net()
    return net.head(net.op("ThresholdedRelu", net.conv(net.input(), 3, 4), alpha=1.0, out="a"), 4)


@case(8, 0, 0, scales={"a": 4})
def prelu_with_shared_slope() -> onnx.ModelProto:
    """Slopes per channel, shared by two layers, are read and never changed."""
    net = Net()
    slope = net.const(net.random.uniform(0, 0.5, (4, 1, 1)))
    a = net.op("PRelu", net.conv(net.input(), 3, 4), slope, out="a")
    return net.head(net.op("PRelu", net.conv(a, 4, 4), slope), 4)


@case(8, 0, 0, free="a b", clones=True)
def prelu_whose_slope_is_a_bias() -> onnx.ModelProto:
    """A slope that is also added somewhere keeps its values, the summand gets new ones."""
    net = Net()
    slope = net.const(net.random.uniform(0.1, 0.5, (4, 1, 1)))
    a = net.op("PRelu", net.op("Add", net.conv(net.input(), 3, 4), slope), slope, out="a")
    return net.head(net.block(a, 4, 4, "b"), 4)
