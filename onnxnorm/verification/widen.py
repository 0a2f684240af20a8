"""A network in half precision as it would compute in float32: the same graph with constants, casts and types widened.

In float16 and bfloat16 a tolerance wide enough for rounding hides a channel that is a per cent off. Computed in
float32, only one rounding is left: that of the constants, which a rewrite multiplied by its scales and rounded to
their type again. Where the record of the rewrite explains a constant, which is then the recorded product rounded once
and not a bit else, the product itself takes its place. So what the record explains counts as no error, and everything
else about the rewritten model does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import Message
from numpy.typing import NDArray
from onnx import numpy_helper

from onnxnorm.model.constants import stored_constants
from onnxnorm.model.containers import messages
from onnxnorm.model.files import Model
from onnxnorm.model.tensors import FLOATS, tensor_dtype, unit_in_last_place
from onnxnorm.rewriting.record import Record

__all__ = ["is_half", "narrowest_type", "unrounded", "widened"]

_HALF = frozenset({onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16})
# Attributes that hold an element type.
_TYPES = frozenset({"to", "dtype", "output_dtype", "output_datatype", "stash_type", "softmax_precision"})


def is_half(dtype: np.dtype[Any]) -> bool:
    """Whether a dtype is float16 or bfloat16."""
    return dtype == np.float16 or dtype.name == "bfloat16"


def narrowest_type(model: Model) -> np.dtype[Any]:
    """The narrowest floating-point type that a model computes in.

    A half-precision constant is enough to be half precision. One in float32 does not make float32 of a network in
    float64, where some operators take nothing else (the scales of Resize).
    """
    types = {
        data_type
        for _, name, data_type in _element_types(model.proto)
        if data_type in _HALF or (name != "data_type" and data_type in FLOATS)
    }
    return max((np.dtype(tensor_dtype(kind)) for kind in types), key=unit_in_last_place, default=np.dtype(np.float32))


def widened(model: Model, values: Mapping[str, NDArray[np.float32]] | None = None) -> onnx.ModelProto:
    """A copy of a model in which float32 stands for float16 and bfloat16.

    Args:
        model: the model.
        values: float32 values for some of its constants, by name, of the constants' shapes; the others keep theirs.

    Raises:
        ModelError: if the model is larger than protobuf's 2 GB.
    """
    proto = model.to_proto()
    for holder, name, data_type in list(_element_types(proto)):
        if data_type not in _HALF:
            continue
        if isinstance(holder, onnx.TensorProto):
            wide = numpy_helper.to_array(holder).astype(np.float32)
            holder.CopyFrom(numpy_helper.from_array(wide, holder.name))
        else:
            setattr(holder, name, onnx.TensorProto.FLOAT)
    for tensor, name in _named_tensors(proto):
        if values and name in values:
            tensor.CopyFrom(numpy_helper.from_array(values[name], tensor.name))
    return proto


def unrounded(original: Model, rewritten: Model, record: Record) -> dict[str, NDArray[np.float32]]:
    """The half-precision constants of a rewritten model before they were rounded to their type.

    Returns only those that are, bit for bit, the original's constant times the recorded factor, rounded once.
    """
    before, after = stored_constants(original), stored_constants(rewritten)
    products: dict[str, NDArray[np.float32]] = {}
    for name, factor in record.factors.items():
        source, result = before.get(record.clones.get(name, name)), after.get(name)
        added = record.insertion.constants.get(name)
        if result is None or (source is None and added is None):
            continue
        values = np.full(result.shape, added) if source is None else source.values()
        if source is not None and (source.shape != result.shape or source.dtype != result.dtype):
            continue
        if onnx.helper.np_dtype_to_tensor_dtype(result.dtype) not in _HALF:
            continue
        with np.errstate(over="ignore", invalid="ignore"):
            product = values.astype(np.float64) * (factor.times / factor.over)
            rounded = product.astype(result.dtype)
        if product.shape == result.shape and rounded.tobytes() == result.values().tobytes():
            products[name] = product.astype(np.float32)
    return products


def _element_types(root: Message) -> Iterator[tuple[Message, str, int]]:
    """All that says an element type in a message: tensors, types of values, attributes; (holder, its field, type)."""
    for message in messages(root):
        if isinstance(message, onnx.TensorProto):
            yield message, "data_type", message.data_type
        elif isinstance(message, onnx.TypeProto.Tensor | onnx.TypeProto.SparseTensor):
            yield message, "elem_type", message.elem_type
        elif isinstance(message, onnx.AttributeProto) and message.name in _TYPES:
            yield message, "i", message.i


def _named_tensors(proto: onnx.ModelProto) -> Iterator[tuple[onnx.TensorProto, str]]:
    """The constants of the main graph with the names that nodes read them by."""
    yield from ((tensor, tensor.name) for tensor in proto.graph.initializer)
    for node in proto.graph.node:
        if node.op_type == "Constant":
            yield from ((a.t, node.output[0]) for a in node.attribute if a.name == "value")
