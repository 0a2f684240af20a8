"""Where constants live, and which of them a rewrite may change.

A constant is an initializer, the value of a `Constant` node, or computed from other constants by a node (`Cast`,
`Transpose`, `DequantizeLinear`, ...). Only the first two hold bytes that can be edited, and not all of them may be:
`Constant.fixed` gives the reason.

* An initializer that is also a graph input may be replaced by the caller, unless it is known that nobody does. (Before
  IR version 4 every initializer had to be listed as an input. Runtimes treat those as constants, and so does this
  module.)
* One that is also a graph output is visible from outside, and two initializers that share bytes of an external-data
  file cannot be changed independently: these stay, and whoever needs them scaled reads a copy (`Constant.kept`).
* Sparse initializers, and constants that are not floating point of 16 bits or more, are left alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from onnxnorm.errors import ModelError
from onnxnorm.model.boundary import model_errors
from onnxnorm.model.external import entries_of
from onnxnorm.model.files import Model
from onnxnorm.model.mapped_data import MappedData
from onnxnorm.model.tensors import FLOATS, tensor_dtype

__all__ = ["REPLACEABLE", "Constant", "Home", "stored_constants"]

REPLACEABLE = "is also a graph input, which the caller may replace (--inputs-as-constants: nobody does)"
"""Why an initializer is not changed that is a graph input too."""

Home = Literal["initializer", "node", "attribute", "computed"]

_LARGEST_DENSE = 1 << 28  # elements of a sparse initializer, zeros included


@dataclass(frozen=True)
class Constant:
    """A value that is the same for every input.

    Attributes:
        home: where it lives.
        index: the index of that initializer or node in the ModelProto; -1 for a sparse initializer.
        fixed: why it must not be changed, or None if it may be.
        read: returns the values.
        kept: whether it stays as it is, so that only copies of it may be changed.
        by_shape: whether the values depend on the sizes of the inputs, so that they hold for one size only.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]
    home: Home
    index: int
    fixed: str | None = None
    read: Callable[[], NDArray[np.generic]] = field(repr=False, default=lambda: np.empty(0))
    by_shape: bool = False
    kept: bool = False

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    def values(self) -> NDArray[np.generic]:
        """The values, of shape `shape`."""
        if self.size == 1:  # a bound or an epsilon, which every node of a network may read
            return self._single.copy()
        return self._read()

    @cached_property
    def _single(self) -> NDArray[np.generic]:
        return np.asarray(self._read())

    def _read(self) -> NDArray[np.generic]:
        with model_errors(f"constant {self.name!r}"):
            return self.read()

    def nonzero(self) -> NDArray[np.bool_]:
        """Mask of shape `shape`: which elements may differ from zero for inputs of some size."""
        return np.ones(self.shape, np.bool_) if self.by_shape else np.asarray(self.values() != 0)


@model_errors("the model's constants")
def stored_constants(model: Model) -> dict[str, Constant]:
    """The initializers and the values of Constant nodes, by name."""
    return {constant.name: constant for constant in (*_initializers(model), *_constant_nodes(model))}


def _initializers(model: Model) -> Iterator[Constant]:
    graph = model.proto.graph
    replaceable = model.proto.ir_version >= 4 and not model.inputs_as_constants
    inputs = {value.name for value in graph.input} if replaceable else set()
    outputs = {value.name for value in graph.output}
    overlapping = _overlapping(model)
    for index, tensor in enumerate(graph.initializer):
        fixed = None
        if tensor.name in inputs:
            fixed = REPLACEABLE
        elif tensor.data_type not in FLOATS:
            fixed = "is not floating point of 16 bits or more"
        read = partial(model.values, index)
        dtype, kept = tensor_dtype(tensor.data_type), tensor.name in outputs or index in overlapping
        yield Constant(tensor.name, tuple(tensor.dims), dtype, "initializer", index, fixed, read, kept=kept)
    for sparse in graph.sparse_initializer:
        if any(size < 0 for size in sparse.dims) or math.prod(sparse.dims) > _LARGEST_DENSE:
            raise ModelError(f"sparse initializer {sparse.values.name!r} has the impossible shape {list(sparse.dims)}")
        dtype = tensor_dtype(sparse.values.data_type)
        read = partial(_dense, sparse)
        yield Constant(sparse.values.name, tuple(sparse.dims), dtype, "computed", -1, "is sparse", read)


def _constant_nodes(model: Model) -> Iterator[Constant]:
    outputs = {value.name for value in model.proto.graph.output}
    for index, node in enumerate(model.proto.graph.node):
        if node.op_type != "Constant" or node.domain not in {"", "ai.onnx"} or not node.attribute or not node.output:
            continue
        attribute = node.attribute[0]
        name = node.output[0]
        fixed, kept = None, name in outputs
        if attribute.name == "value":
            if attribute.t.data_type not in FLOATS:
                fixed = "is not floating point of 16 bits or more"
            dtype, shape = tensor_dtype(attribute.t.data_type), tuple(attribute.t.dims)
            read = partial(numpy_helper.to_array, attribute.t)
            yield Constant(name, shape, dtype, "node", index, fixed, read, kept=kept)
        elif attribute.name in {"value_float", "value_floats", "value_int", "value_ints"}:
            value = np.asarray(
                onnx.helper.get_attribute_value(attribute), np.float32 if "float" in attribute.name else np.int64
            )
            fixed = "is a Constant node without a tensor"
            yield Constant(name, value.shape, value.dtype, "node", index, fixed, partial(np.copy, value))


def _dense(sparse: onnx.SparseTensorProto) -> NDArray[np.generic]:
    values, indices = numpy_helper.to_array(sparse.values), numpy_helper.to_array(sparse.indices)
    dense = np.zeros(tuple(sparse.dims), values.dtype)
    try:
        if indices.ndim == 1:
            dense.reshape(-1)[indices] = values
        else:
            dense[tuple(indices.T)] = values
    except (IndexError, ValueError) as error:
        raise ModelError(f"sparse initializer {sparse.values.name!r} has indices outside of its shape") from error
    return dense


def _overlapping(model: Model) -> set[int]:
    """Indices of the initializers that share bytes of external data with another initializer."""
    places: list[tuple[str, int, int, int]] = []
    for index, tensor in enumerate(model.proto.graph.initializer):
        tensor_data = model.tensor_data.get(index)
        if tensor.data_location == onnx.TensorProto.EXTERNAL and isinstance(tensor_data, MappedData):
            location = entries_of(tensor)["location"]
            places.append((location, tensor_data.offset, tensor_data.offset + tensor_data.length, index))
    shared: set[int] = set()
    reach: tuple[str, int, int] = ("", 0, -1)
    for location, start, end, index in sorted(places):
        if location == reach[0] and start < reach[1]:
            shared |= {reach[2], index}
        if location != reach[0] or end > reach[1]:
            reach = (location, end, index)
    return shared
