"""Concrete shapes of all values, and the results of small integer computations in the graph.

`read_graph` is the one way from a Model to a Graph. It runs ONNX shape inference once over the whole graph, then visits
the nodes in order and closes the gaps. A node whose inputs are all constant (and `Shape`, which reads no values) yields
a computed constant, which ONNX's reference implementation evaluates when its values are asked for. Where an output has
no shape yet, inference is repeated for its node, with those constants known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import onnx
from onnx import numpy_helper, shape_inference

from onnxnorm.errors import ModelError
from onnxnorm.model.boundary import COMPLAINTS, first_line, model_errors
from onnxnorm.model.constants import Constant, stored_constants
from onnxnorm.model.evaluation import Evaluator
from onnxnorm.model.files import Model
from onnxnorm.model.graph import Graph, Node, input_specs, ordered_nodes, readers_of
from onnxnorm.model.inputs import InputSpec
from onnxnorm.model.sizes import Known, differences, other_sizes
from onnxnorm.model.windows import has_room, settle_ceiled, settled_node

__all__ = ["assumed_shapes", "check_fitting", "check_legal", "read_graph", "sample_shapes", "shorten_domain"]

# Functions that ONNX cannot infer through, whose output has the shape of their first input.
_SAME_SHAPE = {"GroupNormalization"}
_SMALL = 1 << 16  # elements; larger constants are not handed to shape inference

DEFAULT_SIZE = 224
DEFAULT_CHANNELS = 3
_DOUBLINGS = 9  # of the assumed size, where layers have no output


def sample_shapes(
    specs: tuple[InputSpec, ...], size: tuple[int, int] | None = None, side: int = DEFAULT_SIZE
) -> dict[str, tuple[int, ...]]:
    """A concrete shape of every input, for one sample; open axes get `size` (height, width), or `side` without it."""
    height, width = size or (side, side)
    shapes = {}
    for spec in specs:
        if spec.value is not None:
            shapes[spec.name] = spec.repeated(1).shape
            continue
        shape = [side if dim is None else dim for dim in spec.shape]
        if spec.batch is not None and spec.shape[spec.batch] is None:
            shape[spec.batch] = 1
        if len(shape) == 4 and spec.batch == 0:
            channels_last = spec.shape[3] is not None and spec.shape[1] is None
            spatial = (1, 2) if channels_last else (2, 3)
            for axis, given in zip(spatial, (height, width), strict=True):
                shape[axis] = given if spec.shape[axis] is None else shape[axis]
            if not channels_last and spec.shape[1] is None:
                shape[1] = DEFAULT_CHANNELS
        shapes[spec.name] = tuple(shape)
    return shapes


@model_errors("the graph")
def assumed_shapes(model: Model, size: tuple[int, int] | None = None) -> dict[str, tuple[int, ...]]:
    """Shapes as `sample_shapes` gives them, larger where layers would have no output for inputs of 224.

    Raises ModelError if the graph is not consistent.
    """
    specs = input_specs(model)
    usual = sample_shapes(specs, size)
    for doublings in range(_DOUBLINGS):
        shapes = sample_shapes(specs, size, DEFAULT_SIZE << doublings)
        if has_room(model.proto, _infer_whole(model, shapes)[0]):
            return shapes
        if doublings and shapes == usual:  # no size is open
            break
    return usual


def read_graph(model: Model, shapes: Mapping[str, tuple[int, ...]]) -> Graph:
    """Read a model for inputs of these concrete shapes, by name. Raises ModelError if the graph is not legal."""
    with model_errors("the graph"):
        return _read_graph(model, shapes)


def _read_graph(model: Model, shapes: Mapping[str, tuple[int, ...]]) -> Graph:
    nodes, specs = ordered_nodes(model), input_specs(model)
    stored = stored_constants(model)
    base = _known(model, nodes, stored, shapes)
    others = other_sizes(model, specs, nodes, base, lambda other: _known(model, nodes, stored, other))
    differ = differences(base, others)
    return Graph(
        nodes=nodes,
        inputs=specs,
        outputs=tuple(value.name for value in model.proto.graph.output),
        constants=base.constants,
        shapes=base.shapes,
        types=base.types,
        readers=readers_of(nodes),
        batched=differ.batched,
        varying=differ.varying,
        unsteady=differ.unsteady,
        resized=differ.resized,
        functions=frozenset(("" if f.domain == "ai.onnx" else f.domain, f.name) for f in model.proto.functions),
        claimed=frozenset(base.claimed),
    )


def _known(
    model: Model, nodes: Sequence[Node], stored: Mapping[str, Constant], shapes: Mapping[str, tuple[int, ...]]
) -> Known:
    """What is known for inputs of these shapes. Raises ModelError if the graph is not consistent for them."""
    known_shapes, types = _infer_whole(model, shapes)
    claimed_shapes, claimed_types = _claimed(model, shapes)
    constants = dict(stored)
    evaluator = Evaluator(constants)
    for constant in stored.values():
        known_shapes[constant.name] = constant.shape
        types[constant.name] = onnx.helper.np_dtype_to_tensor_dtype(constant.dtype)
    claimed: set[str] = set()
    for node in nodes:
        unknown = [name for name in node.outputs if name and name not in known_shapes]
        if unknown:
            for name, (elem_type, shape) in _infer_node(node, known_shapes, types, constants).items():
                types.setdefault(name, elem_type)
                if shape is not None:
                    known_shapes.setdefault(name, shape)
            if any(name in claimed for name in node.inputs):
                claimed.update(name for name in unknown if name in known_shapes)
        for name in node.outputs:  # the file's own claims count where inference gives nothing
            if name in claimed_types:
                types.setdefault(name, claimed_types[name])
            if name in claimed_shapes and name not in known_shapes:
                known_shapes[name] = claimed_shapes[name]
                claimed.add(name)
        constants.update(evaluator.computed(node, known_shapes, types, constants))
    return Known(known_shapes, types, constants, claimed)


def _infer_whole(
    model: Model, shapes: Mapping[str, tuple[int, ...]]
) -> tuple[dict[str, tuple[int, ...]], dict[str, int]]:
    """ONNX shape inference for concrete inputs, without the file's own claims about inner values."""
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    for value in proto.graph.input:
        if value.name in shapes:
            _set_shape(value, shapes[value.name])
    del proto.graph.value_info[:]
    for value in proto.graph.output:
        value.type.tensor_type.ClearField("shape")
    shorten_domain(proto)
    inferred, types = _inferred_values(proto)
    while settle_ceiled(proto, inferred):
        inferred, types = _inferred_values(proto)
    return inferred, types


