"""The axes of every value along which its scales may vary: those of its channels.

What is measured of a value for each of its channels is kept along these axes. They depend on the graph and on the
shapes of its inputs alone, so whoever reads such numbers finds the axes again without a record of them.
"""

from __future__ import annotations

import math

from onnxnorm.scaling.filters import find_layers
from onnxnorm.scaling.walk import Trace

__all__ = ["channel_axes"]

_MOST = 1 << 16  # channels of one value


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
