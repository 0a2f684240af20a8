"""Values whose extremes follow from those of another value, so that they need not be measured.

Each element of such a value is a monotone function of one element of the other: a copy, an activation, the product with
a constant. A value that is not measured stays inside the operators that ONNX Runtime makes of several, such as a GELU,
and is not written at all. A value that is multiplied by a number by its only reader follows from the product, because
the product is what such operators write.

Only float32 and float64 are followed through arithmetic: what a half-precision value overflows to is measured.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from onnxnorm.model.graph import Graph, Node
from onnxnorm.scaling.walk import Trace

__all__ = ["Link", "find_links"]

Floats = NDArray[np.float64]
Function = Callable[[Floats], Floats]


def _erf(numbers: Floats) -> Floats:
    from scipy.special import erf  # loaded only where ranges are measured

    return np.asarray(erf(numbers))


def _sigmoid(numbers: Floats) -> Floats:
    from scipy.special import expit

    return np.asarray(expit(numbers))


_COPIES = frozenset({"Identity", "Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze"})
_MONOTONE: dict[str, Function] = {
    "Erf": _erf,
    "Exp": np.exp,
    "Relu": partial(np.maximum, 0.0),
    "Sigmoid": _sigmoid,
    "Softplus": partial(np.logaddexp, 0.0),
    "Tanh": np.tanh,
}
_FULL = {onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE}


@dataclass(frozen=True)
class Link:
    """The value `source`, and the function that makes numbers `(samples, channels)` of another value of its own.

    `whole` says that the other value has one number for all channels.
    """

    source: str
    function: Function
    whole: bool = False

    def extremes(self, high: Floats, low: Floats) -> tuple[Floats, Floats]:
        """The largest and the smallest numbers of the other value, from those of the source."""
        with np.errstate(over="ignore", invalid="ignore"):  # infinity counts as the largest number
            one, two = self.function(high), self.function(low)
        highest, lowest = np.maximum(one, two), np.minimum(one, two)
        if self.whole:
            return highest.max(axis=1, keepdims=True), lowest.min(axis=1, keepdims=True)
        return highest, lowest


def find_links(traced: Trace, axes: Mapping[str, Sequence[int]]) -> dict[str, Link]:
    """The links of a graph, by the name of the value that follows from another; there are no circles.

    Args:
        traced: the walk that the axes come from.
        axes: the channel axes of every value.
    """
    graph, found = traced.graph, dict[str, Link]()
    ends = {*graph.outputs, *(spec.name for spec in graph.inputs)}
    for node in graph.nodes:
        read = [name for name in node.inputs if name in axes]
        if len(read) != 1 or not node.outputs or node.outputs[0] not in axes:
            continue
        source, name = read[0], node.outputs[0]
        if not (_same_order if node.op in _COPIES else _same_shape)(traced, axes, source, name):
            continue
        same = axes[source] == axes[name] or node.op in _COPIES
        factor = _factor(node, graph, axes[source])
        if factor is not None and same and len(graph.readers[source]) == 1 and source not in ends:
            found[source] = Link(name, partial(np.multiply, 1 / factor))
            continue
        function = _function(node, graph, axes[source], source)
        if function is not None:
            found[name] = Link(source, function, whole=not same)
    return found


def _function(node: Node, graph: Graph, axes: Sequence[int], source: str) -> Function | None:
    """The function that a node applies to every element, if it is monotone."""
    if node.op in _COPIES:
        return _same
    if node.op == "Relu":
        return _MONOTONE["Relu"]
    if not {graph.types.get(source), graph.types.get(node.outputs[0])} <= _FULL:
        return None
    if node.op in _MONOTONE:
        return _MONOTONE[node.op]
    if node.op == "Clip":
        return _clip(node, graph)
    factor = _factor(node, graph, axes)
    if factor is not None:
        return partial(np.multiply, factor)
    return _shift(node, graph, axes)


def _same(numbers: Floats) -> Floats:
    return numbers


def _factor(node: Node, graph: Graph, axes: Sequence[int]) -> Floats | None:
    """What a node multiplies channels by: numbers `(channels,)` or one number, none of them 0."""
    if node.op not in {"Mul", "Div"} or graph.types.get(node.outputs[0]) not in _FULL:
        return None
    constant = _constant(node, graph, axes)
    if constant is None or (node.op == "Div" and node.inputs[0] in graph.constants):
        return None
    if not np.isfinite(constant).all() or not constant.all():
        return None
    return 1 / constant if node.op == "Div" else constant


def _shift(node: Node, graph: Graph, axes: Sequence[int]) -> Function | None:
    constant = _constant(node, graph, axes) if node.op in {"Add", "Sub"} else None
    if constant is None or not np.isfinite(constant).all():
        return None
    if node.op == "Add":
        return partial(np.add, constant)
    return partial(np.subtract, constant) if node.inputs[0] in graph.constants else partial(np.add, -constant)


def _clip(node: Node, graph: Graph) -> Function | None:
    bounds: list[Any] = [node.attribute("min"), node.attribute("max")]
    for place, name in enumerate(node.inputs[1:3]):
        if name and name not in graph.constants:
            return None
        bounds[place] = graph.constants[name].values() if name else None
    low, high = (default if b is None else float(b) for b, default in zip(bounds, (-np.inf, np.inf), strict=True))
    return lambda numbers: np.clip(numbers, low, high)


def _constant(node: Node, graph: Graph, axes: Sequence[int]) -> Floats | None:
    """The constant that a node of two inputs reads, as numbers `(channels,)` or one number; None if it varies else."""
    constants = [graph.constants[name] for name in node.inputs if name in graph.constants]
    shape = graph.shapes.get(node.outputs[0])
    if len(node.inputs) != 2 or len(constants) != 1 or shape is None or len(constants[0].shape) > len(shape):
        return None
    own = (1,) * (len(shape) - len(constants[0].shape)) + tuple(constants[0].shape)
    if any(size > 1 and axis not in axes for axis, size in enumerate(own)):
        return None
    values = np.asarray(constants[0].values(), np.float64).reshape([own[axis] for axis in axes])
    return (
        np.broadcast_to(values, [shape[axis] for axis in axes]).reshape(-1) if values.size > 1 else values.reshape(())
    )


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
