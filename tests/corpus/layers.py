"""Other layers than convolutions."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper

from tests.corpus.case import case
from tests.corpus.net import DOUBLE, FLOAT, Net


@case(12, 0, 0, free="a b c")
def grouped_convolutions() -> onnx.ModelProto:
    """Group 2, and depthwise with two filters per channel."""
    net = Net()
    a = net.block(net.input(shape=("N", 4, 8, 8)), 4, 4, "a", group=2)
    b = net.block(a, 4, 2, "b", group=2, b=None)
    return net.head(net.block(b, 2, 6, "c", group=2), 6)


@case(10, 0, 0, free="a b")
def transposed_convolutions() -> onnx.ModelProto:
    """ConvTranspose, with groups, strides and output padding."""
    net = Net()
    a = net.relu(net.op("ConvTranspose", net.input(), net.weight(3, 4, 3, 3), net.bias(4), strides=[2, 2]), "a")
    b = net.op("ConvTranspose", a, net.weight(4, 3, 3, 3), group=2, output_padding=[1, 1], strides=[2, 2])
    return net.head(net.relu(b, "b"), 6)


@case(13, 0, 0)
def one_and_three_dimensions() -> onnx.ModelProto:
    """Conv over one axis, and over three; dilations, auto_pad and an empty bias."""
    net = Net()
    x = net.input(shape=("N", 3, 16))
    a = net.relu(net.op("Conv", x, net.weight(4, 3, 3), "", auto_pad="SAME_UPPER"))
    a = net.relu(net.op("Conv", a, net.weight(4, 2, 3), net.bias(4), dilations=[2], pads=[2, 2], group=2))
    v = net.op("Reshape", a, net.ints(0, 4, 4, 2, 2))
    b = net.relu(net.op("Conv", v, net.weight(5, 4, 2, 2, 2), net.bias(5)))
    net.gemm(net.op("Flatten", net.op("GlobalAveragePool", b)), 5, out="y")
    return net.model("y")


@case(4, 0, 0, free="g")
def gemm_of_every_form() -> onnx.ModelProto:
    """alpha, beta, transA, transB, the constant on the left, a scalar C that ties."""
    net = Net()
    f = net.op("Flatten", net.op("GlobalAveragePool", net.block(net.input(), 3, 4, "g")))
    a = net.op("Gemm", f, net.weight(5, 4), net.weight(1, 5), alpha=0.5, beta=2.0, transB=1)
    b = net.op("Gemm", net.weight(5, 6), net.op("Transpose", net.relu(a)), net.weight(6, 1), transA=1)
    c = net.op("Gemm", net.relu(b), net.weight(6, 3), net.const([0.5]), transA=1)
    net.op("Gemm", net.relu(c), net.weight(3, 2), out="y")
    return net.model("y")


@case(3, 16, 2, filters="all")
def dense_filters() -> onnx.ModelProto:
    """Gemm and MatMul as filters; a scalar C ties."""
    net = Net()
    a = net.relu(net.gemm(net.input(shape=("N", 6)), 6, 3))
    b = net.relu(net.op("Gemm", a, net.weight(3, 16), net.const([0.5])))
    net.op("MatMul", b, net.weight(16, 2), out="y")
    return net.model("y")


@case(0, 4, 0, scales={"a": 1})
def matmul_over_positions() -> onnx.ModelProto:
    """A constant matrix over positions, the same for every channel: it can carry one scale only."""
    net = Net()
    a = net.block(net.input(), 3, 4, "a")
    return net.head(net.op("MatMul", net.weight(5, 8), a), 4)


@case(8, 0, 0, free="a b")
def normalization_unfolded() -> onnx.ModelProto:
    """Conv, BatchNormalization, Relu; and BatchNormalization behind the Relu."""
    net = Net()
    a = net.relu(net.bn(net.conv(net.input(), 3, 4, b=None), 4), "a")
    return net.head(net.bn(net.block(a, 4, 4, "b"), 4), 4)


@case(4, 0, 0)
def normalization_of_opset_7() -> onnx.ModelProto:
    """BatchNormalization with the attribute `spatial`, in opset 8."""
    net = Net(8)
    p = [net.bias(4) for _ in range(4)]
    return net.head(net.relu(net.op("BatchNormalization", net.conv(net.input(), 3, 4), *p, spatial=1)), 4)


@case(4, 0, 4, pinned="a", free="b")
def instance_normalization() -> onnx.ModelProto:
    """It divides by a statistic of its input: input pinned, output free. The first filters are measured behind it."""
    net = Net()
    a = net.block(net.input(), 3, 4, "a")
    n = net.op("InstanceNormalization", a, net.bias(4), net.bias(4))
    return net.head(net.block(n, 4, 4, "b"), 4)


@case(0, 0, 8, pinned="a b", legal=False)
def layer_behind_group_normalization() -> onnx.ModelProto:
    """GroupNormalization pins what it reads, LayerNormalization too."""
    net = Net(21, ir=10)
    a = net.block(net.input(), 3, 4, "a")
    b = net.block(net.op("GroupNormalization", a, net.bias(4), net.bias(4), num_groups=2), 4, 4, "b")
    f = net.op("ReduceMean", b, net.ints(2, 3), keepdims=0)
    net.gemm(net.relu(net.op("LayerNormalization", f, net.bias(4), net.bias(4), out="n")), 4, out="y")
    return net.model("y")


@case(0, 0, 4, pinned="a", reason="alpha, which is an attribute")
def local_response() -> onnx.ModelProto:
    """LRN has a constant of its own."""
    net = Net()
    return net.head(net.op("LRN", net.block(net.input(), 3, 4, "a"), size=3), 4)


@case(0, 4, 0, scales={"a": 1}, rtol=1e-6)
def unit_vectors() -> onnx.ModelProto:
    """LpNormalization over channels has no epsilon: one scale for all of them cancels."""
    net = Net()
    c = net.const(np.full((4, 1, 1), 0.1))
    a = net.op("Add", net.block(net.input(), 3, 4), c, out="a")
    return net.head(net.op("LpNormalization", a, axis=1, p=2), 4)


@case(8, 0, 0, rtol=1e-6)
def pools_of_every_kind() -> onnx.ModelProto:
    """AveragePool, LpPool, MaxPool with indices, GlobalLpPool."""
    net = Net()
    a = net.op("AveragePool", net.block(net.input(), 3, 4), kernel_shape=[3, 3], pads=[1] * 4, count_include_pad=1)
    b, indices = net.many("MaxPool", net.block(a, 4, 4), outs=2, kernel_shape=[2, 2])
    net.op("Identity", indices, out="i")
    c = net.op("GlobalLpPool", net.op("LpPool", b, kernel_shape=[2, 2], p=2), p=2)
    net.gemm(net.op("Flatten", c), 4, out="y")
    return net.model("y", "i", types={"i": TensorProto.INT64})


@case(4, 0, 0, free="a")
def dropout_and_identities() -> onnx.ModelProto:
    """Dropout at inference with its mask unused, Identity, Cast to double and back."""
    net = Net()
    d = net.op("Dropout", net.op("Identity", net.block(net.input(), 3, 4, "a")), net.const(0.4))
    double = net.op("Cast", d, to=DOUBLE)
    return net.head(net.op("Cast", double, to=FLOAT), 4)


@case(0, 0, 4, pinned="a", reason="casts")
def cast_to_integers() -> onnx.ModelProto:
    """Rounding to integers is not homogeneous."""
    net = Net()
    i = net.op("Cast", net.block(net.input(), 3, 4, "a"), to=TensorProto.INT32)
    return net.head(net.op("Cast", i, to=FLOAT), 4)


@case(0, 4, 0, scales={"a": 1}, clones=True)
def quantized_activation() -> onnx.ModelProto:
    """A QuantizeLinear pair with one step between two layers."""
    net = Net()
    a = net.block(net.input(), 3, 4, "a")
    s, z = net.const(0.05), net.const(0, dtype=TensorProto.UINT8)
    q = net.op("QuantizeLinear", a, s, z)
    return net.head(net.op("DequantizeLinear", q, s, z), 4)


@case(0, 4, 0, scales={"a": 1})
def running_sum() -> onnx.ModelProto:
    """CumSum over channels."""
    net = Net()
    return net.head(net.op("CumSum", net.block(net.input(), 3, 4, "a"), net.ints(1), exclusive=1), 4)


@case(0, 8, 0, free="q k")
def attention() -> onnx.ModelProto:
    """softmax(q @ k) of two activations."""
    net = Net()
    x = net.input()
    q, k = net.block(x, 3, 4, "q"), net.block(x, 3, 4, "k")
    return net.head(net.op("Softmax", net.op("MatMul", q, k)), 4)


@case(4, 0, 0, free="a")
def recurrent_head() -> onnx.ModelProto:
    """An LSTM behind a dense layer."""
    net = Net()
    f = net.op("Flatten", net.op("GlobalAveragePool", net.block(net.input(), 3, 4, "a")))
    s = net.op("Unsqueeze", net.gemm(f, 4, 3), net.ints(0))
    net.nodes.append(
        helper.make_node("LSTM", [s, net.weight(1, 8, 3), net.weight(1, 8, 2)], ["y"], hidden_size=2, name="lstm")
    )
    return net.model("y")
