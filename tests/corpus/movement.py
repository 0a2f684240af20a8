"""Data that moves: reshapes, transposes, slices, pads."""

from __future__ import annotations

import onnx
from onnx import TensorProto

from tests.corpus.case import case
from tests.corpus.net import Net


@case(9, 0, 0, free="c", scales={"c": 9})
def concat_of_two() -> onnx.ModelProto:
    """Concat on channels."""
    net = Net()
    x = net.input()
    return net.head(net.op("Concat", net.block(x, 3, 4), net.block(x, 3, 5), axis=1, out="c"), 9)


@case(4, 0, 0, free="a")
def concat_with_input() -> onnx.ModelProto:
    """Concat with the graph's input: its channels are pinned, the others stay free."""
    net = Net()
    x = net.input()
    c = net.op("Concat", x, net.block(x, 3, 4, "a"), axis=1)
    return net.head(net.op("MaxPool", c, kernel_shape=[2, 2]), 7)


@case(0, 4, 0, scales={"c": 2})
def concat_on_height() -> onnx.ModelProto:
    """Concat on a position axis: scales vary there, so the convolution behind ties."""
    net = Net()
    x = net.input()
    c = net.op("Concat", net.block(x, 3, 2), net.block(x, 3, 2), axis=2, out="c")
    return net.head(c, 2)


@case(3, 0, 3, free="a", pinned="s")
def split_with_two_fates() -> onnx.ModelProto:
    """Half of the channels go through a Sigmoid."""
    net = Net()
    a, b = net.many("Split", net.conv(net.input(), 3, 6), net.ints(3, 3), outs=2, axis=1)
    return net.head(net.op("Concat", net.relu(a, "a"), net.op("Sigmoid", b, out="s"), axis=1), 6)


@case(2, 0, 2, pinned="s")
def slice_with_negative_step() -> onnx.ModelProto:
    """Every second channel, backwards."""
    net = Net()
    r = net.block(net.input(), 3, 4)
    s = net.op("Slice", r, net.ints(-1), net.ints(-100), net.ints(1), net.ints(-2))
    return net.head(net.op("Concat", r, net.op("Tanh", s, out="s"), axis=1), 6)


@case(1, 0, 3)
def gather_channels() -> onnx.ModelProto:
    """Channels picked by constant indices, one of them twice, into a barrier."""
    net = Net()
    r = net.block(net.input(), 3, 4)
    g = net.op("Gather", r, net.ints(3, 0, 0, -2), axis=1)
    return net.head(net.op("Concat", r, net.op("Exp", net.op("Neg", g)), axis=1), 8)


@case(2, 2, 0)
def slice_of_one_added() -> onnx.ModelProto:
    """One channel is added to another."""
    net = Net()
    r = net.block(net.input(), 3, 4)
    one = net.op("Slice", r, net.ints(0), net.ints(1), net.ints(1))
    last = net.op("Slice", r, net.ints(3), net.ints(4), net.ints(1))
    return net.head(net.op("Concat", r, net.op("Add", one, last), axis=1), 5)


@case(8, 0, 0, free="s")
def channel_shuffle() -> onnx.ModelProto:
    """ShuffleNet: grouped convolutions with a shuffle between, by Reshape, Transpose, Reshape."""
    net = Net()
    a = net.block(net.input(shape=("N", 4, 6, 6)), 4, 4, group=2)
    r = net.op("Reshape", a, net.ints(0, 2, 2, 6, 6))
    s = net.op("Reshape", net.op("Transpose", r, perm=[0, 2, 1, 3, 4]), net.ints(0, -1, 6, 6), out="s")
    return net.head(net.block(s, 4, 4, group=2), 4)


@case(4, 8, 0)
def depth_to_space() -> onnx.ModelProto:
    """DepthToSpace puts four channels into one, which one filter reads at once: they share a scale."""
    net = Net()
    a = net.block(net.input(), 3, 8, "a")
    return net.head(net.block(net.op("DepthToSpace", a, blocksize=2, mode="CRD", out="d"), 2, 4), 4)


