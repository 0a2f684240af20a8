"""Constants: where they live, who shares them, and how they are computed."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper

from tests.corpus.case import case
from tests.corpus.net import BFLOAT16, DOUBLE, FLOAT, FLOAT16, Net


@case(6, 0, 0, free="a b", clones=True)
def weights_shared_in_a_chain() -> onnx.ModelProto:
    """One weight, two convolutions one after the other: it must become two."""
    net = Net()
    w = net.weight(3, 3, 3, 3, name="w")
    return net.head(net.block(net.block(net.input(), 3, 3, "a", w=w), 3, 3, "b", w=w), 3)


@case(32, 0, 0, clones=True)
def large_weights_shared_in_a_chain() -> onnx.ModelProto:
    """The same with weights that lie in the file."""
    net = Net()
    w = net.weight(16, 16, 3, 3, name="w")
    return net.head(net.block(net.block(net.input(shape=("N", 16, 5, 5)), 16, 16, w=w), 16, 16, w=w), 16)


@case(9, 0, 0, clones=True)
def bias_shared() -> onnx.ModelProto:
    """One bias, three convolutions."""
    net = Net()
    b, x = net.bias(3, "b"), net.input()
    for _ in range(3):
        x = net.block(x, 3, 3, b=b)
    return net.head(x, 3)


@case(0, 8, 0, scales={"d": 4})
def siamese() -> onnx.ModelProto:
    """Two inputs through the same layer, compared: both need the same new weight, so nothing is cloned."""
    net = Net()
    w, b = net.weight(4, 3, 3, 3), net.bias(4)
    a, c = (net.block(net.input(name), 3, 4, w=w, b=b) for name in ("x", "z"))
    return net.head(net.op("Abs", net.op("Sub", a, c, out="d")), 4)


@case(8, 0, 0, clones=True)
def siamese_concatenated() -> onnx.ModelProto:
    """Two inputs through the same layer, kept apart: each has scales of its own."""
    net = Net()
    w, b = net.weight(4, 3, 3, 3), net.bias(4)
    a, c = (net.block(net.input(name), 3, 4, w=w, b=b) for name in ("x", "z"))
    return net.head(net.op("Concat", a, c, axis=1), 8)


@case(8, 0, 0)
def constants_as_nodes() -> onnx.ModelProto:
    """Every weight is a Constant node."""
    net = Net(how="node")
    return net.head(net.bn(net.block(net.block(net.input(), 3, 4), 4, 4), 4), 4)


@case(6, 0, 0, clones=True)
def constant_node_shared() -> onnx.ModelProto:
    """A Constant node that two convolutions read."""
    net = Net(how="node")
    w = net.weight(3, 3, 3, 3)
    return net.head(net.block(net.block(net.input(), 3, 3, w=w), 3, 3, w=w), 3)


@case(8, 0, 0)
def typed_float_data() -> onnx.ModelProto:
    """Weights in float_data, not in raw_data."""
    net = Net(how="typed")
    return net.head(net.block(net.block(net.input(), 3, 4), 4, 4), 4)


@case(8, 0, 0, rtol=1e-2)
def float16() -> onnx.ModelProto:
    """Half precision throughout."""
    net = Net(dtype=FLOAT16)
    return net.head(net.block(net.block(net.input(), 3, 4), 4, 4), 4)


@case(8, 0, 0, rtol=1e-2)
def float16_typed() -> onnx.ModelProto:
    """Half precision, its bits in int32_data."""
    net = Net(dtype=FLOAT16, how="typed")
    return net.head(net.bn(net.block(net.conv(net.input(), 3, 4), 4, 4), 4), 4)


@case(5, 0, 2, filters="all", free="r")
def float64_dense() -> onnx.ModelProto:
    """Double precision, in double_data."""
    net = Net(dtype=DOUBLE, how="typed")
    r = net.relu(net.gemm(net.input(shape=("N", 6)), 6, 5), "r")
    net.op("MatMul", r, net.weight(5, 2), out="y")
    return net.model("y")


@case(8, 0, 0, free="a b", rtol=2e-2)
def weight_behind_cast() -> onnx.ModelProto:
    """A bfloat16 weight that a Cast turns into float32: the stored weight is edited, and rounded to its type."""
    net = Net()
    w = net.op("Cast", net.weight(4, 3, 3, 3, dtype=BFLOAT16, how="typed"), to=FLOAT)
    return net.head(net.block(net.block(net.input(), 3, 4, "a", w=w), 4, 4, "b"), 4)


@case(8, 0, 0, free="a b")
def weight_behind_identity() -> onnx.ModelProto:
    """An Identity between the initializer and the convolution."""
    net = Net()
    w = net.op("Identity", net.weight(4, 3, 3, 3))
    return net.head(net.block(net.block(net.input(), 3, 4, "a", w=w), 4, 4, "b"), 4)


@case(8, 0, 0, free="a b")
def weight_behind_transpose() -> onnx.ModelProto:
    """A weight stored in another order."""
    net = Net()
    w = net.op("Transpose", net.weight(3, 3, 4, 4), perm=[3, 2, 0, 1])
    return net.head(net.block(net.block(net.input(), 3, 4, "a"), 4, 4, "b", w=w), 4)


@case(8, 0, 0, free="a b")
def weight_behind_dequantize() -> onnx.ModelProto:
    """Integer weights with a scale per filter, which is edited."""
    net = Net()
    q = net.const(net.random.integers(-99, 99, (4, 3, 3, 3)), dtype=TensorProto.INT8)
    s, z = net.const(np.full(4, 0.01)), net.const(np.zeros(4), dtype=TensorProto.INT8)
    w = net.op("DequantizeLinear", q, s, z, axis=0)
    return net.head(net.block(net.block(net.input(), 3, 4, "a", w=w), 4, 4, "b"), 4)


@case(6, 0, 2, free="a b", clones=True)
def weight_shared_with_identity() -> onnx.ModelProto:
    """One convolution reads the initializer, another a copy of it that cannot be edited."""
    net = Net()
    w = net.weight(3, 3, 3, 3)
    a = net.block(net.input(), 3, 3, "a", w=w)
    b = net.block(a, 3, 3, "b")
    return net.model(net.conv(b, 3, 2, out="y"), net.op("Identity", w, out="z"))


@case(4, 0, 4, pinned="a", free="b", reason="caller may replace")
def weight_is_input() -> onnx.ModelProto:
    """From IR version 4 on, an initializer that is a graph input is a default value."""
    net = Net()
    w = net.weight(4, 3, 3, 3, name="w")
    net.inputs.append(helper.make_tensor_value_info(w, FLOAT, (4, 3, 3, 3)))
    return net.head(net.block(net.block(net.input(), 3, 4, "a", w=w), 4, 4, "b"), 4)


@case(7, 0, 0, clones=True, legal=False)
def weight_is_input_in_ir3() -> onnx.ModelProto:
    """Before, every initializer had to be listed as an input; one of them is shared."""
    net = Net(8, ir=3)
    b = net.bias(3, "b")
    net.block(net.block(net.input(), 3, 3, b=b), 3, 3, "r", b=b)
    model = net.head(net.block("r", 3, 1), 1)
    for tensor in model.graph.initializer:
        model.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    return model


@case(8, 0, 0, free="a b", clones=True, legal=False)
def weight_is_output() -> onnx.ModelProto:
    """A weight that is visible from outside."""
    net = Net()
    w = net.weight(4, 3, 3, 3, name="w")
    net.head(net.block(net.block(net.input(), 3, 4, "a", w=w), 4, 4, "b"), 4)
    return net.model("y", w)


@case(4, 0, 1, pinned="a", free="b", reason="no choice but 1")
def weight_is_computed() -> onnx.ModelProto:
    """A weight that is cut out of the input."""
    net = Net()
    x = net.input()
    w = net.op("Slice", net.op("ReduceMean", x, net.ints(0)), net.ints(2, 2), net.ints(5, 5), net.ints(2, 3))
    a = net.relu(net.op("Conv", x, w), "a")
    return net.head(net.block(a, 1, 4, "b"), 4)


@case(4, 0, 4, pinned="a", free="b", reason="without a tensor")
def value_floats() -> onnx.ModelProto:
    """A bias in a Constant node's attribute `value_floats`."""
    net = Net()
    net.nodes.append(helper.make_node("Constant", [], ["bias"], value_floats=[0.1, 0.2, 0.3, 0.4]))
    return net.head(net.block(net.block(net.input(), 3, 4, "a", b="bias"), 4, 4, "b"), 4)


