"""Tries every operator in small graphs, and tells what becomes of the filters around it at each level of freedom.

A graph is a layer with four filters, the operator with random attributes behind it, and its output, at a random opset.
Its filters have scales of their own, are tied to others, or are pinned; the worst of the three counts. What several
draws of one operator show is put together, so that an operator whose attributes decide appears with all that they do.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from onnx.shape_inference import InferenceError

from onnxnorm.model.files import Model
from onnxnorm.model.shapes import read_graph
from onnxnorm.rewriting.opened import subjects_of
from onnxnorm.scaling.levels import LEVELS, Level
from onnxnorm.scaling.plan import make_plan
from tests.helpers.draws import CATALOG, Draw, IllegalDrawError
from tests.helpers.draws.draw import Step
from tests.helpers.draws.elements import plain

__all__ = ["Tried", "try_operator"]

STATES = ("own", "tied", "pinned")
_OPSETS = (9, 18, 23, 24)
_SHAPES: tuple[tuple[int, ...], ...] = ((1, 3, 6, 4), (1, 3, 4), (1, 3))
_DRAWS = 3  # at each opset and shape, of an operator of which several are known

_JOINED_AGAIN = frozenset({"IsInf", "IsNaN", "Sign"})  # the catalogue adds what they say to what they read


@dataclass(frozen=True)
class Tried:
    """What the draws of one operator showed: per level, the states of its filters in the order of `STATES`.

    Attributes:
        states: by level.
        adds_nodes: whether the level `nodes` added some.
    """

    states: Mapping[Level, tuple[str, ...]]
    adds_nodes: bool


def try_operator(name: str) -> Tried | None:
    """Try an operator; None if ONNX Runtime ran none of its draws, or it gave out no numbers of float32."""
    seen: dict[Level, set[str]] = {level: set() for level in LEVELS}
    adds_nodes = False
    for model, shape in _drawn(name):
        graph = read_graph(model, {"x": shape})
        for level, subject in subjects_of(graph, model, {"x": shape}, "all", "scale").items():
            plan = make_plan(subject.trace, subject.layers)
            seen[level].add("pinned" if plan.pinned else "tied" if plan.tied else "own")
            adds_nodes |= bool(subject.insertion.nodes)
    if not seen["constants"]:
        return None
    return Tried(
        {level: tuple(state for state in STATES if state in found) for level, found in seen.items()}, adds_nodes
    )


def _drawn(name: str) -> Iterator[tuple[Model, tuple[int, ...]]]:
    """Draws of the catalogue; one of an operator that is not in it and reads one value."""
    steps = [step for kind, step in CATALOG.items() if kind.split(" ")[0] == name]
    if steps and name not in _JOINED_AGAIN:
        for opset in _OPSETS[:-1]:
            for shape in _SHAPES:
                models = (_draw(steps[seed % len(steps)], name, opset, shape, seed) for seed in range(_DRAWS))
                yield from ((model, shape) for model in models if model is not None)
    elif not steps and onnx.defs.get_schema(name).min_input == 1:
        alone = _draw(plain(name), name, _OPSETS[-1], _SHAPES[0], 0)
        yield from () if alone is None else ((alone, _SHAPES[0]),)


def _draw(step: Step, name: str, opset: int, shape: tuple[int, ...], seed: int) -> Model | None:
    """One draw behind a layer, or None if it is no legal graph of numbers, or leaves the operator out."""
    draw = Draw(np.random.default_rng(seed), opset, shape)
    try:
        value = step(draw, draw.conv(4))
        found = draw.value(value)
    except (IllegalDrawError, IndexError, ValueError, InferenceError):
        return None
    if found.dtype != np.float32 or not found.size or all(node.op_type != name for node in draw.nodes):
        return None
    return Model.open(draw.model(value))
