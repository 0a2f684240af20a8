"""A builder for the graphs of the corpus, and inputs for them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

__all__ = ["BFLOAT16", "DOUBLE", "FLOAT", "FLOAT16", "INF", "OPEN", "Dims", "Net", "feeds"]

FLOAT, FLOAT16, BFLOAT16, DOUBLE = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE
INF = float("inf")

Dims = tuple[int | str, ...]

# What open dimensions are in tests.
OPEN = {"N": 1, "H": 10, "W": 6}


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