@case(4, 0, 0, free="a")
def multiplied_by_value_float() -> onnx.ModelProto:
    """A factor in `value_float`: multiplication by a constant changes nothing."""
    net = Net()
    net.nodes.append(helper.make_node("Constant", [], ["two"], value_float=2.5))
    return net.head(net.op("Mul", net.block(net.input(), 3, 4, "a"), "two"), 4)


@case(0, 0, 4, pinned="a", reason="is sparse", legal=False)
def sparse_weight() -> onnx.ModelProto:
    """A sparse initializer is left alone."""
    net = Net(ir=7)
    net.relu(net.op("Conv", net.input(), net.weight(4, 3, 1, 1)), "a")
    values = helper.make_tensor("s", FLOAT, [3], [1.0, -2.0, 3.0])
    indices = helper.make_tensor("s_indices", TensorProto.INT64, [3], [0, 5, 11])
    net.sparse.append(helper.make_sparse_tensor(values, indices, [4, 4]))
    gap = net.op("Transpose", "a", perm=[0, 2, 3, 1])
    return net.model(net.op("MatMul", gap, "s", out="y"))


@case(8, 0, 0, free="a b")
def shape_of_a_weight() -> onnx.ModelProto:
    """A weight whose shape is read may change its values."""
    net = Net()
    w = net.weight(4, 3, 3, 3)
    a = net.block(net.input(), 3, 4, "a", w=w)
    net.op("Shape", w, out="z")
    b = net.block(a, 4, 4, "b")
    net.head(b, 4)
    return net.model("y", "z", types={"z": TensorProto.INT64})


