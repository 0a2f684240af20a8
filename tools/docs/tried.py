"""Tries every operator in small graphs, and tells what becomes of the filters around it at each level of freedom.

A graph is a layer with four filters, the operator with random attributes behind it, and its output, at a random opset.
Its filters have scales of their own, are tied to others, or are pinned; the worst of the three counts. What several
draws of one operator show is put together, so that an operator whose attributes decide appears with all that they do.

Every graph has to run: in ONNX Runtime, or in ONNX's reference implementation if the runtime lacks the operator.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator
from onnx.shape_inference import InferenceError

from onnxnorm.model.files import Model
from onnxnorm.model.shapes import read_graph
from onnxnorm.rewriting.opened import subjects_of
from onnxnorm.scaling.levels import LEVELS, Level
from onnxnorm.scaling.plan import make_plan
from tests.helpers.draws import CATALOG, Draw, IllegalDrawError
from tests.helpers.draws.draw import Array, Step
from tests.helpers.draws.elements import plain
from tools.docs.alone import ALONE, NO_GRAPH

__all__ = ["Tried", "try_operator"]

STATES = ("own", "tied", "pinned")
_OPSETS = (9, 18, 23)
_OPSETS_ALONE = (13, 21, 24, 26)
_SHAPES: tuple[tuple[int, ...], ...] = ((1, 3, 6, 4), (1, 3, 4), (1, 3))
_DRAWS = 3  # at each opset and shape, of an operator of which several are known


@dataclass(frozen=True)
class Tried:
    """What the draws of one operator showed: per level, the states of its filters in the order of `STATES`.

    Attributes:
        states: by level.
        adds_nodes: whether the level `nodes` added some.
        by_reference: whether ONNX's reference implementation ran it, since the runtime lacks it.
    """

    states: Mapping[Level, tuple[str, ...]]
    adds_nodes: bool
    by_reference: bool = False


@dataclass(frozen=True)
class _Drawn:
    """A model that runs, and the shape of its input."""

    model: Model
    shape: tuple[int, ...]
    by_reference: bool


def try_operator(name: str) -> Tried | str:
    """Try an operator; the reason if it cannot be tried."""
    seen: dict[Level, set[str]] = {level: set() for level in LEVELS}
    adds_nodes = by_reference = False
    for drawn in _drawn(name):
        shapes = {"x": drawn.shape}
        by_reference |= drawn.by_reference
        subjects = subjects_of(read_graph(drawn.model, shapes), drawn.model, shapes, "all", "scale")
        for level, subject in subjects.items():
            plan = make_plan(subject.trace, subject.layers)
            seen[level].add("pinned" if plan.pinned else "tied" if plan.tied else "own")
            adds_nodes |= bool(subject.insertion.nodes)
    if not seen["constants"]:
        return NO_GRAPH.get(name, "neither ONNX Runtime nor ONNX's reference implementation runs it")
    states = {level: tuple(state for state in STATES if state in found) for level, found in seen.items()}
    return Tried(states, adds_nodes, by_reference)


def _drawn(name: str) -> Iterator[_Drawn]:
    """Graphs of an operator: its own, else draws of the catalogue, else one in which it reads one value."""
    steps = [step for kind, step in CATALOG.items() if kind.split(" ")[0] == name]
    tries: list[tuple[Step, int, tuple[int, ...], int]] = []
    if name in ALONE:
        tries = [(ALONE[name], opset, shape, 0) for opset in _OPSETS_ALONE for shape in _SHAPES]
    elif steps:
        opsets = [(opset, shape) for opset in _OPSETS for shape in _SHAPES]
        tries = [(steps[seed % len(steps)], *at, seed) for at in opsets for seed in range(_DRAWS)]
    elif onnx.defs.get_schema(name).min_input == 1:
        tries = [(plain(name), 24, _SHAPES[0], 0)]
    found = [drawn for tried in tries if (drawn := _draw(name, *tried)) is not None]
    if not found and name in ALONE:
        newest = onnx.defs.onnx_opset_version()
        found = [drawn for shape in _SHAPES if (drawn := _draw(name, ALONE[name], newest, shape, 0, by_reference=True))]
    yield from found


def _draw(
    name: str, step: Step, opset: int, shape: tuple[int, ...], seed: int, *, by_reference: bool = False
) -> _Drawn | None:
    """One draw behind a layer, or None if it is no legal graph of numbers, or leaves the operator out."""
    draw = Draw(np.random.default_rng(seed), opset, shape)
    try:
        value = step(draw, draw.conv(4))
        found = _by_reference(draw, value) if by_reference else draw.value(value)
    except (IllegalDrawError, IndexError, ValueError, InferenceError):
        return None
    if found.dtype != np.float32 or not found.size or all(node.op_type != name for node in draw.nodes):
        return None
    return _Drawn(Model.open(draw.model(value)), shape, by_reference)


def _by_reference(draw: Draw, value: str) -> Array:
    """A value of a draw, computed by ONNX's reference implementation."""
    results = ReferenceEvaluator(draw.model(value)).run(None, draw.feed({}))
    assert isinstance(results, list)
    return np.asarray(results[0])
