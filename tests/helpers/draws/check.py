"""What must hold for a drawn graph: inferred shapes are those of a run, and the law holds at every size that runs."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx

from onnxnorm.model.files import Model
from onnxnorm.model.shapes import read_graph
from onnxnorm.rewriting.constants import apply_edits
from onnxnorm.scaling import trace
from onnxnorm.scaling.walk import Outputs
from tests.helpers.draws.draw import Drawn, Illegal, run
from tests.helpers.scales_check import check_outputs, random_scales

__all__ = ["Report", "check_drawn"]


@dataclass
class Report:
    """What was seen: operators through which scales flow, and how often another size ran."""

    flowing: list[str] = field(default_factory=list)
    sizes: int = 0


def check_drawn(drawn: Drawn, seed: int = 0) -> Report:
    """Check a graph at all its sizes. Raises AssertionError, or what the walk raises."""
    report = Report()
    shapes = {name: array.shape for name, array in drawn.feeds[0].items()}
    check_shapes(drawn, shapes)
    originals = []
    for feed in drawn.feeds:
        try:
            originals.append((feed, run(drawn.proto, feed)))
        except Illegal:
            continue
    report.sizes = len(originals) - 1
    rtol = 1e-4 if drawn.inexact else 0.0
    for outputs in ("keep", "scale"):
        report.flowing += _check_scales(drawn, shapes, originals, outputs, seed, rtol)  # type: ignore[arg-type]
    return report


def check_shapes(drawn: Drawn, shapes: dict[str, tuple[int, ...]]) -> None:
    """Inferred shapes are those of a run."""
    graph = read_graph(Model.open(drawn.proto), shapes)
    proto = onnx.ModelProto()
    proto.CopyFrom(drawn.proto)
    del proto.graph.output[:]
    for name in (name for node in proto.graph.node for name in node.output if name in graph.types):
        proto.graph.output.add(name=name).type.tensor_type.elem_type = graph.types[name]
    for name, array in run(proto, drawn.feeds[0]).items():
        assert graph.shapes.get(name, array.shape) == array.shape, (name, graph.shapes[name], array.shape)


def _check_scales(drawn, shapes, originals, outputs: Outputs, seed: int, rtol: float) -> list[str]:  # type: ignore[no-untyped-def]
    graph = read_graph(Model.open(drawn.proto), shapes)
    found = trace(graph, outputs)
    of_slot = random_scales(found, seed)
    if (of_slot == 1).all():
        return []
    rewritten = apply_edits(Model.open(drawn.proto), found.edits, of_slot).model.proto
    for feed, expected in originals:
        got = run(rewritten, feed)
        check_outputs(found, of_slot, expected, got, rtol=rtol)
    return [
        node.op
        for node in graph.nodes
        if any(name in found.ids and (np.unique(of_slot[found.ids[name]]) != 1).any() for name in node.inputs)
    ]
