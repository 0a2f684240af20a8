"""What a rewrite works on: the model as it is, or, at the level `nodes`, opened where that is needed.

Openings that no scale needs in the end are left out again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from onnxnorm.model.files import Model
from onnxnorm.model.graph import Graph
from onnxnorm.rewriting.insertion import NOTHING, Insertion, inserted
from onnxnorm.rewriting.opened_graph import opened_graph
from onnxnorm.scaling import Choice, Layer, Trace, choose_openings, find_layers, trace
from onnxnorm.scaling.filters import FilterKind, slots_at
from onnxnorm.scaling.freedom import count_exact
from onnxnorm.scaling.layerwise import layers_without_own, one_scale_per_layer
from onnxnorm.scaling.levels import Level
from onnxnorm.scaling.openings import Opening
from onnxnorm.scaling.walk import Outputs

__all__ = ["Per", "Subject", "found_again", "needed", "opened", "subject_of", "subjects_of"]

Shapes = Mapping[str, tuple[int, ...]]
Per = Literal["channel", "layer"]
"""What has a scale of its own: every filter, or all filters of a layer together."""


@dataclass(frozen=True)
class Subject:
    """A model to be rewritten, and a walk over it.

    Attributes:
        model: the model, opened if that is allowed.
        trace: a walk over it.
        layers: its layers of filters; their sites are called as in the original.
        insertion: what was added to it.
        per: what has a scale of its own.
    """

    model: Model = field(repr=False)
    trace: Trace = field(repr=False)
    layers: tuple[Layer, ...] = field(repr=False)
    insertion: Insertion = NOTHING
    per: Per = "channel"

    @cached_property
    def exact(self) -> int:
        """The number of filters that have a scale of their own, or that are in a layer which has one."""
        if self.per == "channel":
            return count_exact(self.trace, self.layers)
        lacking = layers_without_own(self.trace, self.layers)
        return sum(layer.channels for layer in self.layers) - sum(layer.channels for layer in lacking)

    def one_scale_per(self, per: Per) -> Subject:
        """The same with one scale for each filter, as it is, or for each layer."""
        if per == "channel":
            return self
        return replace(self, trace=one_scale_per_layer(self.trace, self.layers), per=per)


def subject_of(
    graph: Graph,
    model: Model,
    shapes: Shapes,
    kind: FilterKind,
    outputs: Outputs,
    level: Level,
    per: Per = "channel",
) -> Subject:
    """The subject of a rewrite at a level of freedom.

    Args:
        graph: the graph of the model.
        model: the model.
        shapes: input shapes of one sample, by name.
        kind: which layers have filters.
        outputs: whether graph outputs are kept.
        level: how much of the graph may change.
        per: what has a scale of its own.
    """
    traced = trace(graph, outputs, level)
    layers = find_layers(traced, kind)
    if level != "nodes":
        return Subject(model, traced, layers).one_scale_per(per)
    return _with_nodes(graph, model, shapes, layers, outputs, per)


def subjects_of(
    graph: Graph, model: Model, shapes: Shapes, kind: FilterKind, outputs: Outputs, per: Per = "channel"
) -> dict[Level, Subject]:
    """The subject at each level, with what levels have in common done once; arguments as those of `subject_of`."""
    constants = subject_of(graph, model, shapes, kind, outputs, "constants", per)
    differs = constants.trace.wants_attributes
    attributes = subject_of(graph, model, shapes, kind, outputs, "attributes", per) if differs else constants
    nodes = _with_nodes(graph, model, shapes, attributes.layers, outputs, per)
    return {"constants": constants, "attributes": attributes, "nodes": nodes}


def _with_nodes(
    graph: Graph, model: Model, shapes: Shapes, layers: Sequence[Layer], outputs: Outputs, per: Per
) -> Subject:
    if per == "layer":  # most layers need no opening, for their filters may share a scale
        whole = opened(graph, model, shapes, layers, (), outputs).one_scale_per(per)
        openings = choose_openings(graph, layers_without_own(whole.trace, whole.layers), outputs)
        subject = opened(graph, model, shapes, layers, openings, outputs).one_scale_per(per)
        if not layers_without_own(subject.trace, subject.layers):
            return subject
    return _opened_where_needed(graph, model, shapes, layers, outputs).one_scale_per(per)


def _opened_where_needed(
    graph: Graph, model: Model, shapes: Shapes, layers: Sequence[Layer], outputs: Outputs
) -> Subject:
    choice = Choice(graph, layers, outputs)
    openings = choice.choose()
    subject = opened(graph, model, shapes, layers, openings, outputs)
    if subject.exact == sum(layer.channels for layer in layers):
        return subject
    others = choice.choose(thorough=True)
    if set(others) == set(openings):
        return subject
    other = opened(graph, model, shapes, layers, others, outputs)
    return max(subject, other, key=lambda one: one.exact)


def opened(
    graph: Graph,
    model: Model,
    shapes: Shapes,
    layers: Sequence[Layer],
    openings: Sequence[Opening],
    outputs: Outputs,
) -> Subject:
    """The model with these places opened."""
    changed, insertion = inserted(model, graph, openings)
    graph = graph if changed is model else opened_graph(graph, changed, insertion, shapes)
    traced = trace(graph, outputs, "nodes")
    return Subject(changed, traced, tuple(found_again(traced, layer, insertion) for layer in layers), insertion)


def needed(subject: Subject, of_slot: NDArray[np.float64]) -> list[Opening]:
    """The openings whose constants have to differ from 1, or from one number for all channels."""
    used: dict[Opening, None] = {}
    for edit in subject.trace.edits:
        opening = subject.insertion.of.get(edit.constant.name)
        if opening is None:
            continue
        factor = np.asarray(of_slot[edit.times] if edit.times is not None else 1.0)
        factor = factor / (of_slot[edit.over] if edit.over is not None else 1.0)
        same = factor.flat[0] if opening.place == "constant" else 1.0
        if (factor != same).any():
            used[opening] = None
    return list(used)


def found_again(traced: Trace, layer: Layer, insertion: Insertion) -> Layer:
    """A layer of the original with its slots in a walk over the opened model; its site is called as in the original."""
    site = replace(layer.site, value=insertion.renamed.get(layer.site.value, layer.site.value))
    slots = slots_at(traced.ids, traced.graph, site, layer.channels)
    return replace(layer, slots=np.zeros(layer.channels, np.int64) if slots is None else slots)
