"""Reading back, from the record in a rewritten model, the scale of every filter.

The record names constants, not slots. Where a constant was multiplied by `times / over`, a walk over the original says
which slots these scales belong to (`Edit`), and all slots of their groups have them too. A constant that is not in the
record kept its values, so the scales in `times` and `over` are equal there. Scales of products follow from those of
their factors. What nothing tells is 1.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import scipy
from numpy.typing import NDArray

from onnxnorm.errors import ModelError
from onnxnorm.model.files import Model
from onnxnorm.model.shapes import read_graph
from onnxnorm.rewriting.additions import Additions, additions
from onnxnorm.rewriting.attributes import Attribute
from onnxnorm.rewriting.factors import Factor
from onnxnorm.rewriting.insertion import NOTHING, Insertion
from onnxnorm.rewriting.opened import found_again
from onnxnorm.rewriting.record import Record, read_entries, read_record
from onnxnorm.rewriting.rewrite import clips_with
from onnxnorm.scaling import Edit, Groups, Ids, Layer, Trace, find_layers, trace
from onnxnorm.scaling.filters import FilterKind
from onnxnorm.scaling.levels import LEVELS, Level
from onnxnorm.scaling.walk import Outputs

__all__ = ["ReadBack", "read_back"]

Floats = NDArray[np.float64]
_CLOSE = 1e-9  # relative difference from 1 at which a scale counts as 1

# How graph outputs were treated, by what the record says. Old records do not say it, so both ways are tried.
_OUTPUTS: dict[str | None, tuple[Outputs, ...]] = {"true": ("keep",), "false": ("scale",), None: ("keep", "scale")}


@dataclass(frozen=True)
class ReadBack:
    """What a rewrite did to a model.

    Attributes:
        trace: a walk over the original, or, where nodes were added, over the rewritten model.
        of_slot: the scale of every slot of that walk, shape `(slots,)`.
        entries: the provenance of the rewritten model, keys without prefix.
        clones: the constant that each clone is a copy of, by the clone's name.
        changed: names of the constants that changed.
        bounds: number of Clips whose bounds changed.
        before: a walk over the original.
        insertion: the nodes and constants that were added.
        attributes: the attributes that changed.
    """

    trace: Trace = field(repr=False)
    of_slot: Floats = field(repr=False)
    entries: Mapping[str, str]
    clones: Mapping[str, str]
    changed: tuple[str, ...]
    bounds: int
    before: Trace = field(repr=False)
    insertion: Insertion = NOTHING
    attributes: tuple[Attribute, ...] = ()

    @property
    def additions(self) -> Additions:
        """What changed beside the values of constants."""
        return additions(self.trace.graph, self.insertion, self.attributes)

    def layers(self, kind: FilterKind) -> tuple[Layer, ...]:
        """The layers of filters, which are measured where they are in the original."""
        layers = find_layers(self.before, kind)
        if self.before is self.trace:
            return layers
        return tuple(found_again(self.trace, layer, self.insertion) for layer in layers)


def read_back(original: Model, rewritten: Model, shapes: Mapping[str, tuple[int, ...]]) -> ReadBack:
    """Read the scales of a rewrite from its record.

    Args:
        original: the model before the rewrite.
        rewritten: the model after it.
        shapes: input shapes of one sample, by name.

    Raises:
        ModelError: if `rewritten` is not a rewrite of `original`, or its record is missing or damaged.
    """
    entries = read_entries(rewritten)
    if not entries:
        raise ModelError("the rewritten model says nothing about a rewrite; give one that onnxnorm rewrite wrote")
    digest = original.digest()
    if entries.get("original") != digest:
        raise ModelError(
            f"the rewritten model was made from another one (digest {entries.get('original', '?')[:12]}, this one "
            f"{digest[:12]}); give a model and its own rewritten version"
        )
    record = read_record(entries, rewritten.path)
    constant = entries.get("inputs_as_constants") == "true"
    original, rewritten = (replace(model, inputs_as_constants=constant) for model in (original, rewritten))
    level: Level = next((level for level in LEVELS if level == entries.get("level")), "constants")
    graph = read_graph(original, shapes)
    opened = read_graph(rewritten, shapes) if level == "nodes" else graph
    for outputs in _OUTPUTS[entries.get("keep_outputs")]:
        traced = trace(opened, outputs, level)
        scales = _of_group(traced, rewritten, record)
        if np.allclose(scales[traced.groups.pinned >= 0], 1, rtol=_CLOSE):
            changed = tuple(name for name in record.factors if name not in record.clones)
            bounds = clips_with(rewritten, record.factors)
            before = traced if opened is graph else trace(graph, outputs, level)
            of_slot = scales[traced.groups.of]
            attributes = tuple(record.attributes.values())
            return ReadBack(
                traced, of_slot, entries, record.clones, changed, bounds, before, record.insertion, attributes
            )
    raise ModelError("the record of the scales does not fit the original; rewrite that again")


def _of_group(traced: Trace, rewritten: Model, record: Record) -> Floats:
    """The scale of every group, `(groups,)`."""
    of = traced.groups.of
    scales = np.full(traced.groups.count, np.nan)
    scales[of[0]] = 1.0
    readers = Counter(edit.constant.name for edit in traced.edits)
    kept: list[tuple[Ids, Ids]] = []
    # Readers whose factors differ only where the constant is 0 share a clone. Constants with several readers come
    # later, and bounds last, which may have stayed at the largest number of their type.
    for edit in sorted(traced.edits, key=lambda edit: (edit.bounds, readers[edit.constant.name] > 1)):
        factor = record.factors.get(_read_constant(edit, rewritten))
        if factor is not None:
            _learn(scales, of, edit, factor)
        elif edit.times is not None and edit.over is not None and readers[edit.constant.name] == 1:
            times, over = np.broadcast_arrays(of[edit.times], of[edit.over])
            kept.append((times.reshape(-1), over.reshape(-1)))
    _hand_on(scales, kept)
    return _completed(traced.groups, scales)


def _completed(groups: Groups, scales: Floats) -> Floats:
    """The scales of all groups, from those that are known; unknowns that nothing tells are 0 in logarithms."""
    logs = np.log(scales)
    unknowns = groups.unknown(logs)
    while True:  # a group of which all unknowns but one are known tells that one
        rows = groups.basis[np.flatnonzero(~np.isnan(logs))]
        open_terms = scipy.sparse.csr_array(
            (np.isnan(unknowns)[rows.indices], rows.indices, rows.indptr), shape=rows.shape
        )
        telling = np.flatnonzero(open_terms.sum(axis=1) == 1)
        if not telling.size:
            break
        for row in telling.tolist():
            part = slice(rows.indptr[row], rows.indptr[row + 1])
            columns, factors = rows.indices[part], rows.data[part]
            missing = np.isnan(unknowns[columns])
            if missing.sum() == 1:
                rest = logs[~np.isnan(logs)][row] - (factors * unknowns[columns])[~missing].sum()
                unknowns[columns[missing]] = rest / factors[missing]
    return np.where(np.isnan(scales), np.exp(groups.at(np.nan_to_num(unknowns))), scales)


def _read_constant(edit: Edit, rewritten: Model) -> str:
    """Name of what the reader of a constant reads in the rewritten model: the constant itself, or a clone."""
    if edit.constant.home == "attribute":
        return edit.constant.name
    if edit.reader.input < 0:  # a subgraph, which reads what is in the original
        return edit.constant.name
    nodes = rewritten.proto.graph.node
    if edit.reader.node >= len(nodes) or edit.reader.input >= len(nodes[edit.reader.node].input):
        raise ModelError("the rewritten model has other nodes than the original; it was changed after the rewrite")
    return nodes[edit.reader.node].input[edit.reader.input]


def _learn(scales: Floats, of: Ids, edit: Edit, factor: Factor) -> None:
    for ids, values in ((edit.times, factor.times), (edit.over, factor.over)):
        if ids is not None and ids.size == values.size:
            groups = of[ids.reshape(-1)]
            unknown = np.isnan(scales[groups])
            scales[groups[unknown]] = values.reshape(-1)[unknown]


def _hand_on(scales: Floats, equal: list[tuple[Ids, Ids]]) -> None:
    """Fill in groups that have the same scale as others, in place, until nothing changes."""
    changed = True
    while changed:
        changed = False
        for pair in equal:
            for here, there in (pair, pair[::-1]):
                new = np.isnan(scales[here]) & ~np.isnan(scales[there])
                scales[here[new]] = scales[there[new]]
                changed |= bool(new.any())
