"""What must hold for a drawn graph: inferred shapes are those of a run, and the law holds at every size that runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import onnx
from numpy.typing import NDArray

from onnxnorm.errors import ModelError
from onnxnorm.model.files import Model
from onnxnorm.model.graph import Graph
from onnxnorm.model.shapes import read_graph
from onnxnorm.rewriting.constants import apply_edits
from onnxnorm.rewriting.opened import subject_of
from onnxnorm.runtime import Runtime, Session
from onnxnorm.scaling.levels import Level
from onnxnorm.scaling.walk import Outputs
from tests.helpers.draws.draw import Drawn, IllegalDrawError, run
from tests.helpers.scales_check import check_outputs, random_scales

__all__ = ["Report", "check_drawn"]

RUNTIME = Runtime("cpu", threads=1)

Feeds = Mapping[str, NDArray[Any]]

KINDS: tuple[tuple[Outputs, Level], ...] = (
    ("keep", "constants"),
    ("scale", "constants"),
    ("keep", "attributes"),
    ("keep", "nodes"),
    ("scale", "nodes"),
)


@dataclass
class Report:
    """What was seen: operators through which scales flow, and how many other sizes ran."""

    flowing: set[str] = field(default_factory=set)
    sizes: int = 0


def check_drawn(drawn: Drawn, seed: int = 0) -> Report:
    """Check a graph at all its sizes. Raises AssertionError, or what the walk raises."""
    graph = read_graph(Model.open(drawn.proto), {name: array.shape for name, array in drawn.feeds[0].items()})
    check_shapes(graph, drawn)
    try:
        session = RUNTIME.session(Model.open(drawn.proto), optimize=False)
    except ModelError:
        return Report()
    ran = [(feed, results) for feed in drawn.feeds if (results := run_if_legal(session, feed)) is not None]
    report = Report(sizes=len(ran) - 1)
    for outputs, level in KINDS:
        report.flowing |= check_scaled(graph, drawn, ran, outputs, level, seed)
    return report


def run_if_legal(session: Session, feed: Feeds) -> Feeds | None:
    """The outputs of a model, or None if the runtime does not run it at this size."""
    try:
        return session.run(feed)
    except ModelError:
        return None


def check_shapes(graph: Graph, drawn: Drawn) -> None:
    """Inferred shapes are those of a run, but for numbers of rows that are assumed, since only a run can count them."""
    proto = onnx.ModelProto()
    proto.CopyFrom(drawn.proto)
    del proto.graph.output[:]
    written = [name for node in proto.graph.node for name in node.output]
    for name in (name for name in written if name in graph.types and name not in graph.claimed):
        proto.graph.output.add(name=name).type.tensor_type.elem_type = graph.types[name]
    try:
        values = run(proto, drawn.feeds[0])
    except IllegalDrawError:
        return
    for name, array in values.items():
        assert not array.size or graph.shapes.get(name, array.shape) == array.shape, (
            name,
            graph.shapes[name],
            array.shape,
        )


def check_scaled(
    graph: Graph, drawn: Drawn, ran: Sequence[tuple[Feeds, Feeds]], outputs: Outputs, level: Level, seed: int
) -> set[str]:
    """With random scales, every output is the original's times its scale. Returns through what scales flow."""
    shapes = {name: array.shape for name, array in drawn.feeds[0].items()}
    subject = subject_of(graph, Model.open(drawn.proto), shapes, "all", outputs, level)
    found = subject.trace
    of_slot = random_scales(found, seed)
    if (of_slot == 1).all():
        return set()
    rewritten = apply_edits(subject.model, found.edits, of_slot).model
    session = RUNTIME.session(rewritten, optimize=False)
    for feed, expected in ran:
        check_outputs(found, of_slot, expected, session.run(feed), rtol=1e-4 if drawn.inexact else 0.0)
    scaled = {name for name, ids in found.ids.items() if (of_slot[ids] != 1).any()}
    return {node.op for node in graph.nodes if not scaled.isdisjoint(node.inputs)}
