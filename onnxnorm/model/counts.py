"""Where the number of samples stands among sizes that a graph computes.

`Shape` of a value with rows (`rows`) gives the number of samples in its first element. Exporters cut such vectors up
and put them together again, as the target of a Reshape, say. The elements that hold the number are followed here,
through nodes that only move elements; a vector without one is the same for every number of samples. Whatever computes
with the number is not followed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

import numpy as np
import onnx
from numpy.typing import NDArray

from onnxnorm.model.graph import Graph, Node

__all__ = ["Counts", "counted"]

Counts: TypeAlias = Mapping[str, NDArray[np.bool_]]
"""By value, in its shape: which elements are the number of samples."""

_INTEGERS = {onnx.TensorProto.INT32, onnx.TensorProto.INT64}
_IN_PLACE = {"Identity", "Squeeze", "Unsqueeze"}


def counted(node: Node, graph: Graph, counts: Counts) -> NDArray[np.bool_] | None:
    """The elements of a node's output that are the number of samples; None if that is not known.

    The node is a Shape of a value with rows, or reads values of `counts`.
    """
    output = graph.constants.get(node.outputs[0])
    if output is None:
        return None
    if node.op == "Shape":
        first = int(node.attribute("start", 0)) % max(len(graph.shapes[node.inputs[0]]), 1)
        return np.asarray((np.arange(output.size) == 0) & (first == 0), np.bool_)
    operands = [_marked(name, graph, counts) for name in node.inputs if name]
    moved = _moved(node, graph, operands[0]) if node.op != "Concat" else _joined(operands)
    return None if moved is None or moved.shape != output.shape else moved


def _marked(name: str, graph: Graph, counts: Counts) -> NDArray[np.bool_]:
    return counts[name] if name in counts else np.zeros(graph.shapes[name], np.bool_)


def _joined(operands: list[NDArray[np.bool_]]) -> NDArray[np.bool_] | None:
    return np.concatenate(operands) if all(operand.ndim == 1 for operand in operands) else None


def _moved(node: Node, graph: Graph, marked: NDArray[np.bool_]) -> NDArray[np.bool_] | None:
    """The marks of a node that picks elements of its first input, or passes all of them on in order."""
    shape = graph.shapes[node.outputs[0]]
    if node.op in _IN_PLACE or (node.op == "Cast" and node.attribute("to") in _INTEGERS):
        return marked.reshape(shape)
    numbers = [_numbers(graph, name) for name in node.inputs[1:]]
    if marked.ndim != 1 or not numbers or any(number is None for number in numbers):
        return None
    known = [number for number in numbers if number is not None]
    if node.op == "Gather":
        return np.asarray(marked[known[0]])
    if node.op == "Slice" and len(known) >= 2:
        step = int(known[3].item()) if len(known) > 3 else 1
        picked = np.arange(marked.size)
        return np.asarray(marked[_cut(picked, int(known[0].item()), int(known[1].item()), step)])
    return None


def _cut(places: NDArray[np.intp], start: int, end: int, step: int) -> NDArray[np.intp]:
    return places[slice(start, None if step < 0 and end < -len(places) else end, step)]


def _numbers(graph: Graph, name: str) -> NDArray[np.int64] | None:
    constant = graph.constants.get(name)
    return None if constant is None or constant.by_shape else np.asarray(constant.values(), np.int64)
