"""Is it the same graph? Two models are, if nothing differs but floating-point constants' values and the provenance."""

from __future__ import annotations

from dataclasses import dataclass, replace

import onnx

from onnxnorm.errors import ModelError
from onnxnorm.model.files import Model
from onnxnorm.model.functions import inlined
from onnxnorm.model.tensors import FLOATS
from onnxnorm.rewriting import PREFIX
from onnxnorm.rewriting.attributes import set_number
from onnxnorm.rewriting.insertion import removed
from onnxnorm.rewriting.record import Record
from onnxnorm.rewriting.restore import without_clones

__all__ = ["GraphDifference", "graph_difference", "same_graph"]

_DATA = ("raw_data", "float_data", "double_data", "int32_data")


@dataclass(frozen=True)
class GraphDifference:
    """How two graphs differ.

    Attributes:
        identical: whether nothing but constants' values and the provenance differs.
        attributes_changed: number of attributes that differ, where that, added nodes and copied constants are all
            that does.
        nodes_added: number of nodes that were added, likewise.
        constants_copied: number of copies of constants, likewise.
        inlined: whether the original's own functions were inlined, apart from that.
    """

    identical: bool
    attributes_changed: int = 0
    nodes_added: int = 0
    constants_copied: int = 0
    inlined: bool = False

    @property
    def known(self) -> bool:
        """Whether all that differs is told by the other attributes."""
        return self.identical or bool(self.attributes_changed or self.nodes_added or self.constants_copied)


def graph_difference(original: Model, rewritten: Model, record: Record | None) -> GraphDifference:
    """Compare two graphs; with the record of the rewrite, also say what was changed in a recorded way."""
    flat = inlined(original)
    if not flat.inlined or (flat is not original and same_graph(original, rewritten)):
        return _difference(original, rewritten, record)
    found = _difference(flat, rewritten, record)
    return replace(found, identical=False, inlined=found.known)


def _difference(original: Model, rewritten: Model, record: Record | None) -> GraphDifference:
    if same_graph(original, rewritten):
        return GraphDifference(True)
    if record is None:
        return GraphDifference(False)
    try:
        undone = removed(without_clones(rewritten, record.clones), record.insertion)
        bare = [_without_numbers(model, record) for model in (original, undone)]
    except ModelError:
        return GraphDifference(False)
    if not same_graph(*bare):
        return GraphDifference(False)
    return GraphDifference(False, len(record.attributes), len(record.insertion.nodes), len(record.clones))


def _without_numbers(model: Model, record: Record) -> Model:
    """A copy of a model without the attributes that a rewrite changed."""
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    names = {attribute.output: set[str]() for attribute in record.attributes.values()}
    for attribute in record.attributes.values():
        names[attribute.output].add(attribute.name)
    for node in proto.graph.node:
        for name in names.get(node.output[0], ()) if node.output else ():
            set_number(node, name, None)
    return Model(proto, model.tensor_data, model.path)


def same_graph(original: Model, rewritten: Model) -> bool:
    """Compare the protobufs, byte for byte, without the values of floating-point constants and `onnxnorm.` metadata."""
    return _bare(original) == _bare(rewritten) and _same_bulks(original, rewritten)


def _bare(model: Model) -> bytes:
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    for tensor in proto.graph.initializer:
        _blank(tensor)
    for node in proto.graph.node:
        if node.op_type == "Constant":
            for attribute in node.attribute:
                if attribute.HasField("t"):
                    _blank(attribute.t)
    kept = [(entry.key, entry.value) for entry in proto.metadata_props if not entry.key.startswith(PREFIX)]
    del proto.metadata_props[:]
    for key, value in kept:
        proto.metadata_props.add(key=key, value=value)
    return proto.SerializeToString(deterministic=True)


def _blank(tensor: onnx.TensorProto) -> None:
    """Drop values, and where external ones lie: files of another model must have other names."""
    if tensor.data_type in FLOATS:
        for name in _DATA:
            tensor.ClearField(name)
    for entry in tensor.external_data:
        if entry.key == "location":
            entry.value = ""


def _same_bulks(original: Model, rewritten: Model) -> bool:
    """Whether the bulky constants that are not floating-point, which no protobuf here holds, are the same bytes."""
    for index, tensor in enumerate(original.proto.graph.initializer):
        if tensor.data_type in FLOATS:
            continue
        before, after = original.tensor_data.get(index), rewritten.tensor_data.get(index)
        if (before is None) != (after is None):
            return False
        if before is not None and after is not None and b"".join(before.chunks()) != b"".join(after.chunks()):
            return False
    return True
