"""Is it the same graph? Two models are, if nothing differs but floating-point constants' values and the provenance."""

from __future__ import annotations

import onnx

from onnxnorm.model.files import Model
from onnxnorm.model.tensors import FLOATS
from onnxnorm.rewriting import PREFIX

__all__ = ["same_graph"]

_DATA = ("raw_data", "float_data", "double_data", "int32_data")


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