@case(4, 0, 0, free="d", scales={"d": 2})
def space_to_depth() -> onnx.ModelProto:
    """SpaceToDepth: one channel becomes four."""
    net = Net()
    a = net.block(net.input(), 3, 2)
    d = net.op("SpaceToDepth", a, blocksize=2, out="d")
    return net.head(net.block(d, 8, 2), 2)


@case(4, 0, 0, free="e")
def expand_and_tile() -> onnx.ModelProto:
    """A pooled activation repeated over positions and channels."""
    net = Net()
    a = net.op("GlobalAveragePool", net.block(net.input(), 3, 4))
    e = net.op("Expand", a, net.ints(1, 4, 5, 5), out="e")
    return net.head(net.op("Tile", e, net.ints(1, 2, 1, 1)), 8)


@case(2, 4, 0, scales={"p": 4})
def shortcut_padded_with_zeros() -> onnx.ModelProto:
    """A residual whose shortcut is padded with channels of zeros (ResNet, option A): zeros tie nothing."""
    net = Net()
    x = net.input()
    a = net.block(x, 3, 2)
    p = net.op("Pad", a, net.ints(0, 1, 0, 0, 0, 1, 0, 0))
    return net.head(net.relu(net.op("Add", p, net.conv(a, 2, 4)), "p"), 4)


@case(4, 4, 0, free="b")
def pad_with_one() -> onnx.ModelProto:
    """Pad with a number that is scaled along, which all channels share."""
    net = Net()
    a = net.block(net.input(), 3, 4, "a")
    p = net.op("Pad", a, net.ints(0, 0, 1, 1, 0, 0, 1, 1), net.const(1.0))
    return net.head(net.block(p, 4, 4, "b"), 4)


@case(8, 0, 0, free="a b")
def pad_with_zero_and_edge() -> onnx.ModelProto:
    """Its twin: zeros, a value left out, and edges."""
    net = Net()
    a = net.block(net.input(), 3, 4, "a")
    pads = net.ints(0, 0, 1, 1, 0, 0, 1, 1)
    p = net.op("Pad", net.op("Pad", a, pads, net.const(0.0)), pads, "", mode="edge")
    return net.head(net.block(net.op("Pad", p, net.ints(1, 1, 1, 1), "", net.ints(2, -1)), 4, 4, "b"), 4)


@case(8, 0, 0, free="u")
def resize_positions() -> onnx.ModelProto:
    """Upsampling, with the optional regions left out."""
    net = Net()
    a = net.block(net.input(), 3, 4)
    u = net.op("Resize", a, "", net.const([1, 1, 2, 1.5]), out="u", mode="linear")
    return net.head(net.block(u, 4, 4), 4)


@case(0, 4, 0, scales={"a": 1})
def resize_that_shifts_channels() -> onnx.ModelProto:
    """A factor of 1.2 on 4 channels leaves 4, but interpolates between them."""
    net = Net()
    a = net.block(net.input(), 3, 4, "a")
    return net.head(net.op("Resize", a, "", net.const([1, 1.2, 1, 1]), mode="linear"), 4)


@case(4, 0, 0, free="u")
def upsample_of_opset_9() -> onnx.ModelProto:
    """Upsample, with its factors in an input."""
    net = Net(9)
    a = net.block(net.input(), 3, 4)
    return net.head(net.op("Upsample", a, net.const([1.0, 1, 2, 2]), mode="nearest", out="u"), 4)


