"""An adversarial corpus: small graphs, each a corner where a rescaler can go wrong, with what must be found there.

`@case` registers a function that builds a model, with what its plan must be when graph outputs are kept: how many
filters are free, tied and pinned; which values are free or pinned in all their channels; how many scales one has.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from onnxnorm.scaling.filters import FilterKind

FLOAT, FLOAT16, BFLOAT16, DOUBLE = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE
INF = float("inf")

Build = Callable[[], onnx.ModelProto]
Dims = tuple[int | str, ...]

# What open dimensions are in tests.
OPEN = {"N": 1, "H": 10, "W": 6}


@dataclass(frozen=True)
class Case:
    """One graph and its expectations; `rtol` is what the numeric check needs (0: bit for bit), `legal` whether
    ONNX's own checker accepts it (it wants shapes for outputs, and sorted nodes), `runs` whether ONNX Runtime does."""

    name: str
    build: Build = field(repr=False)
    plan: tuple[int, int, int]
    free: tuple[str, ...]
    pinned: tuple[str, ...]
    scales: Mapping[str, int]
    reason: str
    clones: bool
    dead: int
    rtol: float
    filters: FilterKind
    legal: bool
    runs: bool


CASES: dict[str, Case] = {}


def case(
    *plan: int,
    free: str = "",
    pinned: str = "",
    scales: Mapping[str, int] | None = None,
    reason: str = "",
    clones: bool = False,
    dead: int = 0,
    rtol: float = 0.0,
    filters: FilterKind = "conv",
    legal: bool = True,
    runs: bool = True,
) -> Callable[[Build], Build]:
    """Register a graph with its expected counts of free, tied and pinned filters."""

    def register(build: Build) -> Build:
        assert build.__doc__
        assert build.__name__ not in CASES
        counts = (plan[0], plan[1], plan[2])
        CASES[build.__name__] = Case(
            build.__name__, build, counts, tuple(free.split()), tuple(pinned.split()), scales or {},
            reason, clones, dead, rtol, filters, legal, runs,
        )  # fmt: skip
        return build

    return register


