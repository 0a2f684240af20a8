"""What each level of freedom would give: filters with a scale of their own, and what the graph would pay for it."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

import numpy as np
from numpy.typing import NDArray

from onnxnorm.model.graph import Graph
from onnxnorm.model.tensors import FLOATS
from onnxnorm.rewriting.opened import Subject
from onnxnorm.scaling import Trace
from onnxnorm.scaling.levels import Level
from onnxnorm.scaling.plan import LevelPlan, tied_filters

__all__ = ["elements_computed", "level_plans", "touched_share"]


def level_plans(graph: Graph, subjects: Mapping[Level, Subject]) -> dict[Level, LevelPlan]:
    """What each level would give, by its name.

    Args:
        graph: the graph of the model as it is.
        subjects: what a rewrite at each level works on, as `subjects_of` returns it.
    """
    planned: dict[Level, LevelPlan] = {}
    for level, subject in subjects.items():
        same = next((known for known in planned if subjects[known] is subject), None)
        planned[level] = _planned(graph, subject) if same is None else planned[same]
    return planned


def touched_share(graph: Graph, subject: Subject) -> float:
    """The elements that new nodes touch for one sample, as a share of all elements that the graph computes."""
    touched = sum(opening.elements for opening in subject.insertion.of.values())
    total = elements_computed(graph) if touched else 0
    return touched / total if total else 0.0


def elements_computed(graph: Graph, without: Collection[str] = ()) -> int:
    """The elements of all values that a graph computes for one sample, but for nodes of these names."""
    nodes = [node for node in graph.nodes if node.proto.name not in without]
    written = [name for node in nodes for name in node.outputs if graph.types.get(name) in FLOATS]
    return sum(math.prod(graph.shapes[name]) for name in written if name in graph.shapes)


def _planned(graph: Graph, subject: Subject) -> LevelPlan:
    groups, layers = subject.trace.groups, subject.layers
    tied = sum(int(flags.sum()) for flags in tied_filters(subject.trace, layers))
    pinned = sum(int(groups.is_pinned(layer.slots).sum()) for layer in layers)
    return LevelPlan(
        free=sum(layer.channels for layer in layers) - tied - pinned,
        tied=tied,
        pinned=pinned,
        exact=subject.exact,
        attributes_changed=_following(subject.trace),
        nodes_added=len(subject.insertion.nodes),
        elements_touched=touched_share(graph, subject),
    )


def _following(trace: Trace) -> int:
    """How many attributes may follow scales."""
    pinned: NDArray[np.bool_] = trace.groups.pinned >= 0
    return sum(
        edit.constant.home == "attribute" and not pinned[trace.groups.of[edit.slots()]].all() for edit in trace.edits
    )
