"""Multiplying scales into constants. The ModelProto stays the same except for the values of some constants.

Products are computed in float64 and rounded once to the constant's type. Bulky constants are scaled while they are
written, a few rows at a time, and large ones in a thread beside the one that writes. If the readers of a constant need
different values, the constant keeps its name for the first of them and is cloned for the others; nothing else in the
graph changes.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from onnxnorm.model.constants import Constant
from onnxnorm.model.files import Model
from onnxnorm.model.graph import all_names
from onnxnorm.model.mapped_data import CHUNK, MappedData
from onnxnorm.model.protobuf import RAW_DATA, TensorData
from onnxnorm.rewriting.attributes import Attribute, set_number
from onnxnorm.rewriting.factors import Factor, Rounding
from onnxnorm.scaling import Edit
from onnxnorm.scaling.slots import at_rank
from onnxnorm.threads import run_ahead

__all__ = ["Applied", "Clone", "ScaledData", "apply_edits", "put", "rows_of"]

Floats = NDArray[np.float64]

# Up to this many elements, scaled values (and not factors) are compared to see whether readers need the same constant.
_SMALL = 4096
# From this many bytes on, a constant is scaled in a thread of its own.
_LARGE = 4 * CHUNK


@dataclass(frozen=True)
class Clone:
    """A constant that had to be copied because its readers need different values.

    Attributes:
        constant: name of the original constant.
        clone: name of the copy.
        node: name of a node that reads the copy now.
    """

    constant: str
    clone: str
    node: str


@dataclass(frozen=True)
class ScaledData:
    """Bulky data that is scaled while it is written; `rounding`, if there is one, records the error that it makes."""

    source: MappedData | ScaledData
    constant: Constant
    factor: Factor = field(repr=False)
    rounding: Rounding | None = field(repr=False)
    field: int = RAW_DATA

    @property
    def length(self) -> int:
        """Size in bytes."""
        return self.source.length

    def chunks(self) -> Generator[memoryview, None, None]:
        """The scaled bytes, a few rows at a time."""
        return run_ahead(self._chunks(), ahead=1) if self.length >= _LARGE else self._chunks()

    def _chunks(self) -> Generator[memoryview, None, None]:
        for _, part in self.rows(self.constant.dtype, self.constant.shape):
            yield np.ascontiguousarray(part).view(np.uint8).reshape(-1).data

    def rows(self, dtype: np.dtype[np.generic], shape: tuple[int, ...]) -> Iterator[tuple[int, NDArray[np.generic]]]:
        """Blocks of scaled rows (of the first axis), each with the index of its first row."""
        for start, values in self.source.rows(dtype, shape):
            factor = self.factor.rows(start, start + len(values))
            yield start, factor.apply(values, self.constant.name, self.rounding)


@dataclass(frozen=True)
class Applied:
    """A model with scaled constants.

    Attributes:
        model: the model.
        factors: the factor by which each changed constant, and each clone, was multiplied, by its name.
        clones: the clones that were needed.
        attributes: the attributes among what changed, by the name of the factor.
        rounding: the errors that rounding made; those of bulky constants are added when they are written.
    """

    model: Model
    factors: dict[str, Factor] = field(repr=False)
    clones: tuple[Clone, ...]
    attributes: dict[str, Attribute]
    rounding: Rounding = field(repr=False)

    @property
    def changed(self) -> tuple[str, ...]:
        """Names of the constants that changed."""
        copies = {clone.clone for clone in self.clones}
        return tuple(name for name in self.factors if name not in copies)


def apply_edits(model: Model, edits: Sequence[Edit], of_slot: Floats) -> Applied:
    """Scale the constants of a model; the model itself stays as it is.

    Args:
        model: the model.
        edits: how its constants follow the scales.
        of_slot: the scale of every slot, shape `(slots,)`.

    Raises:
        ModelError: if a scaled constant leaves the range of its type.
    """
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    tensor_data: dict[int, TensorData] = dict(model.tensor_data)
    attributes: dict[str, Attribute] = {}
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
        if first.changes and same[0].constant.home == "attribute":
            attributes[name] = Attribute.named(name, proto.graph.node[same[0].constant.index])
        if first.changes:
            put(proto, tensor_data, model, same[0].constant, first, rounding)
            factors[name] = first
    return Applied(Model(proto, tensor_data, model.path), factors, tuple(clones), attributes, rounding)


def rows_of(model: Model, constant: Constant) -> Iterator[tuple[int, NDArray[np.generic]]]:
    """Blocks of rows (of the first axis) of a constant, each with the index of its first row."""
    data = _data_of(model, constant)
    if data is not None:
        yield from data.rows(constant.dtype, constant.shape)
    elif constant.size:
        yield 0, np.atleast_1d(constant.values())


def put(
    proto: onnx.ModelProto,
    tensor_data: dict[int, TensorData],
    model: Model,
    constant: Constant,
    factor: Factor,
    rounding: Rounding | None = None,
) -> None:
    """Scale a constant where it is stored: in `tensor_data` if it is bulky, otherwise in `proto`."""
    if constant.home == "attribute":
        scaled = factor.apply(constant.values(), constant.name, rounding)
        set_number(proto.graph.node[constant.index], constant.name.rpartition(":")[2], float(scaled))
        return
    if constant.home == "initializer":
        data = _data_of(model, constant)
        if data is not None:
            tensor_data[constant.index] = ScaledData(data, constant, factor, rounding, data.field)
            return
        tensor = proto.graph.initializer[constant.index]
    else:
        tensor = proto.graph.node[constant.index].attribute[0].t
    _store(tensor, factor.apply(constant.values(), constant.name, rounding))


def _data_of(model: Model, constant: Constant) -> MappedData | ScaledData | None:
    """The data of a constant if it is bulky, otherwise None."""
    data = model.tensor_data.get(constant.index) if constant.home == "initializer" else None
    assert data is None or isinstance(data, MappedData | ScaledData), constant.name
    return data


def _variants(edits: list[Edit], of_slot: Floats) -> list[tuple[Factor, list[Edit]]]:
    """The different factors that the readers of one constant need, each with the edits of those readers."""
    constant = edits[0].constant
    values = constant.values() if len(edits) > 1 and constant.size <= _SMALL else None
    variants: dict[object, tuple[Factor, list[Edit]]] = {}
    for edit in edits:
        factor = _factor(edit, of_slot)
        key = factor.key() if values is None else factor.apply(values, constant.name).tobytes()
        variants.setdefault(key, (factor, []))[1].append(edit)
    return list(variants.values())


def _factor(edit: Edit, of_slot: Floats) -> Factor:
    """The factor by which an edit multiplies its constant, in the rank of the constant."""
    times, over = (np.ones(1) if ids is None else of_slot[ids] for ids in (edit.times, edit.over))
    rank = len(edit.constant.shape)
    factor = Factor(at_rank(times, rank), at_rank(over, rank))
    return factor.kept_finite(edit.constant.values()) if edit.bounds else factor


class _Names:
    """Makes names that neither a graph nor its subgraphs use."""

    def __init__(self, proto: onnx.ModelProto) -> None:
        self._used = all_names(proto.graph)
        self._counters: dict[str, Iterator[int]] = {}

    def fresh(self, stem: str) -> str:
        """A new name that begins with `stem`."""
        numbers = self._counters.setdefault(stem, count(1))
        name = next(name for name in (f"{stem}_onnxnorm{k}" for k in numbers) if name not in self._used)
        self._used.add(name)
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
    data = _data_of(model, constant)
    if data is not None:
        tensor_data[len(proto.graph.initializer) - 1] = ScaledData(data, constant, factor, rounding)
    else:
        values = factor.apply(constant.values(), constant.name, rounding)
        tensor.raw_data = numpy_helper.from_array(values).raw_data
    if proto.ir_version < 4:  # every initializer has to be listed as an input
        proto.graph.input.append(onnx.helper.make_tensor_value_info(name, data_type, constant.shape))
    return name


def _store(tensor: onnx.TensorProto, values: NDArray[np.generic]) -> None:
    """Replace the values of a tensor, in the field that holds them already."""
    if tensor.float_data:
        tensor.float_data[:] = values.astype(np.float32).reshape(-1).tolist()
    elif tensor.double_data:
        tensor.double_data[:] = values.astype(np.float64).reshape(-1).tolist()
    elif tensor.int32_data:  # the bits of 16-bit numbers
        tensor.int32_data[:] = values.view(np.uint16).reshape(-1).astype(np.int32).tolist()
    else:
        tensor.raw_data = numpy_helper.from_array(values).raw_data
