"""Activations that consist of several nodes, such as `x * Sigmoid(x)`.

From a value that several nodes read, follow all paths through operators that work element by element, until they meet
again in one value that depends on nothing else. If something on the way is no straight line, that value is the
activation. This is a rule about graphs and names no activation: SiLU, HardSwish, GELU and Mish in whatever form an
exporter writes them are found alike, and a gate that is computed by other layers is not one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from onnxnorm.model.graph import Graph, Node
from onnxnorm.scaling.laws import LAWS

__all__ = ["rejoined"]

_STRAIGHT = frozenset(("Add", "Cast", "Div", "Identity", "Mean", "Mul", "Neg", "Sub", "Sum"))
_ELEMENTWISE = _STRAIGHT | {"Erf", "Exp", "Log", "Max", "Min", "Pow", "Reciprocal", "Sqrt"}
_LONGEST = 32  # nodes


def rejoined(graph: Graph, consumers: Mapping[str, Sequence[Node]], place: Mapping[int, int], value: str) -> str | None:
    """The value in which all paths from this one meet again, behind constant numbers that alone multiply it.

    Args:
        graph: the graph.
        consumers: the nodes that read each value, subgraphs included.
        place: where in the order of nodes each is, by its index.
        value: name of a value.

    Returns:
        Its name; None if the paths do not meet, or nothing on them bends.
    """
    readers = {node.index: node for node in consumers.get(value, ())}
    if len(readers) < 2 or value in graph.outputs:
        return None
    region, bends = {value}, False
    for _ in range(_LONGEST):
        node = readers.pop(min(readers, key=place.__getitem__))
        if not _stays(node, graph, region):
            return None
        bends |= node.op not in _STRAIGHT
        target = node.outputs[0]
        if not readers and bends:
            return _scaled(graph, consumers, target)
        region.add(target)
        readers |= {reader.index: reader for reader in consumers.get(target, ())}
        if target in graph.outputs or not readers:
            return None
    return None


def _stays(node: Node, graph: Graph, region: set[str]) -> bool:
    """Whether a node works element by element on values of the region, and constants, alone."""
    entry = LAWS.get(node.op)
    elementwise = node.op in _ELEMENTWISE or (entry is not None and entry.role == "nonlinearity")
    if not elementwise or node.captured() or sum(map(bool, node.outputs)) != 1:
        return False
    return all(name in region or name in graph.constants for name in node.inputs if name)


def _scaled(graph: Graph, consumers: Mapping[str, Sequence[Node]], value: str) -> str:
    """The value behind constant numbers that alone multiply or divide it, such as the half of a GELU."""
    while value not in graph.outputs and len(consumers.get(value, ())) == 1:
        (node,) = consumers[value]
        others = [graph.constants.get(name) for name in node.inputs if name != value]
        if node.op not in {"Mul", "Div"} or any(other is None or other.size > 1 for other in others):
            break
        if node.op == "Div" and node.inputs[0] != value:
            break
        value = node.outputs[0]
    return value
