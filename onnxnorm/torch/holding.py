"""Constants and attributes that must keep their values, since a module has no place of their own for other ones.

A constant is held by making it a graph input too: its caller could replace it then, so the law pins what it touches.
Attributes are held by an entry in the metadata of their node, which the law reads.
"""

from __future__ import annotations

from collections.abc import Collection, Container

import onnx
from onnx import helper

from onnxnorm.model.graph import KEEPS_ATTRIBUTES

__all__ = ["hold", "hold_attributes", "separate_copies"]


def hold(proto: onnx.ModelProto, names: Collection[str]) -> None:
    """Pin constants of a model: initializers, and outputs of Constant nodes, which become initializers."""
    graph = proto.graph
    for node in [node for node in graph.node if node.op_type == "Constant" and node.output[0] in names]:
        graph.initializer.add().CopyFrom(_value_of(node))
        graph.node.remove(node)
    listed = {value.name for value in graph.input}
    for tensor in graph.initializer:
        if tensor.name in names and tensor.name not in listed:
            graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))


def hold_attributes(proto: onnx.ModelProto, outputs: Collection[str]) -> None:
    """Pin what the attributes of nodes touch; the nodes are given by their first outputs."""
    for node in proto.graph.node:
        if node.output and node.output[0] in outputs:
            node.metadata_props.add(key=KEEPS_ATTRIBUTES, value="true")


def _value_of(node: onnx.NodeProto) -> onnx.TensorProto:
    """The value of a Constant node, as an initializer."""
    attribute = node.attribute[0]
    tensor = onnx.TensorProto()
    if attribute.name == "value":
        tensor.CopyFrom(attribute.t)
    else:
        value = helper.get_attribute_value(attribute)
        kind = onnx.TensorProto.FLOAT if "float" in attribute.name else onnx.TensorProto.INT64
        many = isinstance(value, (list, tuple))
        tensor = helper.make_tensor("", kind, [len(value)] if many else [], list(value) if many else [value])
    tensor.name = node.output[0]
    return tensor


def separate_copies(proto: onnx.ModelProto, names: Container[str]) -> None:
    """Give each parameter an initializer again, where an exporter made one of several that had the same values.

    The exporter leaves `Identity` nodes whose outputs have the names of the others.
    """
    graph = proto.graph
    stored = {tensor.name: tensor for tensor in graph.initializer}
    outputs = {value.name for value in graph.output}
    for node in list(graph.node):
        name = node.output[0] if node.output else ""
        copied = node.op_type == "Identity" and node.input[0] in stored
        if copied and name in names and name not in outputs:
            tensor = graph.initializer.add()
            tensor.CopyFrom(stored[node.input[0]])
            tensor.name = name
            stored[name] = tensor
            graph.node.remove(node)
