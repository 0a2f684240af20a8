"""Values that cannot be negative, whatever the inputs: of those only the largest numbers need to be measured."""

from __future__ import annotations

import numpy as np

from onnxnorm.model.graph import Graph, Node

__all__ = ["never_negative_values"]

_MOST = 1 << 16  # elements of a constant that is looked through

_NEVER = frozenset(
    {
        "Abs",
        "Exp",
        "GlobalLpPool",
        "HardSigmoid",
        "LpPool",
        "ReduceL1",
        "ReduceL2",
        "ReduceSumSquare",
        "Relu",
        "Sigmoid",
        "Softmax",
        "Softplus",
        "Sqrt",
    }
)
# What moves, picks, averages or adds numbers follows from what it reads. Of these, other inputs are sizes and places,
_DATA_FIRST = frozenset(
    {
        "Expand",
        "Gather",
        "ReduceMax",
        "ReduceMean",
        "ReduceMin",
        "ReduceSum",
        "Reshape",
        "Slice",
        "Split",
        "Squeeze",
        "Tile",
        "Unsqueeze",
    }
)
# and of these, all inputs are numbers.
_PASSED = _DATA_FIRST | frozenset(
    {
        "Add",
        "AveragePool",
        "Concat",
        "DepthToSpace",
        "Dropout",
        "Flatten",
        "GlobalAveragePool",
        "GlobalMaxPool",
        "HardSwish",
        "Identity",
        "Max",
        "MaxPool",
        "Min",
        "Mul",
        "SpaceToDepth",
        "Sum",
        "Transpose",
    }
)


def never_negative_values(graph: Graph) -> frozenset[str]:
    """The values that no operator on the way can have made negative; NaN is not a question of sign."""
    found: set[str] = set()
    for node in graph.nodes:
        if node.outputs and _is_never_negative(node, graph, found):
            found.update(name for name in node.outputs if name)
    return frozenset(found)


def _is_never_negative(node: Node, graph: Graph, found: set[str]) -> bool:
    if node.op in _NEVER:
        return True
    if node.op == "Clip":
        low, high = _bound(node, graph, 1, "min"), _bound(node, graph, 2, "max")
        return (low >= 0 or node.inputs[0] in found) and high >= 0  # the upper bound wins where they cross
    if node.op == "Mul" and node.inputs[0] == node.inputs[1]:
        return True
    if node.op == "Pow":
        return _is_even(node.inputs[1], graph)
    if node.op == "Cast":
        return node.inputs[0] in found
    if node.op not in _PASSED:
        return False
    read = node.inputs[:1] if node.op in _DATA_FIRST else [name for name in node.inputs if name]
    return all(name in found or _constant_is(name, graph) for name in read)


def _bound(node: Node, graph: Graph, index: int, name: str) -> float:
    """A bound of a Clip; minus infinity if it is not known, and without an upper one infinity."""
    if len(node.inputs) > index and node.inputs[index]:
        bound = graph.constants.get(node.inputs[index])
        return -np.inf if bound is None else float(np.asarray(bound.values(), np.float64).min(initial=np.inf))
    return float(node.attribute(name, -np.inf if name == "min" else np.inf))


def _constant_is(name: str, graph: Graph) -> bool:
    """Whether a value is a constant without negative numbers, for inputs of any size."""
    constant = graph.constants.get(name)
    if constant is None or constant.by_shape or constant.size > _MOST:
        return False
    values = np.asarray(constant.values())
    return bool(np.issubdtype(values.dtype, np.number) and (values.astype(np.float64) >= 0).all())


def _is_even(name: str, graph: Graph) -> bool:
    """Whether a value is one constant exponent that makes squares."""
    constant = graph.constants.get(name)
    return constant is not None and constant.size == 1 and float(np.asarray(constant.values()).item()) % 2 == 0