@case(7, 0, 0, free="a b")
def channels_last_export() -> onnx.ModelProto:
    """NHWC in and between, each convolution between two Transposes, as tf2onnx writes it."""
    net = Net()
    t = net.op("Transpose", net.input(shape=("N", 8, 8, 3)), perm=[0, 3, 1, 2])
    a = net.op("Transpose", net.conv(t, 3, 4, b=None), perm=[0, 2, 3, 1])
    a = net.relu(net.op("Add", a, net.bias(4)), "a")
    b = net.op("Transpose", net.conv(net.op("Transpose", a, perm=[0, 3, 1, 2]), 4, 3, b=None), perm=[0, 2, 3, 1])
    b = net.relu(net.op("Add", b, net.bias(3)), "b")
    net.gemm(net.op("ReduceMean", b, net.ints(1, 2), keepdims=0), 3, out="y")
    return net.model("y")


@case(4, 0, 0, free="f")
def computed_reshape() -> onnx.ModelProto:
    """A Reshape whose target is computed from the batch size by Shape, Gather, Unsqueeze and Concat."""
    net = Net()
    a = net.op("MaxPool", net.block(net.input(), 3, 4), kernel_shape=[2, 2], strides=[2, 2])
    n = net.op("Unsqueeze", net.op("Gather", net.op("Shape", a), net.ints(0), axis=0), net.ints(0))
    n = net.op("Squeeze", n, net.ints(0))
    f = net.op("Reshape", a, net.op("Concat", n, net.ints(-1), axis=0), out="f")
    net.gemm(f, 64, out="y")
    return net.model("y")


@case(4, 0, 0, free="f")
def tensorflow_reshape() -> onnx.ModelProto:
    """Shape cast, sliced and multiplied before it becomes the target, on a channels-last value."""
    net = Net()
    a = net.op("Transpose", net.block(net.input(), 3, 4), perm=[0, 2, 3, 1])
    shape = net.op("Cast", net.op("Shape", a), to=TensorProto.INT32)
    sizes = [net.op("Slice", shape, net.ints(i), net.ints(i + 1), net.ints(0)) for i in range(4)]
    area = net.op("Mul", sizes[1], sizes[2])
    target = net.op("Cast", net.op("Concat", sizes[0], area, sizes[3], axis=0), to=TensorProto.INT64)
    f = net.op("Reshape", a, target, out="f")
    net.gemm(net.op("ReduceMean", f, net.ints(1), keepdims=0), 4, out="y")
    return net.model("y")


@case(0, 0, 4, pinned="a")
def reshape_by_data() -> onnx.ModelProto:
    """A Reshape whose target is computed from the data: nobody knows where things go."""
    net = Net()
    x = net.input()
    a = net.block(x, 3, 4, "a")
    zero = net.op("Cast", net.op("Mul", net.op("ReduceMean", x, keepdims=0), net.const(0.0)), to=TensorProto.INT64)
    target = net.op("Concat", net.ints(-1), net.op("Add", zero, net.ints(256)), axis=0)
    net.op("ReduceMean", net.op("Reshape", a, target), net.ints(1), out="y")
    return net.model("y")


@case(6, 0, 0, free="s")
def squeezed_and_unsqueezed() -> onnx.ModelProto:
    """Axes come and go, named by attributes as before opset 13."""
    net = Net(11)
    g = net.op("GlobalMaxPool", net.block(net.input(), 3, 4))
    u = net.op("Unsqueeze", net.op("Squeeze", g, axes=[-1, 2], out="s"), axes=[2, 3])
    return net.head(net.conv(u, 4, 2, k=1, b=None), 2)


@case(4, 0, 0, free="r")
def einsum() -> onnx.ModelProto:
    """A product with constant weights, as a layer."""
    net = Net()
    r = net.block(net.input(), 3, 4, "r")
    e = net.op("Einsum", r, net.weight(4, 4), equation="nchw,cd->ndhw")
    return net.head(e, 4)


@case(0, 0, 4, pinned="r")
def top_values() -> onnx.ModelProto:
    """TopK over channels compares them."""
    net = Net()
    r = net.block(net.input(), 3, 4, "r")
    values, _ = net.many("TopK", r, net.ints(2), outs=2, axis=1)
    return net.head(net.op("Tanh", values), 2)
