"""Putting scales into constants: the same ModelProto, with other values in some constants.

Everything is computed in float64 and rounded once to the constant's type. Bulky constants are scaled while they are
written, a few rows at a time. A constant whose readers need different values keeps its name for the first of them and
is cloned for the others; nothing else about the graph changes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from onnxnorm.model.constants import Constant
from onnxnorm.model.files import Model
from onnxnorm.model.graph import all_names
from onnxnorm.model.mapped_data import MappedData
from onnxnorm.model.protobuf import RAW_DATA, TensorData
from onnxnorm.rewriting.factors import Factor, Rounding
from onnxnorm.scaling import Edit
from onnxnorm.scaling.slots import at_rank

__all__ = ["Applied", "Clone", "ScaledData", "apply_edits", "put", "rows_of"]

Floats = NDArray[np.float64]

# Up to this many elements, results are compared to tell whether two readers need the same constant.
_SMALL = 4096


@dataclass(frozen=True)
class Clone:
    """A constant that had to be copied because its readers need different values."""

    constant: str
    clone: str
    node: str


@dataclass(frozen=True)
class ScaledData:
    """Bulky data that is scaled as it is written; `rounding` learns what that costs."""

    source: MappedData | ScaledData
    constant: Constant
    factor: Factor = field(repr=False)
    rounding: Rounding = field(repr=False)
    field: int = RAW_DATA

    @property
    def length(self) -> int:
        """Size in bytes."""
        return self.source.length

    def chunks(self) -> Iterator[memoryview]:
        """The scaled bytes, a few rows at a time."""
        for _, part in self.rows(self.constant.dtype, self.constant.shape):
            yield np.ascontiguousarray(part).view(np.uint8).reshape(-1).data

    def rows(self, dtype: np.dtype[np.generic], shape: tuple[int, ...]) -> Iterator[tuple[int, NDArray[np.generic]]]:
        """The scaled values by rows of the first axis, some at a time, each part with the index of its first row."""
        for start, values in self.source.rows(dtype, shape):
            factor = self.factor.rows(start, start + len(values))
            yield start, factor.apply(values, self.constant.name, self.rounding)


@dataclass(frozen=True)
class Applied:
    """A model with its constants scaled, by which factor each constant (and clone) was, and the clones needed."""

    model: Model
    factors: dict[str, Factor] = field(repr=False)
    clones: tuple[Clone, ...]
    rounding: Rounding = field(repr=False)

    @property
    def changed(self) -> tuple[str, ...]:
        """Names of the constants that changed."""
        copies = {clone.clone for clone in self.clones}
        return tuple(name for name in self.factors if name not in copies)


def apply_edits(model: Model, edits: Sequence[Edit], of_slot: Floats) -> Applied:
    """Scale the constants of a model. `of_slot` has shape `(slots,)`."""
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    tensor_data: dict[int, TensorData] = dict(model.tensor_data)
    rounding = Rounding()
    factors: dict[str, Factor] = {}
    clones: list[Clone] = []
    names = _Names(proto)
    by_name: dict[str, list[Edit]] = {}
    for edit in edits:
        by_name.setdefault(edit.constant.name, []).append(edit)
    for name, same in by_name.items():
        (first, _), *others = _variants(same, of_slot)
        for factor, readers in others:
            clone = _add_clone(names, proto, tensor_data, model, same[0].constant, factor, rounding)
            factors[clone] = factor
            for edit in readers:
                node = proto.graph.node[edit.reader.node]
                node.input[edit.reader.input] = clone
                clones.append(Clone(name, clone, node.name or node.output[0]))
        if first.changes:
            put(proto, tensor_data, model, same[0].constant, first, rounding)
            factors[name] = first
    return Applied(Model(proto, tensor_data, model.path), factors, tuple(clones), rounding)


def rows_of(model: Model, constant: Constant) -> Iterator[tuple[int, NDArray[np.generic]]]:
    """The values of a constant, a few rows at a time, each part with the index of its first row."""
    bulk = _bulk(model, constant)
    if bulk is not None:
        yield from bulk.rows(constant.dtype, constant.shape)
    elif constant.size:
        yield 0, np.atleast_1d(constant.values())


def put(
    proto: onnx.ModelProto,
    tensor_data: dict[int, TensorData],
    model: Model,
    constant: Constant,
    factor: Factor,
    rounding: Rounding,
) -> None:
    """Scale a constant where it lives."""
    if constant.home == "initializer":
        bulk = _bulk(model, constant)
        if bulk is not None:
            tensor_data[constant.index] = ScaledData(bulk, constant, factor, rounding, bulk.field)
            return
        tensor = proto.graph.initializer[constant.index]
    else:
        tensor = proto.graph.node[constant.index].attribute[0].t
    _store(tensor, factor.apply(constant.values(), constant.name, rounding))


def _bulk(model: Model, constant: Constant) -> MappedData | ScaledData | None:
    """The bulky data of a constant, if that is where its values are."""
    bulk = model.tensor_data.get(constant.index) if constant.home == "initializer" else None
    assert bulk is None or isinstance(bulk, MappedData | ScaledData), constant.name
    return bulk


def _variants(edits: list[Edit], of_slot: Floats) -> list[tuple[Factor, list[Edit]]]:
    """The different factors that the readers of one constant need, each with its readers."""
    constant = edits[0].constant
    values = constant.values() if len(edits) > 1 and constant.size <= _SMALL else None
    variants: dict[object, tuple[Factor, list[Edit]]] = {}
    for edit in edits:
        factor = _factor(edit, of_slot)
        key = factor.key() if values is None else factor.apply(values, constant.name).tobytes()
        variants.setdefault(key, (factor, []))[1].append(edit)
    return list(variants.values())


def _factor(edit: Edit, of_slot: Floats) -> Factor:
    """What an edit multiplies its constant by, in the constant's rank."""
    times, over = (np.ones(1) if ids is None else of_slot[ids] for ids in (edit.times, edit.over))
    rank = len(edit.constant.shape)
    return Factor(at_rank(times, rank), at_rank(over, rank))


