"""Other sizes of the inputs that a model allows, and what depends on them.

A walk sees one concrete size of every input. What it concludes must hold for all sizes that the model leaves open, so a
graph also knows itself at a few others: with one more sample, and with other open dimensions. Dimensions of the same
symbolic name change together. A size is not allowed if shape inference refuses it, or if values would not fit
constants.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from onnxnorm.errors import ModelError
from onnxnorm.model.constants import Constant
from onnxnorm.model.files import Model
from onnxnorm.model.graph import Node, Resized
from onnxnorm.model.inputs import InputSpec

__all__ = ["Differences", "Known", "differences", "is_allowed", "other_sizes", "resized"]

Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]
Places = frozenset[tuple[str, int]]  # axes of inputs that have one size together

_CHANGES: tuple[Callable[[int], int], ...] = (
    lambda size: size + 32,
    lambda size: 2 * size,
    lambda size: max(1, size - 1),
)
_MOST_ALONE = 4  # dimensions that are resized one by one where they cannot be resized together

_JOINS = frozenset(("Add", "Sub", "Mul", "Div", "Pow", "Max", "Min", "Sum", "Mean", "Where", "PRelu"))


@dataclass(frozen=True)
class Known:
    """What is known of a graph for one size of its inputs; the fields are those of `Graph`."""

    shapes: dict[str, Shape]
    types: dict[str, int]
    constants: dict[str, Constant]
    claimed: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class Differences:
    """What differs between sizes of the inputs; the fields are those of `Graph`."""

    batched: Mapping[str, tuple[int, ...]]
    varying: Mapping[str, tuple[int, ...]]
    unsteady: frozenset[str]
    resized: tuple[Resized, ...]


def differences(base: Known, others: Sequence[tuple[Known, bool]]) -> Differences:
    """Compare what is known for one size with other sizes, each with whether it has more samples."""
    batched: dict[str, tuple[int, ...]] = {}
    varying: dict[str, set[int]] = {}
    unsteady: set[str] = set()
    for other, more_samples in others:
        for name, shape in base.shapes.items():
            resized = other.shapes[name]
            if resized == shape:
                continue
            if len(resized) != len(shape):
                unsteady.add(name)
            axes = tuple(axis for axis, (a, b) in enumerate(zip(shape, resized, strict=False)) if a != b)
            varying.setdefault(name, set()).update(axes)
            if more_samples and axes:
                batched[name] = axes
    steady = {name: tuple(sorted(axes)) for name, axes in varying.items() if name not in unsteady}
    resized_graphs = tuple(Resized(other.shapes, other.constants) for other, _ in others)
    return Differences(batched, steady, frozenset(unsteady), resized_graphs)


def resized(base: Known, other: Known) -> set[str]:
    """The values whose shapes differ."""
    return {name for name, shape in base.shapes.items() if other.shapes[name] != shape}


def other_sizes(
    model: Model, specs: Sequence[InputSpec], nodes: Sequence[Node], base: Known, read: Callable[[Shapes], Known]
) -> list[tuple[Known, bool]]:
    """What is known for some other sizes that the model allows, each with whether it has more samples.

    Args:
        model: the model.
        specs: its inputs.
        nodes: its nodes.
        base: what is known for one size.
        read: finds out what is known for other shapes of the inputs; may raise ModelError.
    """

    def read_for(places: Iterable[Places], change: Callable[[int], int]) -> Known | None:
        axes = {place for together in places for place in together}
        shapes = {
            spec.name: tuple(
                change(size) if (spec.name, axis) in axes else size for axis, size in enumerate(base.shapes[spec.name])
            )
            for spec in specs
        }
        try:
            known = read(shapes)
        except ModelError:
            return None
        return known if is_allowed(nodes, base, known) else None

    samples, rest = _open_dimensions(model, specs, base.shapes)
    more_samples = read_for([samples], lambda size: size + 1) if samples else None
    found = [] if more_samples is None else [(more_samples, True)]
    for change in _CHANGES if rest else ():
        together = read_for(rest, change)
        if together is not None:
            alone = read_for(rest[:1], change) if len(rest) > 1 else None
            return found + [(known, False) for known in (together, alone) if known is not None]
    for places in rest[:_MOST_ALONE] if len(rest) > 1 else ():
        known = next(filter(None, (read_for([places], change) for change in _CHANGES)), None)
        found += [] if known is None else [(known, False)]
    return found


def _open_dimensions(model: Model, specs: Sequence[InputSpec], shapes: Shapes) -> tuple[Places, list[Places]]:
    """The axes of samples that the model leaves open, and the other axes, grouped by their symbolic names."""
    symbols = {
        value.name: [dim.dim_param for dim in value.type.tensor_type.shape.dim] for value in model.proto.graph.input
    }
    groups: dict[object, set[tuple[str, int]]] = {}
    samples: set[object] = set()
    for spec in specs:
        for axis, size in enumerate(spec.shape):
            if size is None and len(shapes.get(spec.name, ())) == len(spec.shape):
                key = symbols[spec.name][axis] or (spec.name, axis)
                groups.setdefault(key, set()).add((spec.name, axis))
                if axis == spec.batch:
                    samples.add(key)
    batch = frozenset(place for key in samples for place in groups[key])
    return batch, [frozenset(places) for key, places in groups.items() if key not in samples]


def is_allowed(nodes: Sequence[Node], base: Known, other: Known) -> bool:
    """Whether a graph can be run for another size, as far as shapes tell."""
    for name, shape in base.shapes.items():
        resized = other.shapes.get(name)
        if resized is None or (0 in resized and 0 not in shape):
            return False
    return all(_fits(node, other.shapes) for node in nodes if _changed(node, base.shapes, other.shapes))


def _changed(node: Node, before: Shapes, after: Shapes) -> bool:
    return any(before.get(name) != after.get(name) for name in node.inputs)


def _fits(node: Node, shapes: Shapes) -> bool:
    """Whether the inputs of a node fit each other; shape inference does not look at all of them."""
    read = [shapes.get(name) for name in node.inputs if name]
    known = [shape for shape in read if shape is not None]
    if node.op == "Reshape" and node.outputs[0] in shapes and known:
        return math.prod(known[0]) == math.prod(shapes[node.outputs[0]])
    if len(known) < len(read):
        return True
    if node.op in _JOINS:
        return _broadcasts(known)
    return all(a == b for a, b in _meeting(node, known))


def _broadcasts(shapes: Sequence[Shape]) -> bool:
    try:
        np.broadcast_shapes(*shapes)
    except ValueError:
        return False
    return True


def _meeting(node: Node, read: Sequence[Shape]) -> Iterator[tuple[int, int]]:
    """Pairs of sizes, of two inputs of a node, that must be the same."""
    if len(read) < 2 or not read[0] or not read[1]:
        return
    x, w = read[:2]
    if node.op == "Gemm":
        yield x[0 if node.attribute("transA", 0) else -1], w[-1 if node.attribute("transB", 0) else 0]
    elif node.op == "MatMul":
        yield x[-1], w[max(-2, -len(w))]
    elif len(x) < 2:
        return
    elif node.op in {"BatchNormalization", "InstanceNormalization"} or node.op == "ConvTranspose":
        yield x[1], w[0]
    elif node.op in {"Conv", "DeformConv"}:
        yield len(x), len(w)
        yield x[1], w[1] * node.attribute("group", 1)
    elif node.op in {"GRU", "LSTM", "RNN"}:
        yield x[-1], w[-1]
