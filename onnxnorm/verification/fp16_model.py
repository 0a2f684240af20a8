"""Two copies of a network for FP16: one that measures how large its values become, one that rounds them to float16.

`ranges_of` adds `ReduceMax(Abs(v))` for every floating-point value `v`, so that one number per value leaves the
runtime.

`rounding` is the float16 model in all but its types: constants are rounded by ONNX Runtime's own converter
(`onnxruntime.transformers.float16`: to the nearest float16, 65504 at most, 5.96e-8 at least), and behind every value
stand a Cast to float16 and one back, which the runtime may not remove. Products are summed in float32 and results
rounded to float16, as tensor cores do it, and values beyond 65520 become infinite. The converted model itself would
show nothing: ONNX Runtime's CPU provider has few float16 kernels, and computes a chain of other operators in float32
from end to end without rounding a single value between them (seen with 1.31).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from onnxnorm.errors import ModelError
from onnxnorm.model.files import Model
from onnxnorm.model.graph import Graph

__all__ = ["RangeProbe", "ranges_of", "rounding"]

_PREFIX = "onnxnorm_fp16"


@dataclass(frozen=True)
class RangeProbe:
    """The measuring copy, whose external data lies in `folder`, and what its added outputs measure."""

    proto: onnx.ModelProto = field(repr=False)
    folder: Path | None
    values: dict[str, str]


def ranges_of(model: Model, graph: Graph, names: Iterable[str]) -> RangeProbe:
    """A copy of the model with, beside its outputs, the largest magnitudes of these floating-point values."""
    proto, folder = model.in_place() or (model.to_proto(), None)
    values = {}
    for index, name in enumerate(names):
        if 0 in graph.shapes.get(name, ()):
            continue
        output, source = f"{_PREFIX}_{index}", name
        if graph.types[name] not in {onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE}:
            source = f"{output}_float"
            proto.graph.node.append(onnx.helper.make_node("Cast", [name], [source], to=onnx.TensorProto.FLOAT))
        kind = graph.types[name] if source == name else onnx.TensorProto.FLOAT
        proto.graph.node.append(onnx.helper.make_node("Abs", [source], [f"{output}_abs"]))
        proto.graph.node.append(onnx.helper.make_node("ReduceMax", [f"{output}_abs"], [output], keepdims=0))
        proto.graph.output.append(onnx.helper.make_tensor_value_info(output, kind, []))
        values[output] = name
    return RangeProbe(proto, folder, values)


def rounding(model: Model, graph: Graph) -> onnx.ModelProto:
    """A copy of the model that rounds its constants and all its float32 values to float16.

    Raises ModelError if the model is larger than 2 GB, or is not a float32 one.
    """
    rounded = [name for name in graph.float_values() if graph.types[name] == onnx.TensorProto.FLOAT]
    others = [name for name in graph.float_values() if graph.types[name] != onnx.TensorProto.FLOAT]
    if others:
        kind = onnx.TensorProto.DataType.Name(graph.types[others[0]]).lower()
        raise ModelError(f"value {others[0]!r} is {kind}; only float32 models are converted to float16")
    proto = model.to_proto()
    for tensor in _convertible(proto):
        _round(tensor)
    inputs = {value.name for value in proto.graph.input}
    renamed = {name: f"{_PREFIX}_in_{name}" for name in rounded if name in inputs}
    raw = {name: f"{_PREFIX}_raw_{name}" for name in rounded if name not in inputs}
    for node in proto.graph.node:
        for position, name in enumerate(node.input):
            node.input[position] = renamed.get(name, name)
        for position, name in enumerate(node.output):
            node.output[position] = raw.get(name, name)
    for name in rounded:
        half = f"{_PREFIX}_half_{name}"
        ends = (name, renamed[name]) if name in inputs else (raw[name], name)
        proto.graph.node.append(onnx.helper.make_node("Cast", [ends[0]], [half], to=onnx.TensorProto.FLOAT16))
        proto.graph.node.append(onnx.helper.make_node("Cast", [half], [ends[1]], to=onnx.TensorProto.FLOAT))
    return proto


def _convertible(proto: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """The float32 constants that the converter converts: not those that only operators without float16 read."""
    from onnxruntime.transformers import float16

    kept: set[str] = set()
    read: set[str] = set()
    for node in proto.graph.node:
        for position, name in enumerate(node.input):
            blocked = node.op_type in float16.DEFAULT_OP_BLOCK_LIST
            blocked = blocked or position in float16.ALWAYS_FLOAT_INPUTS.get(node.op_type, [])
            (kept if blocked else read).add(name)
    for tensor in proto.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT and (tensor.name in read or tensor.name not in kept):
            yield tensor
    for node in proto.graph.node:
        if node.op_type == "Constant" and (node.output[0] in read or node.output[0] not in kept):
            yield from (a.t for a in node.attribute if a.name == "value" and a.t.data_type == onnx.TensorProto.FLOAT)


def _round(tensor: onnx.TensorProto) -> None:
    from onnxruntime.transformers import float16

    values = numpy_helper.to_array(tensor)
    half = float16.convert_np_to_float16(np.atleast_1d(values))  # it takes no array of rank 0
    tensor.CopyFrom(numpy_helper.from_array(half.astype(np.float32).reshape(values.shape), tensor.name))
