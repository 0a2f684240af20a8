"""Where a graph has to be opened for a ceiling: around the values that are above it."""

from __future__ import annotations

import numpy as np

from onnxnorm.rewriting.ceiling.outcome import Ceiling
from onnxnorm.scaling import Layer, Site, Trace
from onnxnorm.scaling.channels import channel_axes
from onnxnorm.scaling.filters import slots_at

__all__ = ["places_above"]


def places_above(traced: Trace, found: Ceiling) -> tuple[Layer, ...]:
    """The values above a ceiling as if they were filters, so that each of their channels gets a scale of its own.

    Args:
        traced: a walk over the graph without added nodes.
        found: what a ceiling reached on it.
    """
    graph, axes = traced.graph, channel_axes(traced)
    writers = {name: node for node in graph.nodes for name in node.outputs}
    places = []
    for item in found.above:
        shape = graph.shapes.get(item.value, ())
        node = writers.get(item.value)
        if node is None or len(shape) < 2:
            continue
        axis = (axes.get(item.value) or (1,))[-1]
        site = Site(item.value, axis, "mean_abs")
        slots = slots_at(traced.ids, graph, site, shape[axis])
        if slots is not None:
            places.append(Layer(node.label, node.op, item.value, shape[axis], site, np.asarray(slots)))
    return tuple(places)