class Net:
    """Builds a model node by node; values are named by the caller or by a counter."""

    def __init__(self, opset: int = 18, *, ir: int = 8, dtype: int = FLOAT, seed: int = 0, how: str = "raw") -> None:
        self.opset, self.ir, self.dtype, self.how = opset, ir, dtype, how
        self.random = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.sparse: list[onnx.SparseTensorProto] = []
        self.inputs: list[onnx.ValueInfoProto] = []
        self.infos: list[onnx.ValueInfoProto] = []
        self.functions: list[onnx.FunctionProto] = []
        self.domains: list[str] = []
        self.count = 0

    def name(self, prefix: str) -> str:
        self.count += 1
        return f"{prefix}{self.count}"

    def input(self, name: str = "x", shape: Dims = ("N", 3, 8, 8), dtype: int | None = None) -> str:
        self.inputs.append(helper.make_tensor_value_info(name, dtype or self.dtype, shape))
        return name

    def info(self, name: str, shape: Dims) -> str:
        """Say what shape a value has, as exporters do for operators that shape inference does not know."""
        self.infos.append(helper.make_tensor_value_info(name, self.dtype, shape))
        return name

    def const(self, values: Any, name: str = "", *, dtype: int | None = None, how: str = "") -> str:
        """A constant: an initializer with raw or typed data, or a Constant node."""
        name, how, dtype = name or self.name("c"), how or self.how, dtype or self.dtype
        array = np.asarray(values).astype(helper.tensor_dtype_to_np_dtype(dtype))
        if how == "typed" and dtype in {FLOAT, FLOAT16, BFLOAT16, DOUBLE}:
            numbers = array.view(np.uint16) if array.itemsize == 2 else array
            tensor = TensorProto(name=name, data_type=dtype, dims=array.shape)
            field_name = {2: "int32_data", 4: "float_data", 8: "double_data"}[array.itemsize]
            getattr(tensor, field_name).extend(numbers.reshape(-1).tolist())
        else:
            tensor = numpy_helper.from_array(array, name)
        if how == "node":
            self.nodes.append(helper.make_node("Constant", [], [name], value=tensor))
        else:
            self.initializers.append(tensor)
        return name

    def ints(self, *values: int, name: str = "") -> str:
        return self.const(np.asarray(values), name, dtype=TensorProto.INT64, how="raw")

    def weight(self, *shape: int, name: str = "", **how: Any) -> str:
        """Random weights with filters of very different size."""
        fan_in = max(1, int(np.prod(shape[1:])))
        spread = np.exp(self.random.normal(0, 1, (shape[0], *[1] * (len(shape) - 1))))
        return self.const(spread * self.random.normal(0, fan_in**-0.5, shape), name, **how)

    def bias(self, size: int, name: str = "", **how: Any) -> str:
        return self.const(self.random.uniform(0.5, 1.5, size), name, **how)

    def op(
        self, kind: str, *inputs: str, out: str = "", name: str | None = None, domain: str = "", **attributes: Any
    ) -> str:
        out = out or self.name("v")
        label = f"{kind}_{out}" if name is None else name
        self.nodes.append(helper.make_node(kind, list(inputs), [out], name=label, domain=domain, **attributes))
        return out

    def many(self, kind: str, *inputs: str, outs: int, **attributes: Any) -> list[str]:
        names = [self.name("v") for _ in range(outs)]
        self.nodes.append(helper.make_node(kind, list(inputs), names, name=f"{kind}_{names[0]}", **attributes))
        return names

    def conv(
        self, x: str, cin: int, cout: int, k: int = 3, out: str = "", *, w: str = "", b: str | None = "", **kw: Any
    ) -> str:
        """A convolution that keeps the size; `b=None` for no bias."""
        w = w or self.weight(cout, cin // kw.get("group", 1), k, k)
        biases = [] if b is None else [b or self.bias(cout)]
        return self.op("Conv", x, w, *biases, out=out, pads=[k // 2] * 4, **kw)

    def relu(self, x: str, out: str = "") -> str:
        return self.op("Relu", x, out=out)

    def block(self, x: str, cin: int, cout: int, out: str = "", **kw: Any) -> str:
        """Conv and Relu."""
        return self.relu(self.conv(x, cin, cout, **kw), out)

    def bn(self, x: str, channels: int, out: str = "") -> str:
        names = [self.const(self.random.uniform(0.5, 2, channels)) for _ in range(2)]
        mean, var = self.const(self.random.normal(0, 0.3, channels)), self.const(self.random.uniform(0.5, 2, channels))
        return self.op("BatchNormalization", x, *names, mean, var, out=out)

    def gemm(self, x: str, cin: int, cout: int = 2, out: str = "", **kw: Any) -> str:
        return self.op("Gemm", x, self.weight(cin, cout), self.bias(cout), out=out, **kw)

    def head(self, x: str, channels: int, out: str = "y") -> onnx.ModelProto:
        """Close with a classifier, so that everything before it can be free."""
        self.gemm(self.op("Flatten", self.op("GlobalAveragePool", x)), channels, out=out)
        return self.model(out)

    def model(self, *outputs: str, types: Mapping[str, int] | None = None) -> onnx.ModelProto:
        infos = [helper.make_tensor_value_info(o, (types or {}).get(o, self.dtype), None) for o in outputs]
        graph = helper.make_graph(
            self.nodes, "corpus", self.inputs, infos, self.initializers,
            value_info=self.infos, sparse_initializer=self.sparse,
        )  # fmt: skip
        opsets = [helper.make_opsetid("", self.opset), *(helper.make_opsetid(domain, 1) for domain in self.domains)]
        proto = helper.make_model(graph, opset_imports=opsets, functions=self.functions)
        proto.ir_version = self.ir
        try:
            inferred = onnx.shape_inference.infer_shapes(proto)
        except onnx.shape_inference.InferenceError:
            return proto
        for info in inferred.graph.output:
            for own in proto.graph.output:
                if own.name == info.name and info.type.tensor_type.HasField("shape"):
                    own.type.CopyFrom(info.type)
        return proto


def feeds(proto: onnx.ModelProto, batch: int = 1, seed: int = 0) -> dict[str, NDArray[Any]]:
    """Random inputs; open dimensions are those of `OPEN`, with `batch` for the first."""
    random = np.random.default_rng(seed)
    initialized = {tensor.name for tensor in proto.graph.initializer}
    found: dict[str, NDArray[Any]] = {}
    for info in proto.graph.input:
        if info.name in initialized:
            continue
        dims = info.type.tensor_type.shape.dim
        shape = tuple(d.dim_value or (batch if i == 0 else OPEN[d.dim_param]) for i, d in enumerate(dims))
        dtype = helper.tensor_dtype_to_np_dtype(info.type.tensor_type.elem_type)
        values = random.integers(0, 3, shape) if dtype.kind in "iu" else random.normal(0.3, 1, shape)
        found[info.name] = values.astype(dtype)
    return found


# --- chains: what every tool should do -----------------------------------------------------------------------------


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


# --- outputs and inputs --------------------------------------------------------------------------------------------


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


# --- constants -----------------------------------------------------------------------------------------------------


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


@case(4, 0, 4, free="b", pinned="a", reason="computed by")
def weight_behind_cast() -> onnx.ModelProto:
    """A bfloat16 weight that a Cast turns into float32: not ours to edit."""
    net = Net()
    w = net.op("Cast", net.weight(4, 3, 3, 3, dtype=BFLOAT16, how="typed"), to=FLOAT)
    return net.head(net.block(net.block(net.input(), 3, 4, "a", w=w), 4, 4, "b"), 4)


@case(4, 0, 4, free="b", pinned="a", reason="computed by")
def weight_behind_identity() -> onnx.ModelProto:
    """An Identity between the initializer and the convolution."""
    net = Net()
    w = net.op("Identity", net.weight(4, 3, 3, 3))
    return net.head(net.block(net.block(net.input(), 3, 4, "a", w=w), 4, 4, "b"), 4)


@case(0, 0, 8, pinned="a b", reason="computed by")
def weight_behind_transpose() -> onnx.ModelProto:
    """A weight stored in another order: what it reads is pinned too."""
    net = Net()
    w = net.op("Transpose", net.weight(3, 3, 4, 4), perm=[3, 2, 0, 1])
    return net.head(net.block(net.block(net.input(), 3, 4, "a"), 4, 4, "b", w=w), 4)


@case(4, 0, 4, free="b", pinned="a", reason="computed by")
def weight_behind_dequantize() -> onnx.ModelProto:
    """Integer weights with a scale per filter."""
    net = Net()
    q = net.const(net.random.integers(-99, 99, (4, 3, 3, 3)), dtype=TensorProto.INT8)
    s, z = net.const(np.full(4, 0.01)), net.const(np.zeros(4), dtype=TensorProto.INT8)
    w = net.op("DequantizeLinear", q, s, z, axis=0)
    return net.head(net.block(net.block(net.input(), 3, 4, "a", w=w), 4, 4, "b"), 4)


@case(3, 0, 5, pinned="a", free="b")
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


@case(4, 0, 4, pinned="a", free="b", reason="also a graph output", legal=False)
def weight_is_output() -> onnx.ModelProto:
    """A weight that is visible from outside."""
    net = Net()
    w = net.weight(4, 3, 3, 3, name="w")
    net.head(net.block(net.block(net.input(), 3, 4, "a", w=w), 4, 4, "b"), 4)
    return net.model("y", w)


@case(4, 0, 1, pinned="a", free="b", reason="not a constant")
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


@case(0, 0, 4, reason="not positively homogeneous")
def dangling_sigmoid() -> onnx.ModelProto:
    """A barrier whose output nobody reads still counts."""
    net = Net()
    a = net.block(net.input(), 3, 4)
    net.op("Sigmoid", a)
    return net.head(a, 4)


# --- joins ---------------------------------------------------------------------------------------------------------


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


@case(0, 0, 4, pinned="s a")
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


# --- gates ---------------------------------------------------------------------------------------------------------


@case(4, 0, 4, free="a m", pinned="g")
def gate_with_sigmoid() -> onnx.ModelProto:
    """conv(x) * sigmoid(conv(x)): the gate is pinned, the other passes through."""
    net = Net()
    x = net.input()
    g = net.op("Sigmoid", net.conv(x, 3, 4), out="g")
    return net.head(net.relu(net.op("Mul", g, net.conv(x, 3, 4, out="a"), out="m")), 4)


@case(4, 0, 4, free="m")
def gate_of_two_relus() -> onnx.ModelProto:
    """Both sides could be free: one of them is pinned."""
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


@case(0, 0, 4, pinned="a")
def hard_swish_by_hand() -> onnx.ModelProto:
    """x * clip(x + 3, 0, 6) / 6."""
    net = Net()
    a = net.conv(net.input(), 3, 4, out="a")
    c = net.op("Clip", net.op("Add", a, net.const(3.0)), net.const(0.0), net.const(6.0))
    return net.head(net.op("Div", net.op("Mul", a, c), net.const(6.0)), 4)


@case(0, 0, 4, pinned="a")
def product_must_be_one() -> onnx.ModelProto:
    """A product that goes into a barrier: both factors are pinned."""
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


@case(0, 0, 4, pinned="a", reason="divides a constant")
def constant_divided() -> onnx.ModelProto:
    """1 / x."""
    net = Net()
    a = net.op("Add", net.block(net.input(), 3, 4), net.const(np.ones((4, 1, 1))), out="a")
    return net.head(net.op("Div", net.const(1.0), a), 4)


# --- bounds --------------------------------------------------------------------------------------------------------


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


# --- data that moves -----------------------------------------------------------------------------------------------


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


@case(4, 0, 4, pinned="a", free="b", reason="puts 1 around")
def pad_with_one() -> onnx.ModelProto:
    """Pad with a value that would have to be scaled."""
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


@case(0, 0, 4, pinned="r")
def scatter_and_einsum() -> onnx.ModelProto:
    """Operators that nobody wrote a law for."""
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


# --- other layers --------------------------------------------------------------------------------------------------


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


@case(0, 0, 4, pinned="a", reason="it divides by a statistic")
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


@case(0, 0, 4, pinned="a", reason="it quantizes")
def quantized_activation() -> onnx.ModelProto:
    """A QuantizeLinear pair between two layers."""
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


@case(0, 0, 8, pinned="q k")
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


# --- architectures -------------------------------------------------------------------------------------------------


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


# --- graphs that are odd but legal ---------------------------------------------------------------------------------


@case(8, 0, 0)
def nodes_without_names() -> onnx.ModelProto:
    """No node has a name."""
    net = Net()
    model = net.head(net.block(net.bn(net.block(net.input(), 3, 4), 4), 4, 4), 4)
    for node in model.graph.node:
        node.ClearField("name")
    return model


@case(6, 0, 0, runs=False)
def nodes_with_one_name() -> onnx.ModelProto:
    """All nodes are called the same, and two of them share a weight."""
    net = Net()
    w = net.weight(3, 3, 3, 3)
    model = net.head(net.block(net.block(net.input(), 3, 3, w=w), 3, 3, w=w), 3)
    for node in model.graph.node:
        node.name = "node"
    return model


@case(4, 8, 0, legal=False)
def nodes_out_of_order() -> onnx.ModelProto:
    """The nodes are listed backwards."""
    model = CASES["residual_after_activation"].build()
    nodes = list(reversed(model.graph.node))
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


@case(4, 0, 0, free="a", clones=True)
def names_that_look_like_clones() -> onnx.ModelProto:
    """The names that a clone would get are taken."""
    net = Net()
    b = net.bias(2, "b")
    net.const([1.0], "b_onnxnorm1")
    x = net.block(net.input(), 3, 2, "b_onnxnorm2", b=b)
    return net.head(net.block(x, 2, 2, "a", b=b), 2)


@case(4, 0, 0, legal=False)
def domain_spelled_out() -> onnx.ModelProto:
    """ONNX's own domain by its long name, on operators that move data too."""
    net = Net()
    a = net.op("Relu", net.conv(net.input(), 3, 4), domain="ai.onnx")
    s = net.op("Slice", a, net.ints(1), net.ints(4), net.ints(1), domain="ai.onnx")
    t = net.op("Concat", s, a, domain="ai.onnx", axis=1)
    return net.head(t, 7)


@case(4, 0, 4, pinned="a g", free="b")
def custom_domain() -> onnx.ModelProto:
    """An operator of another domain, which happens to have a familiar name; the file says what shape it makes."""
    net = Net()
    net.domains.append("com.microsoft")
    a = net.block(net.input(), 3, 4, "a")
    net.op("Gelu", a, domain="com.microsoft", out="g")
    return net.head(net.block(net.info("g", ("N", 4, 8, 8)), 4, 4, "b"), 4)


@case(0, 0, 8, pinned="a g b", legal=False)
def custom_domain_of_unknown_shape() -> onnx.ModelProto:
    """The same, but nobody says what shape it makes: what needs shapes behind it is pinned."""
    net = Net()
    net.domains.append("com.microsoft")
    a = net.block(net.input(), 3, 4, "a")
    return net.head(net.block(net.op("Gelu", a, domain="com.microsoft", out="g"), 4, 4, "b"), 4)


@case(4, 0, 7, free="b", legal=False)
def convolutions_of_unknown_shape() -> onnx.ModelProto:
    """Convolutions and ReLUs need no shapes."""
    net = Net()
    net.domains.append("com.microsoft")
    a = net.block(net.input(), 3, 4, "a")
    b = net.bn(net.block(net.op("Gelu", a, domain="com.microsoft", out="g"), 4, 4, "b"), 4)
    return net.model(net.conv(b, 4, 3, out="y"))


def _function(name: str, domain: str, kind: str) -> onnx.FunctionProto:
    node = helper.make_node(kind, ["p"], ["q"])
    return helper.make_function(domain, name, ["p"], ["q"], [node], [helper.make_opsetid("", 18)])


@case(4, 0, 4, pinned="a", free="b", reason="function of the model's own")
def local_function() -> onnx.ModelProto:
    """A function of the model's own."""
    net = Net()
    net.domains.append("here")
    net.functions.append(_function("Squash", "here", "Sigmoid"))
    a = net.op("Squash", net.conv(net.input(), 3, 4), domain="here", out="a")
    return net.head(net.block(a, 4, 4, "b"), 4)


@case(4, 0, 4, pinned="a", free="b")
def local_function_with_a_known_name() -> onnx.ModelProto:
    """A function of the model's own that is called Relu and is none."""
    net = Net()
    net.domains.append("here")
    net.functions.append(_function("Relu", "here", "Sigmoid"))
    a = net.op("Relu", net.conv(net.input(), 3, 4), domain="here", out="a")
    return net.head(net.block(a, 4, 4, "b"), 4)


@case(4, 0, 4, pinned="a", free="b", reason="function of the model's own")
def local_function_in_place_of_an_operator() -> onnx.ModelProto:
    """A function that claims the name of an ONNX operator: which of the two is meant is up to the runtime."""
    net = Net()
    net.functions.append(_function("LeakyRelu", "", "Sigmoid"))
    a = net.op("LeakyRelu", net.conv(net.input(), 3, 4), out="a")
    return net.head(net.block(a, 4, 4, "b"), 4)


@case(4, 0, 4, pinned="a", free="b")
def scan_captures_activation() -> onnx.ModelProto:
    """A Scan over the channels of one activation that adds up another's."""
    net = Net()
    x = net.input()
    a, r = net.block(x, 3, 4, "a"), net.op("ReduceMean", x, keepdims=0)
    body = [
        helper.make_node("Add", ["state", "row"], ["sum"]),
        helper.make_node("Add", ["row", r], ["out"]),
        helper.make_node("Identity", ["sum"], ["next"]),
    ]
    ins = [helper.make_tensor_value_info(name, FLOAT, None) for name in ("state", "row")]
    outs = [helper.make_tensor_value_info(name, FLOAT, None) for name in ("next", "out")]
    start = net.op("ReduceSum", net.op("Mul", a, net.const(0.0)), net.ints(1), keepdims=0)
    graph = helper.make_graph(body, "body", ins, outs)
    _, c = net.many("Scan", start, a, outs=2, body=graph, num_scan_inputs=1, scan_input_axes=[1], scan_output_axes=[1])
    return net.head(net.block(net.info(c, ("N", 4, 8, 8)), 4, 4, "b"), 4)


def _branches(net: Net, then: list[onnx.NodeProto], other: list[onnx.NodeProto], x: str, out: str) -> str:
    """An If whose condition depends on the data; its branches write `t` and `e`."""
    mean = net.op("ReduceMean", x, keepdims=0)
    infos = [helper.make_tensor_value_info(name, FLOAT, None) for name in "te"]
    return net.op(
        "If",
        net.op("Greater", mean, net.const(0.0)),
        out=out,
        then_branch=helper.make_graph(then, "then", [], [infos[0]]),
        else_branch=helper.make_graph(other, "else", [], [infos[1]]),
    )


@case(4, 0, 4, pinned="a c", free="b")
def branch_captures_activation() -> onnx.ModelProto:
    """An If whose branches read an activation from outside."""
    net = Net()
    x = net.input()
    a = net.block(x, 3, 4, "a")
    then, other = helper.make_node("Relu", [a], ["t"]), helper.make_node("Tanh", [a], ["e"])
    return net.head(net.block(_branches(net, [then], [other], x, "c"), 4, 4, "b"), 4)


@case(4, 0, 3, pinned="a", free="b", reason="subgraph")
def branch_captures_weight() -> onnx.ModelProto:
    """An If whose branch reads a weight that a convolution outside reads too."""
    net = Net()
    x = net.input()
    w = net.weight(3, 3, 3, 3, name="w")
    a = net.block(x, 3, 3, "a", w=w)
    then = helper.make_node("Conv", [x, w], ["t"], pads=[1] * 4)
    other = helper.make_node("Identity", [x], ["e"])
    b = net.op("Concat", a, _branches(net, [then], [other], x, "c"), axis=1)
    return net.head(net.block(b, 6, 4, "b"), 4)


@case(4, 0, 4, pinned="a c", free="b")
def loop_captures_activation() -> onnx.ModelProto:
    """A Loop that adds an activation from outside three times."""
    net = Net()
    a = net.block(net.input(), 3, 4, "a")
    ins = [
        helper.make_tensor_value_info("i", TensorProto.INT64, []),
        helper.make_tensor_value_info("go", TensorProto.BOOL, []),
        helper.make_tensor_value_info("state", FLOAT, None),
    ]
    kinds: dict[str, tuple[int, list[int] | None]] = {"on": (TensorProto.BOOL, []), "next": (FLOAT, None)}
    outs = [helper.make_tensor_value_info(name, *kind) for name, kind in kinds.items()]
    body = [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Add", ["state", a], ["next"])]
    start = net.op("Mul", a, net.const(0.5))
    c = net.op("Loop", net.ints(3), "", start, out="c", body=helper.make_graph(body, "body", ins, outs))
    return net.head(net.block(net.info(c, ("N", 4, 8, 8)), 4, 4, "b"), 4)
