"""A model of what chosen values need: nodes, constants and inputs that none of them needs are left out.

What stays keeps its name, order and contents. Constants are not copied: the new model refers to the files of the old.
External data moves into the model's own file, so that what was cut away is gone from the disk too; only models beyond
what protobuf holds keep their data files.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import onnx
from onnx import shape_inference

from onnxnorm.errors import ModelError
from onnxnorm.model.boundary import model_errors
from onnxnorm.model.containers import containers
from onnxnorm.model.external import forget_location
from onnxnorm.model.files import Model
from onnxnorm.model.graph import Node, ordered_nodes
from onnxnorm.model.guards import guard

__all__ = ["cut"]

_ONE_FILE = (1 << 31) - (1 << 26)  # bytes of constants; protobuf holds 2 GB, and the graph needs some of them


def cut(model: Model, values: Sequence[str]) -> Model:
    """A model whose outputs are these values, in this order.

    Raises:
        ModelError: if the type of a value cannot be told.
    """
    nodes = _needed(ordered_nodes(model), values)
    read = {*values, *(name for node in nodes for name in (*node.inputs, *node.captured()))}
    made = {name for node in nodes for name in node.outputs}
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    graph = proto.graph
    kept = [index for index, tensor in enumerate(graph.initializer) if tensor.name in read]
    _keep(graph.node, [node.proto for node in nodes])
    outputs = _outputs(proto, values)
    _keep(graph.initializer, [model.proto.graph.initializer[index] for index in kept])
    _keep(graph.sparse_initializer, [item for item in graph.sparse_initializer if item.values.name in read])
    _keep(graph.input, [value for value in graph.input if value.name in read])
    _keep(graph.output, outputs)
    _keep(graph.value_info, [value for value in graph.value_info if value.name in made and value.name not in values])
    tensors = {tensor.name for tensor in graph.initializer} | made | {value.name for value in graph.input}
    _keep(graph.quantization_annotation, [a for a in graph.quantization_annotation if a.tensor_name in tensors])
    _keep(proto.functions, _called(proto))
    data = {new: model.tensor_data[old] for new, old in enumerate(kept) if old in model.tensor_data}
    return _in_one_file(Model(proto, data, model.path))


def _keep(field: object, items: Iterable[object]) -> None:
    """Replace the content of a repeated field; the items may be its own."""
    copies = list(items)
    copies = [_copy(item) for item in copies]
    del field[:]  # type: ignore[attr-defined]
    field.extend(copies)  # type: ignore[attr-defined]


def _copy(message: object) -> object:
    copy = type(message)()
    copy.CopyFrom(message)  # type: ignore[attr-defined]
    return copy


def _needed(nodes: Sequence[Node], values: Sequence[str]) -> list[Node]:
    """The nodes that these values depend on, each after those whose outputs it reads."""
    producers = {name: node for node in nodes for name in node.outputs if name}
    waiting, needed = list(values), set()
    while waiting:
        node = producers.get(waiting.pop())
        if node is not None and node.index not in needed:
            needed.add(node.index)
            waiting += [*node.inputs, *node.captured()]
    return [node for node in nodes if node.index in needed]


def _outputs(proto: onnx.ModelProto, values: Sequence[str]) -> list[onnx.ValueInfoProto]:
    """Descriptions of these values, as the file has them or shape inference tells; the nodes are in order."""
    guarded = onnx.ModelProto()
    guarded.CopyFrom(proto)
    guards = guard(guarded)
    with model_errors("the graph"):
        graph = shape_inference.infer_shapes(guarded).graph  # without data, which it would write out at any size
    guards.check(graph)
    known = {value.name: value for value in (*graph.value_info, *graph.output)}
    missing = [name for name in values if name not in known or not known[name].type.WhichOneof("value")]
    if missing:
        raise ModelError(
            f"the type of value {missing[0]!r} is not known, so it cannot be an output; export the model again with "
            "the types of its inner values, or choose another layer"
        )
    own = {dim.dim_param for dim in _dims((*proto.graph.input, *proto.graph.value_info, *proto.graph.output))}
    outputs = [known[name] for name in values]
    for dim in _dims(outputs):
        if dim.dim_param not in own:  # a name that shape inference made up
            dim.ClearField("dim_param")
    return outputs


def _dims(values: Iterable[onnx.ValueInfoProto]) -> Iterator[onnx.TensorShapeProto.Dimension]:
    """The axes of these values whose size has a name."""
    for value in values:
        yield from (dim for dim in value.type.tensor_type.shape.dim if dim.HasField("dim_param"))


def _called(proto: onnx.ModelProto) -> list[onnx.FunctionProto]:
    """The functions of a model that its graph calls, or that these call."""
    functions = {(function.domain, function.name): function for function in proto.functions}
    called: set[tuple[str, str]] = set()
    waiting: list[onnx.GraphProto | onnx.FunctionProto] = [proto.graph]
    while waiting:
        names = {(node.domain, node.op_type) for inner in containers(waiting.pop()) for node in inner.node}
        new = (names & functions.keys()) - called
        called |= new
        waiting += [functions[name] for name in new]
    return [function for name, function in functions.items() if name in called]


def _in_one_file(model: Model) -> Model:
    """The model with its external data inside, if protobuf can hold it."""
    if sum(data.length for data in model.tensor_data.values()) > _ONE_FILE:
        return model
    for index in model.tensor_data:
        forget_location(model.proto.graph.initializer[index])
    return model
