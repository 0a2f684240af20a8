"""Concrete shapes of all values, and what small integer computations of the graph come to.

`read_graph` is the one way from a Model to a Graph. It runs ONNX shape inference once over the whole graph, then goes
through the nodes in order and closes the gaps: a node whose inputs are all constant (and `Shape`, which reads no
values) yields a computed constant, evaluated by ONNX's reference implementation when somebody asks for its values; a
node whose output has no shape yet is inferred again, with those constants at hand.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper, shape_inference
from onnx.reference import ReferenceEvaluator

from onnxnorm.errors import ModelError
from onnxnorm.model.constants import Constant, stored_constants
from onnxnorm.model.files import Model, tensor_dtype
from onnxnorm.model.graph import Graph, Node, input_specs, ordered_nodes, readers_of
from onnxnorm.model.inputs import InputSpec

__all__ = ["evaluate", "read_graph", "sample_shapes"]

# Same inputs, other outputs: never constant.
_RANDOM = {"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"}
_SMALL = 1 << 16  # elements; larger constants are not handed to shape inference

DEFAULT_SIZE = 224
DEFAULT_CHANNELS = 3


def sample_shapes(specs: tuple[InputSpec, ...], size: tuple[int, int] | None = None) -> dict[str, tuple[int, ...]]:
    """A concrete shape per input for one sample: `size` (height, width), or 224, wherever the model leaves it open."""
    height, width = size or (DEFAULT_SIZE, DEFAULT_SIZE)
    shapes = {}
    for spec in specs:
        shape = [DEFAULT_SIZE if dim is None else dim for dim in spec.shape]
        if shape and spec.shape[0] is None:
            shape[0] = 1
        if len(shape) == 4:
            channels_last = spec.shape[3] is not None and spec.shape[1] is None
            spatial = (1, 2) if channels_last else (2, 3)
            for axis, given in zip(spatial, (height, width), strict=True):
                shape[axis] = given if spec.shape[axis] is None else shape[axis]
            if not channels_last and spec.shape[1] is None:
                shape[1] = DEFAULT_CHANNELS
        shapes[spec.name] = tuple(shape)
    return shapes


def read_graph(model: Model, shapes: Mapping[str, tuple[int, ...]]) -> Graph:
    """Read a model for inputs of these shapes. Raises ModelError if the graph is not legal."""
    nodes = ordered_nodes(model)
    known_shapes, types = _infer_whole(model, shapes)
    constants = stored_constants(model)
    for constant in constants.values():
        known_shapes[constant.name] = constant.shape
        types[constant.name] = onnx.helper.np_dtype_to_tensor_dtype(constant.dtype)
    for node in nodes:
        if any(name and name not in known_shapes for name in node.outputs):
            for name, (elem_type, shape) in _infer_node(node, known_shapes, types, constants).items():
                types.setdefault(name, elem_type)
                if shape is not None:
                    known_shapes.setdefault(name, shape)
        constants.update(_computed(node, known_shapes, types, constants))
    outputs = tuple(value.name for value in model.proto.graph.output)
    return Graph(nodes, input_specs(model), outputs, constants, known_shapes, types, readers_of(nodes))


def evaluate(node: Node, inputs: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
    """Run one node with ONNX's reference implementation; `inputs` by name."""
    feeds = [onnx.helper.make_tensor_value_info(name, _elem_type(array), None) for name, array in inputs.items()]
    wanted = [name for name in node.outputs if name]
    results = [onnx.helper.make_tensor_value_info(name, 0, None) for name in wanted]
    graph = onnx.helper.make_graph([node.proto], "one node", feeds, results)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", node.opset)])
    return [np.asarray(result) for result in ReferenceEvaluator(model).run(wanted, dict(inputs))]


def _elem_type(array: NDArray[Any]) -> int:
    return onnx.helper.np_dtype_to_tensor_dtype(array.dtype)