class _Names:
    """Names that a graph does not use yet, nor its subgraphs."""

    def __init__(self, proto: onnx.ModelProto) -> None:
        self._taken = all_names(proto.graph)
        self._counters: dict[str, Iterator[int]] = {}

    def fresh(self, stem: str) -> str:
        """A new name that begins with `stem`."""
        numbers = self._counters.setdefault(stem, count(1))
        name = next(name for name in (f"{stem}_onnxnorm{k}" for k in numbers) if name not in self._taken)
        self._taken.add(name)
        return name


def _add_clone(
    names: _Names,
    proto: onnx.ModelProto,
    tensor_data: dict[int, TensorData],
    model: Model,
    constant: Constant,
    factor: Factor,
    rounding: Rounding,
) -> str:
    """Append a scaled copy of a constant as a new initializer; returns its name."""
    name = names.fresh(constant.name)
    data_type = onnx.helper.np_dtype_to_tensor_dtype(constant.dtype)
    tensor = proto.graph.initializer.add(name=name, data_type=data_type, dims=constant.shape)
    bulk = _bulk(model, constant)
    if bulk is not None:
        tensor_data[len(proto.graph.initializer) - 1] = ScaledData(bulk, constant, factor, rounding)
    else:
        values = factor.apply(constant.values(), constant.name, rounding)
        tensor.raw_data = numpy_helper.from_array(values).raw_data
    if proto.ir_version < 4:  # every initializer had to be listed as an input
        proto.graph.input.append(onnx.helper.make_tensor_value_info(name, data_type, constant.shape))
    return name


def _store(tensor: onnx.TensorProto, values: NDArray[np.generic]) -> None:
    """Put values into the very field that holds them."""
    if tensor.float_data:
        tensor.float_data[:] = values.astype(np.float32).reshape(-1).tolist()
    elif tensor.double_data:
        tensor.double_data[:] = values.astype(np.float64).reshape(-1).tolist()
    elif tensor.int32_data:  # the bits of 16-bit numbers
        tensor.int32_data[:] = values.view(np.uint16).reshape(-1).astype(np.int32).tolist()
    else:
        tensor.raw_data = numpy_helper.from_array(values).raw_data
