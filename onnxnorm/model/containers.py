"""Everything in a model that holds nodes: its main graph, its functions, and the subgraphs of their nodes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

import onnx
from google.protobuf.message import Message

__all__ = ["Container", "attribute_tensors", "containers", "messages", "subgraphs"]

Container: TypeAlias = onnx.GraphProto | onnx.FunctionProto


def containers(*roots: Container) -> Iterator[Container]:
    """Yield these graphs and functions, and every subgraph in them at any depth."""
    waiting = list(roots)
    while waiting:
        container = waiting.pop()
        yield container
        for node in container.node:
            for attribute in node.attribute:
                waiting.extend(subgraphs(attribute))


def messages(root: Message) -> Iterator[Message]:
    """Yield a message of protobuf and all messages in it, at any depth; what is in a tensor is left out."""
    waiting = [root]
    while waiting:
        message = waiting.pop()
        yield message
        if isinstance(message, onnx.TensorProto):
            continue
        for field, value in message.ListFields():
            if field.message_type is not None:
                waiting.extend([value] if isinstance(value, Message) else value)


def subgraphs(attribute: onnx.AttributeProto) -> list[onnx.GraphProto]:
    """The graphs that an attribute holds."""
    return [*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])]


def attribute_tensors(attribute: onnx.AttributeProto) -> Iterator[onnx.TensorProto]:
    """Yield the tensors that an attribute holds, those of sparse tensors included."""
    if attribute.HasField("t"):
        yield attribute.t
    yield from attribute.tensors
    sparse = [*attribute.sparse_tensors, *([attribute.sparse_tensor] if attribute.HasField("sparse_tensor") else [])]
    for tensor in sparse:
        yield from (tensor.values, tensor.indices)