def _infer_whole(
    model: Model, shapes: Mapping[str, tuple[int, ...]]
) -> tuple[dict[str, tuple[int, ...]], dict[str, int]]:
    """ONNX shape inference for concrete inputs; what the file claims about inner values counts only where it is silent."""
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    for value in proto.graph.input:
        if value.name in shapes:
            _set_shape(value, shapes[value.name])
    claimed = {value.name: value for value in (*model.proto.graph.value_info, *model.proto.graph.output)}
    del proto.graph.value_info[:]
    for value in proto.graph.output:
        value.type.tensor_type.ClearField("shape")
    try:
        proto = shape_inference.infer_shapes(proto, data_prop=True)
    except shape_inference.InferenceError as error:
        raise ModelError(f"the graph is not consistent: {str(error).strip()}") from error
    found: dict[str, tuple[int, ...]] = {}
    types: dict[str, int] = {}
    inferred = {value.name: value for value in (*proto.graph.input, *proto.graph.value_info, *proto.graph.output)}
    for name, value in (claimed | inferred).items():
        _note(name, value.type, found, types)
    for name, value in claimed.items():
        if name not in found:
            _note(name, value.type, found, types)
    return found, types


def _note(name: str, kind: onnx.TypeProto, shapes: dict[str, tuple[int, ...]], types: dict[str, int]) -> None:
    if not kind.HasField("tensor_type"):
        return
    if kind.tensor_type.elem_type:
        types[name] = kind.tensor_type.elem_type
    shape = _shape_of(kind)
    if shape is not None:
        shapes[name] = shape


def _shape_of(kind: onnx.TypeProto) -> tuple[int, ...] | None:
    if not kind.tensor_type.HasField("shape"):
        return None
    dims = kind.tensor_type.shape.dim
    return tuple(d.dim_value for d in dims) if all(d.HasField("dim_value") for d in dims) else None


def _set_shape(value: onnx.ValueInfoProto, shape: tuple[int, ...]) -> None:
    value.type.tensor_type.ClearField("shape")
    for size in shape:
        value.type.tensor_type.shape.dim.add().dim_value = size
    if not shape:
        value.type.tensor_type.shape.SetInParent()


def _infer_node(
    node: Node,
    shapes: Mapping[str, tuple[int, ...]],
    types: Mapping[str, int],
    constants: Mapping[str, Constant],
) -> dict[str, tuple[int, tuple[int, ...] | None]]:
    """Element type and shape of a node's outputs, as far as its operator tells."""
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
    opsets = [onnx.helper.make_opsetid("", node.opset)]
    try:
        found = shape_inference.infer_node_outputs(schema, node.proto, kinds, data, opset_imports=opsets)
    except (shape_inference.InferenceError, onnx.checker.ValidationError, RuntimeError, ValueError):
        return {}  # the operator cannot tell; a value without a shape is treated as unknown
    return {name: (kind.tensor_type.elem_type, _shape_of(kind)) for name, kind in found.items()}


def _computed(
    node: Node,
    shapes: Mapping[str, tuple[int, ...]],
    types: Mapping[str, int],
    constants: Mapping[str, Constant],
) -> dict[str, Constant]:
    """The outputs of a node as constants, if its inputs are constants or it reads only shapes."""
    op = node.proto.op_type
    if node.domain or op in _RANDOM or op == "Constant" or node.captured():
        return {}
    inputs = [name for name in node.inputs if name]
    # A ConstantOfShape is of one value whatever the shape, and Expand repeats its first input.
    deciding = {"ConstantOfShape": [], "Expand": inputs[:1]}.get(op, inputs)
    by_shape = op in {"Shape", "Size"} or any(name in constants and constants[name].by_shape for name in deciding)
    if op in {"Shape", "Size"} and inputs[0] in shapes:
        placeholder = np.broadcast_to(np.float32(0), shapes[inputs[0]])
        arrays: Callable[[], dict[str, NDArray[Any]]] = lambda: {inputs[0]: placeholder}  # noqa: E731
    elif inputs and all(name in constants for name in inputs):
        held = [constants[name] for name in inputs]
        arrays = lambda: {constant.name: constant.values() for constant in held}  # noqa: E731
    else:
        return {}
    run = cache(lambda: evaluate(node, arrays()))
    found: dict[str, Constant] = {}
    for position, name in enumerate(filter(None, node.outputs)):
        if name not in shapes or name not in types:
            continue
        reason = f"is computed by {node.op} node {node.label!r}"
        read = lambda position=position: run()[position]  # noqa: E731
        dtype = tensor_dtype(types[name])
        found[name] = Constant(name, shapes[name], dtype, "computed", node.index, reason, read, by_shape)
    return found
