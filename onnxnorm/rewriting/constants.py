"""Putting scales into constants: the same ModelProto, with other values in some constants.

Everything is computed in float64 and rounded once to the constant's type. Bulky constants are scaled while they are
written, a few rows at a time. A constant whose readers need different values keeps its name for the first of them and
is cloned for the others; nothing else about the graph changes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from onnxnorm.errors import ModelError
from onnxnorm.model.constants import Constant
from onnxnorm.model.files import CHUNK, Model, Stored
from onnxnorm.model.wire import RAW_DATA, Bulk
from onnxnorm.scaling import Edit

__all__ = ["Clone", "apply_edits"]

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
class Factor:
    """`new = old * times / over`; float64 arrays that broadcast against the constant."""

    times: Floats
    over: Floats

    @property
    def changes(self) -> bool:
        """Whether anything is multiplied by something else than 1."""
        return (
            bool((self.times != self.over).any())
            if self.times.shape == self.over.shape
            else bool((self.times != 1).any() or (self.over != 1).any())
        )

    def __eq__(self, other: object) -> bool:
        """Whether both multiply by the same numbers, elementwise."""
        return (
            isinstance(other, Factor)
            and bool(np.all(self.times == other.times))
            and bool(np.all(self.over == other.over))
        )

    __hash__ = None  # type: ignore[assignment]

    def apply(self, values: NDArray[np.generic], name: str) -> NDArray[np.generic]:
        """Scaled values in their own dtype. Raises ModelError if they leave its range."""
        with np.errstate(over="ignore", invalid="ignore"):
            scaled = (values.astype(np.float64) * self.times / self.over).astype(values.dtype)
        if not np.isfinite(scaled).all() and np.isfinite(values).all():
            raise ModelError(
                f"constant {name!r} would overflow {values.dtype}; choose a smaller --target, or rewrite the "
                "float32 model"
            )
        return scaled

    def rows(self, start: int, stop: int) -> Factor:
        """The part for rows `[start, stop)` of the constant's first axis."""
        return Factor(*(part[start:stop] if part.shape[0] > 1 else part for part in (self.times, self.over)))


@dataclass(frozen=True)
class Scaled:
    """Bulky data that is scaled as it is written."""

    stored: Stored
    constant: Constant
    factor: Factor = field(repr=False)
    field: int = RAW_DATA

    @property
    def length(self) -> int:
        """Size in bytes."""
        return self.stored.length

    def chunks(self) -> Iterator[memoryview]:
        """The scaled bytes, a few rows at a time."""
        values = np.frombuffer(self.stored.buffer, self.constant.dtype).reshape(self.constant.shape)
        row = max(1, values.nbytes // max(1, len(values)))
        step = max(1, CHUNK // row)
        for start in range(0, len(values), step):
            part = self.factor.rows(start, start + step).apply(values[start : start + step], self.constant.name)
            yield np.ascontiguousarray(part).data.cast("B")


def apply_edits(
    model: Model, edits: Sequence[Edit], of_slot: Floats
) -> tuple[Model, tuple[str, ...], tuple[Clone, ...]]:
    """A model with its constants scaled, the names of those that changed, and the clones that were needed.

    `of_slot` has shape `(slots,)`.
    """
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    bulks: dict[int, Bulk] = dict(model.bulks)
    changed: list[str] = []
    clones: list[Clone] = []
    by_name: dict[str, list[Edit]] = {}
    for edit in edits:
        by_name.setdefault(edit.constant.name, []).append(edit)
    for name, same in by_name.items():
        (first, _), *others = _variants(same, of_slot)
        if first.changes:
            _put(proto, bulks, model, same[0].constant, first)
            changed.append(name)
        for factor, readers in others:
            clone = _add_clone(proto, bulks, model, same[0].constant, factor)
            for edit in readers:
                node = proto.graph.node[edit.reader.node]
                node.input[edit.reader.input] = clone
                clones.append(Clone(name, clone, node.name or node.output[0]))
    return Model(proto, bulks, model.path), tuple(changed), tuple(clones)


def _variants(edits: list[Edit], of_slot: Floats) -> list[tuple[Factor, list[Edit]]]:
    """The different factors that the readers of one constant need, each with its readers."""
    variants: list[tuple[Factor, list[Edit]]] = []
    for edit in edits:
        factor = _factor(edit, of_slot)
        for known, readers in variants:
            if _agree(known, factor, edit.constant):
                readers.append(edit)
                break
        else:
            variants.append((factor, [edit]))
    return variants


def _agree(a: Factor, b: Factor, constant: Constant) -> bool:
    if a == b:
        return True
    if constant.size > _SMALL:
        return False
    values = constant.values()
    return a.apply(values, constant.name).tobytes() == b.apply(values, constant.name).tobytes()


def _factor(edit: Edit, of_slot: Floats) -> Factor:
    rank = len(edit.constant.shape)

    def scales(ids: NDArray[np.int64] | None) -> Floats:
        found = np.ones(1) if ids is None else of_slot[ids]
        return (
            found.reshape((1,) * (rank - found.ndim) + found.shape)
            if rank >= found.ndim
            else found.reshape((1,) * rank)
        )

    return Factor(scales(edit.times), scales(edit.over))


def _put(proto: onnx.ModelProto, bulks: dict[int, Bulk], model: Model, constant: Constant, factor: Factor) -> None:
    """Scale a constant where it lives."""
    if constant.home == "initializer":
        stored = model.bulks.get(constant.index)
        if isinstance(stored, Stored):
            bulks[constant.index] = Scaled(stored, constant, factor, stored.field)
            return
        tensor = proto.graph.initializer[constant.index]
    else:
        tensor = proto.graph.node[constant.index].attribute[0].t
    _store(tensor, factor.apply(constant.values(), constant.name))


def _add_clone(proto: onnx.ModelProto, bulks: dict[int, Bulk], model: Model, constant: Constant, factor: Factor) -> str:
    """Append a scaled copy of a constant as a new initializer; returns its name."""
    taken = {tensor.name for tensor in proto.graph.initializer} | {v.name for v in proto.graph.input}
    taken |= {name for node in proto.graph.node for name in (*node.input, *node.output)}
    name = next(n for n in (f"{constant.name}_onnxnorm{k}" for k in range(1, len(taken) + 2)) if n not in taken)
    data_type = onnx.helper.np_dtype_to_tensor_dtype(constant.dtype)
    tensor = proto.graph.initializer.add(name=name, data_type=data_type, dims=constant.shape)
    stored = model.bulks.get(constant.index) if constant.home == "initializer" else None
    if isinstance(stored, Stored):
        bulks[len(proto.graph.initializer) - 1] = Scaled(stored, constant, factor)
    else:
        tensor.raw_data = numpy_helper.from_array(factor.apply(constant.values(), constant.name)).raw_data
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
