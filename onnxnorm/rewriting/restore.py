"""Undoing a rewrite with the record in the rewritten model; nothing else is needed.

Every constant is multiplied by the inverse of its factor, readers of clones read the original constants again, and
clones and provenance are removed. If a model was rewritten several times, all rewrites are undone. After power-of-two
scales the result is the original bit for bit, which the digest that the rewrite recorded proves. Otherwise each number
was rounded twice, and its relative error is at most `eps`, twice half a unit in the last place of its type.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
from numpy.typing import NDArray

from onnxnorm.display import counted
from onnxnorm.errors import ModelError
from onnxnorm.model.constants import Constant, stored_constants
from onnxnorm.model.files import Model
from onnxnorm.model.protobuf import TensorData
from onnxnorm.model.tensors import unit_in_last_place
from onnxnorm.rewriting.attributes import Attribute, attribute_constant, set_number
from onnxnorm.rewriting.constants import put, rows_of
from onnxnorm.rewriting.factors import Factor
from onnxnorm.rewriting.insertion import removed
from onnxnorm.rewriting.record import check_clones, read_entries, read_record, rewrites, write_entries

__all__ = ["Restored", "restore_model", "without_clones"]


@dataclass(frozen=True)
class Restored:
    """A restored model, and how well it is known to be the original.

    Attributes:
        model: the restored model.
        rewrites: the provenance of each undone rewrite, keys without prefix, the last rewrite first.
        exact: whether all of them used power-of-two scales.
        same: whether the digest is the one that the first rewrite recorded, functions inlined if it inlined them.
        digest: SHA-256 digest of the restored model, in hexadecimal.
        bound: largest possible relative error of the changed constants; 0 if `exact`.
        changed: names of the constants that were scaled back.
        lossy: those of them in which the rewrite may have lost a number that became too small for its type: it is
            subnormal now, or a 0 that may have been a normal number. Empty if `exact`. What several rewrites did is
            judged by their product.
        nodes_removed: number of added nodes that were taken out again.
        inlined: whether the original had functions of its own, which the first rewrite inlined. They stay so.
    """

    model: Model = field(repr=False)
    rewrites: tuple[Mapping[str, str], ...] = field(repr=False)
    exact: bool
    same: bool
    digest: str
    bound: float
    changed: tuple[str, ...]
    nodes_removed: int = 0
    inlined: bool = False
    lossy: tuple[str, ...] = ()

    def __str__(self) -> str:
        nodes = f"{counted(self.nodes_removed, 'added node')} taken out, " if self.nodes_removed else ""
        undone = f"{nodes}{counted(len(self.rewrites), 'rewrite')} undone"
        what = f"{counted(len(self.changed), 'constant')} scaled back, {undone}"
        but = ", but for its functions, which stay inlined" if self.inlined else ""
        if self.same:
            return f"{what}: the original bit for bit{but} (digest {self.digest[:12]})"
        bound = f"every number is within {self.bound:.1e} of what it was, relatively"
        return f"{what}: the original to rounding{but}; {bound}"


def restore_model(model: Model, record: Path | None = None) -> Restored:
    """Undo all rewrites of a model.

    Args:
        model: the rewritten model.
        record: path of the sidecar file; None for the one beside the model.

    Raises:
        ModelError: if the model was not rewritten, or its record is missing, damaged, or does not fit the model.
    """
    levels = list(rewrites(read_entries(model)))
    if not levels:
        raise ModelError("the model has no onnxnorm provenance in its metadata, so there is nothing to undo")
    records = [read_record(entries, model.path, record) for entries in levels]
    clones = {clone: constant for level in records for clone, constant in level.clones.items()}
    check_clones(clones)  # also from one record to the next
    factors: dict[str, Factor] = {}
    for level in records:
        for name, factor in level.factors.items():
            factors[name] = factors[name] * factor if name in factors else factor
    attributes = {name: attribute for level in records for name, attribute in level.attributes.items()}
    added = {name for level in records for name in level.insertion.constants}
    back = {name: factor for name, factor in factors.items() if name not in clones and name not in added}
    exact = all(entries.get("power_of_two") == "true" for entries in levels)
    restored, bound, lossy = _scaled_back(model, back, attributes, exact)
    original = without_clones(restored, clones)
    for level in records:
        if level.insertion.nodes or level.insertion.constants:
            original = removed(original, level.insertion)
    write_entries(original.proto, {})
    digest = original.digest()
    inlined = levels[-1].get("inlined")
    same = digest == (inlined or levels[-1].get("original"))
    changed = tuple(back)
    nodes = sum(len(level.insertion.nodes) for level in records)
    bound = 0.0 if exact else bound
    return Restored(original, tuple(levels), exact, same, digest, bound, changed, nodes, inlined is not None, lossy)


def _scaled_back(
    model: Model, factors: Mapping[str, Factor], attributes: Mapping[str, Attribute], exact: bool
) -> tuple[Model, float, tuple[str, ...]]:
    """The model with constants and attributes divided by these factors, the bound on their error, and `lossy`."""
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    tensor_data: dict[int, TensorData] = dict(model.tensor_data)
    constants = stored_constants(model)
    bound, lossy = 0.0, []
    for name, factor in factors.items():
        attribute = attributes.get(name)
        constant = attribute_constant(proto, attribute) if attribute else constants.get(name)
        if constant is None or not _fits(constant, factor):
            raise ModelError(f"constant {name!r} of the record is not in the model, or has another shape there")
        if not exact and any(
            _underflowed(rows, factor.rows(at, at + len(rows))) for at, rows in rows_of(model, constant)
        ):
            lossy.append(name)
        put(proto, tensor_data, model, constant, factor.inverse)
        bound = max(bound, unit_in_last_place(constant.dtype))
        if attribute and attribute.absent:
            set_number(proto.graph.node[constant.index], attribute.name, None)
    return Model(proto, tensor_data, model.path), bound, tuple(lossy)


def _underflowed(values: NDArray[np.generic], factor: Factor) -> bool:
    """Whether a number was subnormal, or a normal one can have become 0, when it was multiplied by a factor below 1."""
    scale = factor.times / factor.over
    if not (scale < 1).any():
        return False
    limits = ml_dtypes.finfo(values.dtype)  # type: ignore[no-untyped-call]
    low = np.abs(values) < limits.smallest_normal
    if not low.any():
        return False
    vanishing = float(limits.smallest_normal) * scale <= float(limits.smallest_subnormal) / 2
    return bool((low & (scale < 1) & ((values != 0) | vanishing)).any())


def _fits(constant: Constant, factor: Factor) -> bool:
    try:
        shape = np.broadcast_shapes(constant.shape, factor.times.shape, factor.over.shape)
    except ValueError:
        return False
    return shape == constant.shape or (constant.size == 1 and math.prod(shape) == 1)


def without_clones(model: Model, clones: Mapping[str, str]) -> Model:
    """A copy of the model without clones, in which their readers read the original constants again.

    Args:
        model: the rewritten model.
        clones: the constant that each clone is a copy of, by the clone's name; `check_clones` accepts it.
    """
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    for node in proto.graph.node:
        for position, name in enumerate(node.input):
            while name in clones:
                name = clones[name]  # noqa: PLW2901 - a clone of a clone
            node.input[position] = name
    kept = [index for index, tensor in enumerate(proto.graph.initializer) if tensor.name not in clones]
    tensor_data = {new: model.tensor_data[old] for new, old in enumerate(kept) if old in model.tensor_data}
    if clones:
        tensors = [onnx.TensorProto.FromString(proto.graph.initializer[index].SerializeToString()) for index in kept]
        inputs = [value for value in proto.graph.input if value.name not in clones]
        del proto.graph.initializer[:]
        proto.graph.initializer.extend(tensors)
        del proto.graph.input[:]
        proto.graph.input.extend(inputs)
    return Model(proto, tensor_data, model.path)