def _inferred_values(proto: onnx.ModelProto) -> tuple[dict[str, tuple[int, ...]], dict[str, int]]:
    try:
        graph = shape_inference.infer_shapes(proto, data_prop=True).graph
    except shape_inference.InferenceError as error:
        raise ModelError(f"the graph is not consistent: {str(error).strip()}") from error
    inferred: dict[str, tuple[int, ...]] = {}
    types: dict[str, int] = {}
    for value in (*graph.input, *graph.value_info, *graph.output):
        _note(value.name, value.type, inferred, types)
    return inferred, types


def _claimed(model: Model, shapes: Mapping[str, tuple[int, ...]]) -> tuple[dict[str, tuple[int, ...]], dict[str, int]]:
    """Shapes and types that the file states; symbolic dimensions (`N`, `height`) are those of the inputs."""
    sizes = {
        dim.dim_param: size
        for value in model.proto.graph.input
        for dim, size in zip(value.type.tensor_type.shape.dim, shapes.get(value.name, ()), strict=False)
        if dim.dim_param
    }
    claimed: dict[str, tuple[int, ...]] = {}
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
    shapes: dict[str, tuple[int, ...]],
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


def _infer_node(
    node: Node,
    shapes: Mapping[str, tuple[int, ...]],
    types: Mapping[str, int],
    constants: Mapping[str, Constant],
) -> dict[str, tuple[int, tuple[int, ...] | None]]:
    """Element type and shape of a node's outputs, as far as its operator tells."""
    try:
        return _inferred(node, shapes, types, constants)
    except COMPLAINTS:
        return {}  # a value without a shape is treated as unknown


def check_legal(node: Node, graph: Graph) -> None:
    """Raise ModelError if a node breaks the rules of its operator. It is called when a law has failed at the node."""
    if node.captured():
        return
    try:
        onnx.checker.check_node(node.proto, _context(node))
        _inferred(node, graph.shapes, graph.types, graph.constants)
    except COMPLAINTS as error:
        raise ModelError(
            f"{node.op} node {node.label!r} is not legal ONNX ({first_line(error)}); export it again"
        ) from error


def check_fitting(node: Node, graph: Graph, failure: Exception) -> None:
    """Raise ModelError if a node at which a law has failed could not be checked, as not all its shapes are known."""
    unsure = [name for name in node.inputs if name and (name not in graph.shapes or name in graph.claimed)]
    if unsure:
        raise ModelError(
            f"{node.op} node {node.label!r} has inputs or attributes that do not fit each other "
            f"({first_line(failure)}), which shows only here because the shape of {unsure[0]!r} is not known; "
            "check the model with onnx.checker, and export it again"
        ) from failure


def _context(node: Node) -> onnx.checker.C.CheckerContext:
    context = onnx.checker.C.CheckerContext()
    context.ir_version = onnx.IR_VERSION
    context.opset_imports = {node.proto.domain: node.opset}
    return context


def _inferred(
    node: Node,
    shapes: Mapping[str, tuple[int, ...]],
    types: Mapping[str, int],
    constants: Mapping[str, Constant],
) -> dict[str, tuple[int, tuple[int, ...] | None]]:
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
    outputs = shape_inference.infer_node_outputs(schema, node.proto, kinds, data, opset_imports=opsets)
    found = {name: shape for name, kind in outputs.items() if (shape := _shape_of(kind)) is not None}
    settled = settled_node(node.proto, {**shapes, **found})
    if settled is not None:
        outputs = shape_inference.infer_node_outputs(schema, settled, kinds, data, opset_imports=opsets)
    like = shapes.get(node.inputs[0]) if node.proto.op_type in _SAME_SHAPE else None
    return {name: (kind.tensor_type.elem_type, _shape_of(kind) or like) for name, kind in outputs.items()}
