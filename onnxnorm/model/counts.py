"""Where the number of samples stands among sizes that a graph computes.

`Shape` of a value with rows (`rows`) gives the number of samples in its first element. Exporters cut such vectors up
and put them together again, as the target of a Reshape, say. The elements that hold the number are followed here,
through nodes that only move elements: such a node, run on marks instead of sizes, moves the marks. A vector without a
mark is the same for every number of samples. Whatever computes with the number is not followed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

import numpy as np
import onnx
from numpy.typing import NDArray

from onnxnorm.model.evaluation import evaluate
from onnxnorm.model.graph import Graph, Node

__all__ = ["Counts", "count_marks"]

Counts: TypeAlias = Mapping[str, NDArray[np.bool_]]
"""By value, in its shape: which elements are the number of samples."""

_INTEGERS = {onnx.TensorProto.INT32, onnx.TensorProto.INT64}
_MOVES = {"Cast", "Concat", "Gather", "Identity", "Slice", "Squeeze", "Unsqueeze"}


def count_marks(node: Node, graph: Graph, counts: Counts) -> NDArray[np.bool_] | None:
    """The elements of a node's output that are the number of samples; None if that is not known.

    The node is a Shape, or reads values of `counts` but none with rows.
    """
    if node.op == "Shape":
        (name,) = node.inputs
        if name in counts:
            return np.zeros(graph.shapes[node.outputs[0]], np.bool_)
        shapes = [(samples, *graph.shapes[name][1:]) for samples in (1, 2)]
        one, two = (evaluate(node, {name: np.broadcast_to(np.float32(0), shape)})[0] for shape in shapes)
        return np.asarray(one != two, np.bool_)
    if node.op not in _MOVES or node.attribute("to", onnx.TensorProto.INT64) not in _INTEGERS:
        return None
    moved, others = (node.inputs, ()) if node.op == "Concat" else (node.inputs[:1], node.inputs[1:])
    if any(name in counts for name in others) or not all(name in graph.constants for name in node.inputs if name):
        return None
    inputs = {name: graph.constants[name].values() for name in others if name}
    return np.asarray(evaluate(node, inputs | {name: _marks(name, graph, counts) for name in moved})[0] != 0, np.bool_)


def _marks(name: str, graph: Graph, counts: Counts) -> NDArray[np.int64]:
    marks = counts.get(name)
    return np.zeros(graph.shapes[name], np.int64) if marks is None else marks.astype(np.int64)
