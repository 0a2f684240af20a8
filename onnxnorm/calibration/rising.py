"""Nodes that apply one function to every element, which rises, or falls, all the way: extremes follow through it.

Only float32 and float64 are followed through arithmetic: what a half-precision value overflows to is measured.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from onnxnorm.model.graph import Graph, Node

__all__ = ["COPIES", "UNIFORM", "Floats", "Function", "factor_of", "function_of", "is_full", "same"]

Floats = NDArray[np.float64]
Function = Callable[[Floats], Floats]

COPIES = frozenset({"Identity", "Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze"})
_FULL = {onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE}


def _erf(numbers: Floats) -> Floats:
    from scipy.special import erf  # loaded only where ranges are measured

    return np.asarray(erf(numbers))


def _sigmoid(numbers: Floats) -> Floats:
    from scipy.special import expit

    return np.asarray(expit(numbers))


_MONOTONE: dict[str, Function] = {
    "Erf": _erf,
    "Exp": np.exp,
    "Relu": partial(np.maximum, 0.0),
    "Sigmoid": _sigmoid,
    "Softplus": partial(np.logaddexp, 0.0),
    "Tanh": np.tanh,
}
UNIFORM = frozenset(_MONOTONE)
"""Operators that rise, and do the same to every element."""


def same(numbers: Floats) -> Floats:
    """The numbers themselves."""
    return numbers


def is_full(names: Sequence[str], graph: Graph) -> bool:
    """Whether values are float32 or float64."""
    return {graph.types.get(name) for name in names} <= _FULL


def function_of(node: Node, graph: Graph, axes: Sequence[int], source: str) -> Function | None:
    """The function that a node applies to every element of `source`, if it is monotone.

    Args:
        node: the node; `source` is the only value that it reads.
        graph: its graph.
        axes: the channel axes of the source.
        source: the name of the value.
    """
    if node.op in COPIES:
        return same
    if node.op == "Relu":
        return _MONOTONE["Relu"]
    if not is_full((source, node.outputs[0]), graph):
        return None
    if node.op in _MONOTONE:
        return _MONOTONE[node.op]
    if node.op in _BY_CONSTANTS:
        return _BY_CONSTANTS[node.op](node, graph, axes)
    factor = factor_of(node, graph, axes)
    if factor is not None:
        return partial(np.multiply, factor)
    return _shift(node, graph, axes)


def factor_of(node: Node, graph: Graph, axes: Sequence[int]) -> Floats | None:
    """What a node multiplies channels by: numbers `(channels,)` or one number, none of them 0."""
    if node.op not in {"Mul", "Div"} or not is_full(node.outputs[:1], graph):
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


def _clip(node: Node, graph: Graph, *_: object) -> Function | None:
    bounds: list[Any] = [node.attribute("min"), node.attribute("max")]
    for place, name in enumerate(node.inputs[1:3]):
        if name and (name not in graph.constants or graph.constants[name].size != 1):
            return None
        bounds[place] = graph.constants[name].values().item() if name else None
    low, high = (default if b is None else float(b) for b, default in zip(bounds, (-np.inf, np.inf), strict=True))
    return lambda numbers: np.clip(numbers, low, high)


def _leaky(node: Node, *_: object) -> Function | None:
    slope = float(node.attribute("alpha", 0.01))
    return _bent(np.asarray(slope)) if slope >= 0 else None


def _prelu(node: Node, graph: Graph, axes: Sequence[int]) -> Function | None:
    slopes = _constant(node, graph, axes) if node.inputs[1] in graph.constants else None
    return None if slopes is None or not np.isfinite(slopes).all() or (slopes < 0).any() else _bent(slopes)


def _bent(slopes: Floats) -> Function:
    return lambda numbers: np.where(numbers < 0, numbers * slopes, numbers)


def _hard_sigmoid(node: Node, *_: object) -> Function | None:
    slope, shift = float(node.attribute("alpha", 0.2)), float(node.attribute("beta", 0.5))
    return lambda numbers: np.clip(slope * numbers + shift, 0, 1)


def _normalization(node: Node, graph: Graph, axes: Sequence[int]) -> Function | None:
    """What a BatchNormalization multiplies by and adds, in float32, as the runtime computes them."""
    constants = [graph.constants.get(name) for name in node.inputs[1:5]]
    if any(output for output in node.outputs[1:]) or tuple(axes) != (1,) or not is_full(node.outputs[:1], graph):
        return None
    if graph.types[node.outputs[0]] != onnx.TensorProto.FLOAT or node.attribute("training_mode", 0):
        return None
    known = [np.asarray(constant.values(), np.float32) for constant in constants if constant is not None]
    if len(known) != 4 or node.attribute("spatial", 1) != 1:
        return None
    scale, shift, mean, variance = known
    with np.errstate(all="ignore"):
        factor = scale / np.sqrt(variance + np.float32(node.attribute("epsilon", 1e-5)))
        shift = shift - mean * factor
    if not (np.isfinite(factor).all() and np.isfinite(shift).all()):
        return None
    factors, shifts = factor.astype(np.float64), shift.astype(np.float64)
    return lambda numbers: numbers * factors + shifts


_BY_CONSTANTS: dict[str, Callable[[Node, Graph, Sequence[int]], Function | None]] = {
    "BatchNormalization": _normalization,
    "Clip": _clip,
    "HardSigmoid": _hard_sigmoid,
    "LeakyRelu": _leaky,
    "PRelu": _prelu,
}


def _constant(node: Node, graph: Graph, axes: Sequence[int]) -> Floats | None:
    """The constant that a node of two inputs reads, as numbers `(channels,)` or one number; None if it varies else."""
    constants = [graph.constants[name] for name in node.inputs if name in graph.constants]
    shape = graph.shapes.get(node.outputs[0])
    if len(node.inputs) != 2 or len(constants) != 1 or shape is None or len(constants[0].shape) > len(shape):
        return None
    if constants[0].by_shape:  # another one for inputs of another size
        return None
    own = (1,) * (len(shape) - len(constants[0].shape)) + tuple(constants[0].shape)
    if any(size > 1 and axis not in axes for axis, size in enumerate(own)):
        return None
    values = np.asarray(constants[0].values(), np.float64).reshape([own[axis] for axis in axes])
    return (
        np.broadcast_to(values, [shape[axis] for axis in axes]).reshape(-1) if values.size > 1 else values.reshape(())
    )
