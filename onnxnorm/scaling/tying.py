"""Which nodes tie filters: the reasons that a plan gives for them.

The walk notes at which node each tie was demanded. A tied filter is named the nodes whose ties lie in its group, first
the next one behind its layer. Where no tie joins its group to others, products do, and their nodes are named.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from onnxnorm.model.graph import Node
from onnxnorm.scaling.filters import Layer
from onnxnorm.scaling.walk import Trace

__all__ = ["tie_reasons"]

_PER_LAYER = "all filters of the layer have one scale"
_NO_BOUND = float(np.finfo(np.float32).max)  # what an exporter writes where there is none
_UNNAMED = "it shares its scale with other filters"

Indices = NDArray[np.int64]


def tie_reasons(trace: Trace, layers: Sequence[Layer], tied: Sequence[NDArray[np.bool_]]) -> list[str]:
    """Why filters of each layer are tied, such as "tied by Add Add_12 and 4 more"; empty where none is.

    Args:
        trace: a walk.
        layers: its layers of filters.
        tied: per layer, which of its filters are tied.
    """
    of = trace.groups.of
    groups = [np.unique(of[layer.slots[flags]]) for layer, flags in zip(layers, tied, strict=True)]
    if not any(len(found) for found in groups):
        return [""] * len(layers)
    bundle, nodes = _bundles(trace, np.unique(np.concatenate(groups)))
    place = {name: index for index, node in enumerate(trace.graph.nodes) for name in node.outputs}
    known: dict[tuple[int, ...], Indices] = {}
    reasons = []
    for layer, found in zip(layers, groups, strict=True):
        key = tuple(np.unique(bundle[found]).tolist())
        if key not in known:
            known[key] = np.unique(np.concatenate([np.empty(0, np.int64), *(nodes[index] for index in key)]))
        reasons.append(_reason(trace, known[key], place.get(layer.output, 0)) if len(found) else "")
    return reasons


def _reason(trace: Trace, nodes: Indices, start: int) -> str:
    if not len(nodes):
        return _PER_LAYER if len(trace.slots.ties) > len(trace.tying) else _UNNAMED
    behind = int(np.searchsorted(nodes, start))
    node = trace.graph.nodes[nodes[behind if behind < len(nodes) else -1]]
    more = f" and {len(nodes) - 1:,} more" if len(nodes) > 1 else ""
    return f"tied by {_bounds(trace, node)}{node.op} {node.label}{more}"


def _bounds(trace: Trace, node: Node) -> str:
    """What of a Clip ties: "the bound 6 of "; empty for other nodes."""
    if node.op != "Clip":
        return ""
    held = [trace.graph.constants.get(name) for name in node.inputs[1:]]
    numbers = [constant.values().flat[0] for constant in held if constant is not None and constant.size == 1]
    numbers += [number for name in ("min", "max") if (number := node.attribute(name)) is not None]
    said = [f"{float(number):g}" for number in numbers if number and abs(float(number)) < _NO_BOUND]
    if len(said) == 2:
        return f"the bounds {said[0]} and {said[1]} of "
    return f"the bound {said[0]} of " if said else "the bound of "


def _bundles(trace: Trace, wanted: Indices) -> tuple[Indices, list[Indices]]:
    """Groups that the same nodes tie as one bundle: that of each group, shape `(groups,)`, and the nodes of each."""
    nodes = _nodes_of(trace, wanted, _ties(trace))
    bare = np.asarray([group for group in wanted.tolist() if group not in nodes], np.int64)
    if len(bare):
        nodes |= _nodes_of(trace, bare, _products(trace))
    bundle, numbers = np.zeros(trace.groups.count, np.int64), dict[bytes, int]()
    bundles: list[Indices] = []
    for group in wanted.tolist():
        found = nodes.get(group, np.empty(0, np.int64))
        number = numbers.setdefault(found.tobytes(), len(bundles))
        if number == len(bundles):
            bundles.append(found)
        bundle[group] = number
    return bundle, bundles


def _ties(trace: Trace) -> Iterator[tuple[Indices, int]]:
    """Slots that are tied, and the place of the node at which they are."""
    for ends, node in zip(trace.slots.ties, trace.tying, strict=False):  # one scale per layer is no node's demand
        yield ends[0], node


def _products(trace: Trace) -> Iterator[tuple[Indices, int]]:
    """Slots that are related, and the place of the node that relates them."""
    place = {node.label: index for index, node in enumerate(trace.graph.nodes)}
    for relation in trace.slots.relations:
        node = place.get(trace.slots.barriers[relation.barrier].node)
        if node is not None:
            yield relation.slots.reshape(-1), node


def _nodes_of(trace: Trace, wanted: Indices, demands: Iterator[tuple[Indices, int]]) -> dict[int, Indices]:
    """The places of the nodes whose demands lie in each of some groups, in ascending order."""
    slots, places = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for ids, place in demands:
        slots.append(ids)
        places.append(np.full(len(ids), place, np.int64))
    groups, found = trace.groups.of[np.concatenate(slots)], np.concatenate(places)
    held = np.zeros(trace.groups.count, np.bool_)
    held[wanted] = True
    count = len(trace.graph.nodes)
    pairs = np.unique((groups * count + found)[held[groups]])
    if not len(pairs):
        return {}
    groups, found = np.divmod(pairs, count)
    first = np.flatnonzero(np.append(True, groups[1:] != groups[:-1]))
    return dict(zip(groups[first].tolist(), np.split(found, first[1:]), strict=True))
