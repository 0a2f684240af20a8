"""ONNX's shape inference, for concrete inputs: over a whole graph, and node by node.

Its propagation of data stays off: it writes out every value with one axis, element by element, where an operator such
as Cast or Gather reads it, and so takes gigabytes for a Range of a hundred bytes. What shapes are computed from is
evaluated in `shapes`, within limits.

The file's own claims about inner values are left out, since they may be wrong. Numbers of rows that only a run can tell
(what NonZero finds, say) are unknown, unless a number is assumed for all of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import onnx
from onnx import numpy_helper, shape_inference

from onnxnorm.errors import ModelError
from onnxnorm.model.boundary import COMPLAINTS
from onnxnorm.model.constants import Constant
from onnxnorm.model.files import Model
from onnxnorm.model.graph import Node
from onnxnorm.model.guards import Guards, guard
from onnxnorm.model.windows import settle_ceiled, settled_node

__all__ = ["Inference", "claimed_values", "counted_values", "infer_node", "inferred_outputs", "shorten_domain"]

Shape = tuple[int, ...]

# Functions that ONNX cannot infer through, whose output has the shape of their first input.
_SAME_SHAPE = {"GroupNormalization"}
_SMALL = 1 << 16  # elements; larger constants are not handed to shape inference
_COUNTING = {"Compress", "NonMaxSuppression", "NonZero", "Unique"}


@dataclass(frozen=True)
class Inference:
    """Shape inference of one model, for inputs of any sizes.

    Attributes:
        model: the model.
        proto: a copy without the file's own claims about inner values, with guards.
        guards: those of the copy.
    """

    model: Model
    proto: onnx.ModelProto
    guards: Guards

    @classmethod
    def of(cls, model: Model) -> Inference:
        """Prepare a model for inference, once for all sizes of its inputs."""
        proto = onnx.ModelProto()
        proto.CopyFrom(model.proto)
        del proto.graph.value_info[:]
        for value in proto.graph.output:
            value.type.tensor_type.ClearField("shape")
        shorten_domain(proto)
        return cls(model, proto, guard(proto))

    def whole(self, shapes: Mapping[str, Shape], rows: int | None = None) -> tuple[dict[str, Shape], dict[str, int]]:
        """Shapes and element types of all values for concrete inputs.

        Args:
            shapes: the shape of each input, by name.
            rows: the number of rows that is assumed where only a run can tell it; None to leave such shapes unknown.

        Raises:
            NegativeSizeError: if a node that inference would not survive then reads a value of a negative size.
            ModelError: if the graph is not consistent for these shapes, or for this number of rows.
        """
        proto = onnx.ModelProto()
        proto.CopyFrom(self.proto)
        for value in proto.graph.input:
            if value.name in shapes:
                _set_shape(value, shapes[value.name])
        graph, inferred, types = _inferred_values(proto)
        while settle_ceiled(proto, inferred) or (rows is not None and _assume_rows(proto, inferred, rows)):
            graph, inferred, types = _inferred_values(proto)
        self.guards.check(graph)
        return self.guards.without_own(inferred), self.guards.without_own(types)


def counted_values(proto: onnx.ModelProto) -> frozenset[str]:
    """The values whose number of rows only a run can tell: what NonZero finds, or what Compress keeps."""
    graph = proto.graph
    stored = {tensor.name for tensor in graph.initializer}
    stored |= {name for node in graph.node if node.op_type == "Constant" for name in node.output}
    return frozenset(
        name
        for node in graph.node
        if node.op_type in _COUNTING and not (node.op_type == "Compress" and stored.issuperset(node.input[1:]))
        for name in node.output
        if name
    )


def _assume_rows(proto: onnx.ModelProto, shapes: Mapping[str, Shape], rows: int) -> bool:
    """State the shapes of values whose number of rows depends on other values; whether there were new ones."""
    counted = counted_values(proto)
    if counted <= shapes.keys():
        return False
    kinds = {value.name: value.type for value in shape_inference.infer_shapes(proto).graph.value_info}
    stated = len(proto.graph.value_info)
    for name in sorted(counted - shapes.keys()):
        if name in kinds and kinds[name].tensor_type.HasField("shape"):
            value = proto.graph.value_info.add(name=name, type=kinds[name])
            for dim in value.type.tensor_type.shape.dim:
                dim.dim_value = dim.dim_value if dim.HasField("dim_value") else rows
    return len(proto.graph.value_info) > stated


def _inferred_values(proto: onnx.ModelProto) -> tuple[onnx.GraphProto, dict[str, Shape], dict[str, int]]:
    try:
        graph = shape_inference.infer_shapes(proto).graph
    except shape_inference.InferenceError as error:
        raise ModelError(f"the graph is not consistent: {str(error).strip()}") from error
    inferred: dict[str, Shape] = {}
    types: dict[str, int] = {}
    for value in (*graph.input, *graph.value_info, *graph.output):
        _note(value.name, value.type, inferred, types)
    return graph, inferred, types


def claimed_values(model: Model, shapes: Mapping[str, Shape]) -> tuple[dict[str, Shape], dict[str, int]]:
    """Shapes and types that the file states; symbolic dimensions (`N`, `height`) are those of the inputs."""
    sizes = {
        dim.dim_param: size
        for value in model.proto.graph.input
        for dim, size in zip(value.type.tensor_type.shape.dim, shapes.get(value.name, ()), strict=False)
        if dim.dim_param
    }
    claimed: dict[str, Shape] = {}
    types: dict[str, int] = {}
    for value in (*model.proto.graph.value_info, *model.proto.graph.output):
        _note(value.name, value.type, claimed, types, sizes)
    return claimed, types


def shorten_domain(proto: onnx.ModelProto) -> None:
    """Write ONNX's own domain as the empty string, in place, since shape inference does not accept `ai.onnx`."""
    for opset in proto.opset_import:
        opset.domain = "" if opset.domain == "ai.onnx" else opset.domain
    graphs = [proto.graph]
    while graphs:
        for node in graphs.pop().node:
            if node.domain == "ai.onnx":
                node.domain = ""
            for attribute in node.attribute:
                graphs.extend([*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])])