@case(8, 0, 0, free="a b", clones=True)
def bias_also_multiplies() -> onnx.ModelProto:
    """A bias that is also a factor of a Mul, which goes on reading the old values."""
    net = Net()
    b = net.const(net.random.uniform(0.1, 1, (4, 1, 1)), "k")
    a = net.relu(net.op("Mul", net.op("Add", net.conv(net.input(), 3, 4, b=None), b), b), "a")
    return net.head(net.block(a, 4, 4, "b"), 4)


@case(4, 0, 0)
def bias_all_zero_shared() -> onnx.ModelProto:
    """Zeros follow any scale: nothing to clone, though four nodes share them."""
    net = Net()
    b, x = net.const(np.zeros(1)), net.input()
    for _ in range(4):
        x = net.block(x, 3 if x == "x" else 1, 1, b=b)
    return net.head(x, 1)


@case(6, 0, 0, clones=True)
def normalization_parameters_shared() -> onnx.ModelProto:
    """Two BatchNormalizations with the same scale and shift, and a scale that is also its shift."""
    net = Net()
    p, mean, var = net.bias(3), net.const([0.1, -0.2, 0.3]), net.const([1.0, 2.0, 0.5])
    a = net.relu(net.op("BatchNormalization", net.conv(net.input(), 3, 3), p, p, mean, var))
    return net.head(net.relu(net.op("BatchNormalization", net.conv(a, 3, 3), p, p, mean, var)), 3)


@case(3, 0, 0, clones=True)
def normalization_scale_is_variance() -> onnx.ModelProto:
    """The variance stays, so its constant is no longer that of the scale."""
    net = Net()
    p = net.bias(3)
    return net.head(net.relu(net.op("BatchNormalization", net.conv(net.input(), 3, 3), p, net.bias(3), p, p)), 3)


@case(8, 0, 0)
def unused_things() -> onnx.ModelProto:
    """An initializer that nobody reads, a node whose output nobody reads."""
    net = Net()
    a = net.block(net.input(), 3, 4)
    net.const([1.0, 2.0], "unused")
    net.op("Sigmoid", net.const([1.0]), out="dangling")
    return net.head(net.block(a, 4, 4), 4)


@case(0, 0, 4, reason="does not just scale its output")
def dangling_sigmoid() -> onnx.ModelProto:
    """A barrier whose output nobody reads still counts."""
    net = Net()
    a = net.block(net.input(), 3, 4)
    net.op("Sigmoid", a)
    return net.head(a, 4)
