"""The graph of an opened model is the one that is read from it."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest

from onnxnorm.model.constants import Constant
from onnxnorm.model.files import Model
from onnxnorm.model.graph import Graph, Resized, input_specs
from onnxnorm.model.shapes import read_graph, sample_shapes
from onnxnorm.rewriting.insertion import inserted
from onnxnorm.rewriting.opened_graph import opened_graph
from onnxnorm.scaling import choose_openings, find_layers, trace
from tests.corpus import CASES


def unread(constant: Constant) -> Constant:
    """A constant without the function that reads it, for comparing."""
    return replace(constant, read=len)  # type: ignore[arg-type]


def without_readers(graph: Graph) -> dict[str, object]:
    """The fields of a graph, for comparing."""
    sizes = [Resized(size.shapes, {k: unread(c) for k, c in size.constants.items()}) for size in graph.resized]
    constants = {name: unread(constant) for name, constant in graph.constants.items()}
    return {f.name: getattr(graph, f.name) for f in fields(graph)} | {"constants": constants, "resized": sizes}


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.runs])
def test_nothing_is_inferred_otherwise(name: str) -> None:
    model = Model.open(CASES[name].build())
    shapes = sample_shapes(input_specs(model), (16, 16))
    graph = read_graph(model, shapes)
    layers = find_layers(trace(graph, level="nodes"), CASES[name].filters)
    changed, insertion = inserted(model, graph, choose_openings(graph, layers))
    known = without_readers(opened_graph(graph, changed, insertion, shapes))
    read = without_readers(read_graph(changed, shapes))
    assert known == read
