"""One scale for all filters of a layer: ties in addition to those that the graph demands.

The slots at the place where a layer is measured are tied, and the constraints are solved once more. So a filter that is
pinned pins its layer, and everything that is computed from groups (scales, limits, powers of two, restoring) holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from onnxnorm.scaling.filters import Layer
from onnxnorm.scaling.freedom import shared_groups
from onnxnorm.scaling.groups import solve
from onnxnorm.scaling.slots import Ids
from onnxnorm.scaling.walk import Trace

__all__ = ["layers_without_own", "one_scale_per_layer"]


def one_scale_per_layer(trace: Trace, layers: Sequence[Layer]) -> Trace:
    """The same walk with the filters of each layer tied."""
    slots = replace(trace.slots, ties=list(trace.slots.ties))
    for layer in layers:
        if layer.channels:
            slots.tie(_one_of(layer), layer.slots)
    return replace(trace, slots=slots, groups=solve(slots))


def layers_without_own(trace: Trace, layers: Sequence[Layer]) -> list[Layer]:
    """The layers, of a walk with one scale per layer, that are pinned or depend on the scales of other layers."""
    ones = [replace(layer, slots=_one_of(layer), channels=1) for layer in layers if layer.channels]
    lacking = (shared_groups(trace, ones, sites=True) | (trace.groups.pinned >= 0))[trace.groups.of]
    return [layer for layer in layers if layer.channels and lacking[_one_of(layer)].all()]


def _one_of(layer: Layer) -> Ids:
    """A slot of a layer, not `ZERO` if there is another."""
    return np.asarray(layer.slots.max(keepdims=True), np.int64)
