"""What each level of freedom would give: filters with a scale of their own, and what the graph would pay for it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from onnxnorm.model.files import Model
from onnxnorm.model.graph import Graph
from onnxnorm.model.tensors import FLOATS
from onnxnorm.rewriting.opened import Subject, subject_of
from onnxnorm.scaling import Trace
from onnxnorm.scaling.filters import FilterKind
from onnxnorm.scaling.freedom import count_exact
from onnxnorm.scaling.levels import LEVELS, Level
from onnxnorm.scaling.plan import LevelPlan, make_plan
from onnxnorm.scaling.walk import Outputs

__all__ = ["level_plans", "touched_share"]


def level_plans(
    graph: Graph, model: Model, shapes: Mapping[str, tuple[int, ...]], kind: FilterKind, outputs: Outputs
) -> dict[Level, LevelPlan]:
    """What each level would give, by its name; arguments as those of `subject_of`."""
    return {level: _planned(graph, subject_of(graph, model, shapes, kind, outputs, level)) for level in LEVELS}


def touched_share(graph: Graph, subject: Subject) -> float:
    """The elements that new nodes touch for one sample, as a share of all elements that the graph computes."""
    written = [name for node in graph.nodes for name in node.outputs if graph.types.get(name) in FLOATS]
    total = sum(int(np.prod(graph.shapes[name], dtype=np.int64)) for name in written if name in graph.shapes)
    touched = sum(opening.elements for opening in subject.insertion.of.values())
    return touched / total if total else 0.0


def _planned(graph: Graph, subject: Subject) -> LevelPlan:
    plan = make_plan(subject.trace, subject.layers)
    return LevelPlan(
        free=plan.free,
        tied=plan.tied,
        pinned=plan.pinned,
        exact=count_exact(subject.trace, subject.layers),
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
