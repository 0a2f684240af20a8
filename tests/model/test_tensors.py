"""Tensors have as much data as their shape asks for, whatever their element type."""

from __future__ import annotations

import math

import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxnorm.errors import ModelError
from onnxnorm.model.tensors import PACKED, check_tensor, value_bytes


@pytest.mark.parametrize("kind", PACKED, ids=[TensorProto.DataType.Name(kind) for kind in PACKED])
@pytest.mark.parametrize(
    ("dims", "more"),
    [(dims, more) for dims in ([], [1], [3], [2, 4], [5]) for more in (-1, 0, 1)] + [([0], 0), ([0], 1)],
    ids=str,
)
def test_small_numbers_that_are_not_raw(kind: int, dims: list[int], more: int) -> None:
    """Numbers smaller than a byte share the numbers that are stored; onnx itself reads too few, or fails."""
    tensor = helper.make_tensor("w", kind, dims, [1] * math.prod(dims))
    held = tensor.int32_data[: len(tensor.int32_data) + min(more, 0)]
    del tensor.int32_data[:]
    tensor.int32_data.extend([*held, *[0] * max(more, 0)])
    if more:
        with pytest.raises(ModelError, match=rf"the value of shape .* holds {len(tensor.int32_data)} bytes or numbers"):
            check_tensor(tensor, "the value")
    else:
        check_tensor(tensor, "the value")
        assert value_bytes(tensor) == numpy_helper.to_array(tensor).tobytes()
