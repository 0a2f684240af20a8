"""Values whose extremes follow from those of other values, so that they need not be measured.

Each element of such a value is a monotone function of one element of another (`rising`), or is an element of one of
several others (`parts`). A value that is not measured stays inside the operators that ONNX Runtime makes of several,
such as a GELU, and is not written at all. A value that is multiplied by a number by its only reader follows from the
product, because the product is what such operators write.

Of a value that cannot be negative only the largest numbers are measured; its smallest are *loose*: they count as 0,
which says enough about its own magnitude, and about that of another value if 0 and all above it do not become negative
there. Whatever else follows from a loose value is measured.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from onnxnorm.calibration.parts import Extremes, Follow, Part, parts_of
from onnxnorm.calibration.rising import COPIES, UNIFORM, Function, factor_of, function_of, same
from onnxnorm.calibration.signs import never_negative_values
from onnxnorm.model.graph import Node
from onnxnorm.scaling.walk import Trace

__all__ = ["Link", "find_links"]


@dataclass(frozen=True)
class Link:
    """The values `sources`, and how the extremes `(samples, channels)` of another value follow from theirs.

    `gate` says that the last source has one number for each channel of a sample.
    """

    sources: tuple[str, ...]
    follow: Follow
    gate: bool = False


def find_links(traced: Trace, axes: Mapping[str, Sequence[int]]) -> dict[str, Link]:
    """The links of a graph, by the name of the value that follows from others; there are no circles.

    Args:
        traced: the walk that the axes come from.
        axes: the channel axes of every value.
    """
    search = _Search(traced, axes, never_negative_values(traced.graph))
    for node in traced.graph.nodes:
        search.visit(node)
    return search.found


@dataclass
class _Search:
    """What was found so far, and of which values the smallest numbers are loose."""

    traced: Trace
    axes: Mapping[str, Sequence[int]]
    positive: frozenset[str]
    found: dict[str, Link] = field(default_factory=dict)
    loose: set[str] = field(init=False)
    ends: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        graph = self.traced.graph
        self.loose = set(self.positive)
        self.ends = frozenset({*graph.outputs, *(spec.name for spec in graph.inputs)})

    def visit(self, node: Node) -> None:
        for part in self._parts(node):
            loose = part.loose or not self.loose.isdisjoint(part.sources[:1] if part.gate else part.sources)
            self._add(part.name, Link(part.sources, part.follow, part.gate), loose=loose)
        read = [name for name in node.inputs if name in self.axes]
        if len(read) == 1 and node.outputs and node.outputs[0] in self.axes and node.outputs[0] not in self.found:
            self._elementwise(node, read[0], node.outputs[0])

    def _parts(self, node: Node) -> Iterator[Part]:
        """What follows from several values, or is a part of one; loose values are added to no gate below 0."""
        if not node.inputs:
            return
        for part in parts_of(node, self.traced.graph, self.axes, self.positive):
            if part.gate and part.sources[0] in self.loose and part.sources[1] not in self.positive:
                continue
            if part.name not in self.found:
                yield part

    def _elementwise(self, node: Node, source: str, name: str) -> None:
        """Link the value that a node writes to the one that it reads, or the other way round."""
        graph, axes = self.traced.graph, self.axes
        if not (_same_order if node.op in COPIES else _same_shape)(self.traced, axes, source, name):
            return
        whole = axes[source] != axes[name] and node.op not in COPIES
        factor = factor_of(node, graph, axes[source])
        only = len(graph.readers[source]) == 1 and source not in self.ends and source not in self.found
        if factor is not None and not whole and only and self._holds(name, partial(np.multiply, 1 / factor)):
            link = Link((name,), partial(_elementwise, partial(np.multiply, 1 / factor)))
            self._add(source, link, loose=name in self.loose)
            return
        function = function_of(node, graph, axes[source], source)
        if function is not None and self._holds(source, function):
            follow = _of_one if whole and node.op in UNIFORM else partial(_elementwise, whole=whole)
            self._add(name, Link((source,), partial(follow, function)), loose=source in self.loose)

    def _holds(self, source: str, function: Function) -> bool:
        """Whether a function of a value has the right magnitude although the value's smallest numbers may be loose."""
        if source not in self.loose or function is same:
            return True
        with np.errstate(all="ignore"):
            zero, one = function(np.zeros((1, 1))), function(np.ones((1, 1)))
        return bool((zero >= 0).all() and (one >= zero).all())

    def _add(self, name: str, link: Link, *, loose: bool) -> None:
        self.found[name] = link
        (self.loose.add if loose else self.loose.discard)(name)


def _elementwise(function: Function, known: Sequence[Extremes], *, whole: bool = False) -> Extremes:
    """The extremes of a function; `whole` says that there is one number for all channels."""
    high, low = known[0]
    if function is same:
        return high, low
    one, two = function(high), function(low)
    highest, lowest = np.maximum(one, two), np.minimum(one, two)
    if whole:
        return highest.max(axis=1, keepdims=True), lowest.min(axis=1, keepdims=True)
    return highest, lowest


def _of_one(function: Function, known: Sequence[Extremes]) -> Extremes:
    """The extremes of a function that rises and is the same for all channels, which have one number."""
    high, low = known[0]
    return function(high.max(axis=1, keepdims=True)), function(low.min(axis=1, keepdims=True))


def _same_shape(traced: Trace, axes: Mapping[str, Sequence[int]], one: str, other: str) -> bool:
    """Whether two values have the same shape, and the same channels; the other one may have one number for all."""
    shapes = traced.graph.shapes
    return one in shapes and shapes.get(other) == shapes[one] and axes[other] in {axes[one], ()}


def _same_order(traced: Trace, axes: Mapping[str, Sequence[int]], one: str, other: str) -> bool:
    """Whether the channels of two values, in the order of their axes, have the same slots."""
    ids = []
    for name in (one, other):
        shape = traced.graph.shapes.get(name, ())
        channels = [size if k in axes[name] else 1 for k, size in enumerate(shape)]
        own = traced.ids[name]
        if own.size > 1 and list(own.shape) != channels:
            return False
        ids.append(np.broadcast_to(own, channels).reshape(-1) if own.ndim == len(channels) else own.reshape(-1))
    return np.array_equal(ids[0], ids[1])
