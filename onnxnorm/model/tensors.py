"""Facts about one TensorProto: its dtype, its size in bytes, its values as bytes, and whether it is complete."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from onnxnorm.errors import ModelError
from onnxnorm.model.mapped_data import MappedData

__all__ = [
    "FLOATS",
    "MOST_AXES",
    "PACKED",
    "check_tensor",
    "is_float",
    "tensor_dtype",
    "tensor_size",
    "unit_in_last_place",
    "value_bytes",
]

FLOATS = frozenset(
    {onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16, onnx.TensorProto.DOUBLE}
)
"""The element types that can be scaled: floating point of 16 bits or more."""

MOST_AXES = 32
"""The axes that a value can have: as many as NumPy broadcasts."""

# Element types smaller than a byte, with their number of bits.
PACKED = {
    value: bits
    for name, value in onnx.TensorProto.DataType.items()
    for bits, names in {2: "INT2 UINT2", 4: "INT4 UINT4 FLOAT4E2M1", 6: "FLOAT6E2M3 FLOAT6E3M2"}.items()
    if name in names.split()
}
_TYPES = set(onnx.helper.get_all_tensor_dtypes())
_COMPLEX = {onnx.TensorProto.COMPLEX64, onnx.TensorProto.COMPLEX128}
_TYPED = ("float_data", "int32_data", "int64_data", "uint64_data", "double_data", "string_data")


def tensor_dtype(data_type: int) -> np.dtype[np.generic]:
    """NumPy dtype of an ONNX element type (from ml_dtypes for bfloat16 or smaller). Raises ModelError if unknown."""
    if data_type not in _TYPES:
        raise ModelError(f"the model has a value of unknown element type {data_type}; onnx may be too old for it")
    return np.dtype(onnx.helper.tensor_dtype_to_np_dtype(data_type))


def is_float(dtype: np.dtype[Any]) -> bool:
    """Whether a dtype is floating point of 16 bits or more, bfloat16 (which NumPy itself lacks) included."""
    return dtype.kind == "f" or dtype.name == "bfloat16"


def unit_in_last_place(dtype: np.dtype[Any]) -> float:
    """The distance from 1 to the next larger number of a floating-point dtype; 0 for integers and booleans."""
    if dtype.kind in "iub":
        return 0.0
    return float(np.finfo(dtype).eps) if dtype.kind == "f" else 2.0**-7  # bfloat16 has 8 bits of mantissa


def value_bytes(tensor: onnx.TensorProto) -> bytes:
    """The values of a tensor whose data is in the TensorProto, as little-endian bytes."""
    if tensor.data_type == onnx.TensorProto.STRING:
        return b"\0".join(tensor.string_data)
    if tensor.HasField("raw_data"):
        return tensor.raw_data
    return numpy_helper.to_array(tensor).tobytes()


def check_tensor(tensor: onnx.TensorProto, what: str, tensor_data: MappedData | None = None) -> None:
    """Raise ModelError unless a tensor has a known type, a possible shape, and as much data as its shape requires.

    Args:
        tensor: the tensor to check.
        what: how the message names it.
        tensor_data: its data, if that is not in the TensorProto.
    """
    if tensor.data_type not in _TYPES:
        raise ModelError(f"{what} has the unknown element type {tensor.data_type}; onnx may be too old for it")
    if len(tensor.dims) > MOST_AXES:
        raise ModelError(f"{what} has {len(tensor.dims)} axes, of which at most {MOST_AXES} are supported")
    if any(size < 0 for size in tensor.dims):
        raise ModelError(f"{what} has the impossible shape {list(tensor.dims)}")
    _check_fields(tensor, what, None if tensor_data is None else tensor_data.field)
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        return
    if tensor_data is not None or tensor.HasField("raw_data"):
        held, needed = len(tensor.raw_data) if tensor_data is None else tensor_data.length, tensor_size(tensor)
    elif tensor.data_type in PACKED:
        held, needed = len(tensor.int32_data), _packed_numbers(tensor)
    else:
        held = sum(len(getattr(tensor, name)) for name in _TYPED)
        needed = math.prod(tensor.dims) * (2 if tensor.data_type in _COMPLEX else 1)
    if held != needed:
        raise ModelError(f"{what} of shape {list(tensor.dims)} holds {held} bytes or numbers of data, not {needed}")


def _packed_numbers(tensor: onnx.TensorProto) -> int:
    """How many numbers of `int32_data` hold the values: one for each byte, or for each value of 6 bits."""
    return math.prod(tensor.dims) if PACKED[tensor.data_type] == 6 else tensor_size(tensor)


def _check_fields(tensor: onnx.TensorProto, what: str, bulky: int | None) -> None:
    """Raise ModelError if a tensor has data in several fields, or in one that is not that of its element type.

    Of several fields each runtime reads the one that it prefers, so they need not see the same numbers.
    """
    numbers = tensor.DESCRIPTOR.fields_by_name
    held = {name for name in _TYPED if len(getattr(tensor, name)) or numbers[name].number == bulky}
    outside = tensor.data_location == onnx.TensorProto.EXTERNAL
    raw = numbers["raw_data"].number == bulky or tensor.HasField("raw_data")
    if raw and (bulky is not None or not (held or outside) or tensor.raw_data):  # it may be there and empty
        held.add("raw_data")
    if len(held) + outside > 1:
        places = ", ".join([*sorted(held), *(["an external file"] if outside else [])])
        raise ModelError(f"{what} has data in several places ({places}); keep one of them and save the model again")
    typed = onnx.helper.tensor_dtype_to_field(tensor.data_type)
    if not held <= {typed, "raw_data"}:
        raise ModelError(f"{what} has its data in {held.pop()}, which its element type does not use; save it again")


def tensor_size(tensor: onnx.TensorProto) -> int:
    """Size in bytes of a tensor's values as raw data."""
    bits = PACKED.get(tensor.data_type, 8 * tensor_dtype(tensor.data_type).itemsize)
    return -(-math.prod(tensor.dims) * bits // 8)
