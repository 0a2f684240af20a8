"""The axes of every value along which its scales may vary: those of its channels.

What is measured of a value for each of its channels is kept along these axes. They depend on the graph and on the
shapes of its inputs alone, so whoever reads such numbers finds the axes again without a record of them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from onnxnorm.scaling.filters import find_layers
from onnxnorm.scaling.walk import Trace

__all__ = ["channel_axes", "copied_channels"]

_MOST = 1 << 16  # channels of one value
_COPIES = frozenset({"Relu", "Identity", "Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze"})


def channel_axes(traced: Trace) -> dict[str, tuple[int, ...]]:
    """The channel axes of every floating-point value that has elements, in ascending order.

    Args:
        traced: a walk over the graph as it is, at the level `constants`.

    Returns:
        The axes by the name of the value: empty where the value has one scale, or where its shape is not known.
    """
    graph = traced.graph
    sites = {layer.site.value: layer.site.axis for layer in find_layers(traced, "all")}
    found = {}
    for name in graph.float_values():
        shape, ids = graph.shapes.get(name), traced.ids.get(name)
        if shape is not None and 0 in shape:
            continue
        axes: tuple[int, ...] = ()
        if shape is not None and ids is not None and ids.ndim == len(shape):
            open_axes = graph.varying.get(name, ())
            axes = tuple(k for k in range(len(shape)) if ids.shape[k] > 1 and k not in open_axes)
            if not axes and name in sites and sites[name] not in open_axes:
                axes = (sites[name],)
            if math.prod(shape[k] for k in axes) > _MOST:
                axes = ()
        found[name] = axes
    return found


def copied_channels(traced: Trace, axes: Mapping[str, Sequence[int]]) -> dict[str, tuple[str, bool]]:
    """Values whose channels hold the same numbers as those of another one, or these without the negative ones.

    Args:
        traced: the walk that the axes come from.
        axes: the channel axes of every value.

    Returns:
        For such values, by their names, the other value, and whether negative numbers are 0.
    """
    found = {}
    for node in traced.graph.nodes:
        if node.op not in _COPIES or not node.outputs:
            continue
        source, name = node.inputs[0], node.outputs[0]
        if source in axes and name in axes and _same_order(traced, axes, source, name):
            found[name] = source, node.op == "Relu"
    return found


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