def _note(
    name: str,
    kind: onnx.TypeProto,
    shapes: dict[str, Shape],
    types: dict[str, int],
    sizes: Mapping[str, int] = MappingProxyType({}),
) -> None:
    if not kind.HasField("tensor_type"):
        return
    if kind.tensor_type.elem_type:
        types[name] = kind.tensor_type.elem_type
    shape = _shape_of(kind, sizes)
    if shape is not None:
        shapes[name] = shape


def _shape_of(kind: onnx.TypeProto, sizes: Mapping[str, int] = MappingProxyType({})) -> tuple[int, ...] | None:
    """The shape, if every dimension is a number or has a known name."""
    if not kind.tensor_type.HasField("shape"):
        return None
    dims = [d.dim_value if d.HasField("dim_value") else sizes.get(d.dim_param) for d in kind.tensor_type.shape.dim]
    # Some exporters write -1 for a dimension that they do not know.
    return None if any(d is None or d < 0 for d in dims) else tuple(d for d in dims if d is not None)


def _set_shape(value: onnx.ValueInfoProto, shape: tuple[int, ...]) -> None:
    value.type.tensor_type.ClearField("shape")
    for size in shape:
        value.type.tensor_type.shape.dim.add().dim_value = size
    if not shape:
        value.type.tensor_type.shape.SetInParent()


def infer_node(
    node: Node,
    shapes: Mapping[str, Shape],
    types: Mapping[str, int],
    constants: Mapping[str, Constant],
) -> dict[str, tuple[int, tuple[int, ...] | None]]:
    """The same as `inferred_outputs`, and nothing for a node that breaks the rules of its operator."""
    try:
        return inferred_outputs(node, shapes, types, constants)
    except COMPLAINTS:
        return {}  # a value without a shape is treated as unknown


def inferred_outputs(
    node: Node,
    shapes: Mapping[str, Shape],
    types: Mapping[str, int],
    constants: Mapping[str, Constant],
) -> dict[str, tuple[int, tuple[int, ...] | None]]:
    """Element type and shape of a node's outputs, as far as its operator tells.

    Raises whatever ONNX raises for a node that breaks the rules of its operator; see `COMPLAINTS`.
    """
    if node.domain or node.captured() or not onnx.defs.has(node.proto.op_type, node.opset):
        return {}
    kinds: dict[str, onnx.TypeProto] = {}
    data: dict[str, onnx.TensorProto] = {}
    for name in filter(None, node.inputs):
        if name not in types:
            return {}
        kinds[name] = onnx.helper.make_tensor_type_proto(types[name], shapes.get(name))
        if name in constants and constants[name].size <= _SMALL and constants[name].dtype.kind in "iubf":
            data[name] = numpy_helper.from_array(constants[name].values(), name)
    schema = onnx.defs.get_schema(node.proto.op_type, node.opset)
    if _lacks_inputs(node, schema):
        return {}
    opsets = [onnx.helper.make_opsetid("", node.opset)]
    outputs = shape_inference.infer_node_outputs(schema, node.proto, kinds, data, opset_imports=opsets)
    found = {name: shape for name, kind in outputs.items() if (shape := _shape_of(kind)) is not None}
    settled = settled_node(node.proto, {**shapes, **found})
    if settled is not None:
        outputs = shape_inference.infer_node_outputs(schema, settled, kinds, data, opset_imports=opsets)
    like = shapes.get(node.inputs[0]) if node.proto.op_type in _SAME_SHAPE else None
    return {name: (kind.tensor_type.elem_type, _shape_of(kind) or like) for name, kind in outputs.items()}


def _lacks_inputs(node: Node, schema: onnx.defs.OpSchema) -> bool:
    """Whether an input that its operator requires is left out, for which some operators look all the same."""
    required = [given.option == onnx.defs.OpSchema.FormalParameterOption.Single for given in schema.inputs]
    return any(needed and not name for needed, name in zip(required, node.inputs, strict=False))
