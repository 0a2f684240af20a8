"""Values whose elements are those of other values, all of them or some channels, or these times one number a channel.

joined or cut along channels   Concat, Split
joined along positions         Concat
each element, repeated         Resize by whole numbers, to the nearest
the largest of neighbours      MaxPool whose windows miss no position, of what cannot be negative
one number for each channel    x * g and x + g, where g has one position: a gate, or a time step
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from typing import TypeAlias

import numpy as np

from onnxnorm.calibration.joint import has_one_row
from onnxnorm.calibration.rising import Floats, is_full
from onnxnorm.model.graph import Graph, Node

__all__ = ["Extremes", "Follow", "Part", "parts_of"]

Extremes: TypeAlias = tuple[Floats, Floats]
Follow = Callable[[Sequence[Extremes]], Extremes]

Axes = Mapping[str, Sequence[int]]


@dataclass(frozen=True)
class Part:
    """The value `name`, which follows from `sources`.

    Attributes:
        name: the value.
        sources: what it follows from.
        follow: how its extremes follow from theirs.
        gate: whether the last source has one number for each channel of a sample.
        loose: whether only the largest numbers follow, of a value that cannot be negative.
    """

    name: str
    sources: tuple[str, ...]
    follow: Follow
    gate: bool = False
    loose: bool = False


def parts_of(node: Node, graph: Graph, axes: Axes, positive: frozenset[str]) -> Iterator[Part]:
    """The outputs of a node that follow from what it reads.

    Args:
        node: the node.
        graph: its graph.
        axes: the channel axes of every value.
        positive: the values that cannot be negative.
    """
    names = [name for name in node.outputs if name in axes]
    if node.op == "MaxPool" and node.inputs[0] not in positive:
        return
    if names and all(name in axes and name in graph.shapes for name in (node.inputs[0], *names)):
        find = _KINDS.get(node.op)
        yield from find(node, graph, axes) if find is not None else ()


def _joined(node: Node, graph: Graph, axes: Axes) -> Iterator[Part]:
    name = node.outputs[0]
    axis = _axis(node, graph, 0)
    if any(source not in axes or axes[source] != axes[name] for source in node.inputs) or not axis:
        return
    if tuple(axes[name]) == (axis,):
        yield Part(name, node.inputs, _side_by_side)
    elif axis not in axes[name]:
        yield Part(name, node.inputs, _of_all)


def _cut(node: Node, graph: Graph, axes: Axes) -> Iterator[Part]:
    source, axis = node.inputs[0], _axis(node, graph, 0)
    if tuple(axes[source]) != (axis,) or not all(name in graph.shapes for name in node.outputs):
        return
    ends = list(accumulate(graph.shapes[name][axis] for name in node.outputs))
    for name, start, end in zip(node.outputs, (0, *ends), ends, strict=False):
        if axes.get(name) == axes[source]:
            yield Part(name, (source,), partial(_columns, start, end))


def _repeated(node: Node, graph: Graph, axes: Axes) -> Iterator[Part]:
    source, name = node.inputs[0], node.outputs[0]
    mode, place = node.attribute("mode", "nearest"), node.attribute("coordinate_transformation_mode", "half_pixel")
    if mode != "nearest" or place == "tf_crop_and_resize" or axes[source] != axes[name]:
        return
    sizes = [(graph.shapes, source, name), *((other.shapes, source, name) for other in graph.resized)]
    if all(_by_whole_numbers(shapes.get(one), shapes.get(two)) for shapes, one, two in sizes):
        yield Part(name, (source,), _the_same)


def _by_whole_numbers(shape: Sequence[int] | None, other: Sequence[int] | None) -> bool:
    if shape is None or other is None or len(shape) != len(other):
        return False
    return all(two >= one > 0 and not two % one for one, two in zip(shape, other, strict=True))


def _pooled(node: Node, graph: Graph, axes: Axes) -> Iterator[Part]:
    source, name = node.inputs[0], node.outputs[0]
    if axes[source] != axes[name] or any(axis > 1 for axis in axes[name]):
        return
    if _misses_nothing(node, graph.shapes[source], graph.shapes[name], graph.varying.get(source, ())):
        yield Part(name, (source,), _the_same, loose=True)


def _misses_nothing(node: Node, shape: Sequence[int], other: Sequence[int], varying: Sequence[int]) -> bool:
    """Whether the windows of a pool leave out no position, along axes whose size varies for any size.

    Between windows that touch, none is left out; behind the last one fewer than a stride are, less the pad there.
    """
    kernel = node.attribute("kernel_shape")
    if kernel is None or len(shape) != len(kernel) + 2:
        return False
    count, auto_pad = len(kernel), node.attribute("auto_pad", "NOTSET")
    strides, pads = node.attribute("strides", [1] * count), node.attribute("pads", [0] * (2 * count))
    spread = any(step != 1 for step in node.attribute("dilations", []))
    if spread or any(step > size for step, size in zip(strides, kernel, strict=True)):
        return False
    if auto_pad in {"SAME_UPPER", "SAME_LOWER"} or (auto_pad == "NOTSET" and node.attribute("ceil_mode", 0)):
        return True
    ends = [(out - 1) * s + k - pad for out, s, k, pad in zip(other[2:], strides, kernel, pads, strict=False)]
    fits = [end >= size for end, size in zip(ends, shape[2:], strict=True)]
    always = [pad >= step - 1 for pad, step in zip(pads[count:], strides, strict=True)]
    return auto_pad == "NOTSET" and all(
        any_size or (fit and axis not in varying)
        for axis, (fit, any_size) in enumerate(zip(fits, always, strict=True), start=2)
    )


def _gated(node: Node, graph: Graph, axes: Axes) -> Iterator[Part]:
    name = node.outputs[0]
    if len(node.inputs) != 2 or any(source not in axes for source in node.inputs):
        return
    for value, gate in (node.inputs, node.inputs[::-1]):
        shape, own = graph.shapes.get(value), graph.shapes.get(gate)
        if shape is None or own is None or shape != graph.shapes[name] or len(own) != len(shape) or shape == own:
            continue
        if not {*axes[value], *axes[gate]} == {*axes[name]} == {*axes[gate]} or not is_full((value, gate, name), graph):
            continue
        single = all(size == 1 or axis in axes[gate] for axis, size in enumerate(own) if axis)
        steady = set(graph.varying.get(gate, ())) <= {0}
        if single and steady and 0 not in axes[gate] and all(has_one_row(graph, name) for name in (gate, value)):
            yield Part(name, (value, gate), _times if node.op == "Mul" else _plus, gate=True)


_KINDS = {
    "Add": _gated,
    "Concat": _joined,
    "MaxPool": _pooled,
    "Mul": _gated,
    "Resize": _repeated,
    "Split": _cut,
    "Upsample": _repeated,
}


def _axis(node: Node, graph: Graph, default: int) -> int:
    rank = len(graph.shapes[node.outputs[0] or node.inputs[0]])
    return int(node.attribute("axis", default)) % rank


def _the_same(known: Sequence[Extremes]) -> Extremes:
    return known[0]


def _side_by_side(known: Sequence[Extremes]) -> Extremes:
    high, low = (np.concatenate(parts, axis=1) for parts in zip(*known, strict=True))
    return high, low


def _of_all(known: Sequence[Extremes]) -> Extremes:
    highs, lows = zip(*known, strict=True)
    return np.maximum.reduce(highs), np.minimum.reduce(lows)


def _columns(start: int, end: int, known: Sequence[Extremes]) -> Extremes:
    high, low = known[0]
    return high[:, start:end], low[:, start:end]


def _times(known: Sequence[Extremes]) -> Extremes:
    (high, low), (gate, _) = known
    one, two = high * gate, low * gate
    return np.maximum(one, two), np.minimum(one, two)


def _plus(known: Sequence[Extremes]) -> Extremes:
    (high, low), (gate, _) = known
    return high + gate, low + gate
