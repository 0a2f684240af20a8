"""Which scale: one per group, so that the statistic of its filters comes to the target.

A group with one measured channel reaches the target exactly. Filters that are tied share one scale: the geometric mean
of their statistics comes to the target, and what remains apart is reported as their spread. Scales are positive, so
where a non-linearity with a negative side leaves a negative mean, that comes to minus the target. A filter is dead if
its mean does not stand out from the rounding noise of its layer (`eps` times the largest channel's). Dead filters have
no say; where all filters of a group are dead its scale stays 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from onnxnorm.errors import OptionError, StatisticsError
from onnxnorm.scaling import Ids, Layer, Trace
from onnxnorm.statistics import Moments, Statistics, Value

__all__ = ["LayerScales", "Scales", "choose_scales"]

Floats = NDArray[np.float64]

_NOISE = float(np.finfo(np.float32).eps)


@dataclass(frozen=True)
class LayerScales:
    """One layer's statistic before and its scales; arrays have shape `(channels,)`."""

    layer: Layer
    statistic: Floats = field(repr=False)
    standard_error: Floats = field(repr=False)
    scale: Floats = field(repr=False)
    dead: NDArray[np.bool_] = field(repr=False)
    pinned: NDArray[np.bool_] = field(repr=False)

    @property
    def after(self) -> Floats:
        """The statistic after the rewrite."""
        return self.statistic * self.scale


@dataclass(frozen=True)
class Scales:
    """A scale per slot, shape `(slots,)`, and what that means for each layer."""

    of_slot: Floats = field(repr=False)
    layers: tuple[LayerScales, ...]

    @property
    def dead(self) -> int:
        """Number of dead filters."""
        return sum(int(layer.dead.sum()) for layer in self.layers)


def choose_scales(
    trace: Trace,
    layers: Sequence[Layer],
    statistics: Statistics,
    *,
    target: float = 1.0,
    power_of_two: bool = False,
) -> Scales:
    """Bring the mean of every filter that is not pinned to `target`, or to minus `target` where it is negative.

    With `power_of_two` every scale is rounded to a power of two, in the logarithm.
    Raises StatisticsError if a layer was not measured, OptionError for a target that is not positive.
    """
    if not (np.isfinite(target) and target > 0):
        raise OptionError(f"the target must be a positive number, not {target:g}")
    moments = [_moments(layer, statistics) for layer in layers]
    dead = [_dead(found.mean) for found in moments]
    sites = {
        layer.site: (layer.slots, found.mean, flags) for layer, found, flags in zip(layers, moments, dead, strict=True)
    }
    of_group = _per_group(trace, list(sites.values()), target)
    if power_of_two:
        of_group = np.exp2(np.rint(np.log2(of_group)))
    of_slot = of_group[trace.groups.of]
    of_slot[0] = 1.0
    return Scales(
        of_slot,
        tuple(
            LayerScales(
                layer,
                found.mean,
                found.standard_error,
                of_slot[layer.slots],
                flags,
                trace.groups.is_pinned(layer.slots),
            )
            for layer, found, flags in zip(layers, moments, dead, strict=True)
        ),
    )


def _per_group(trace: Trace, sites: list[tuple[Ids, Floats, NDArray[np.bool_]]], target: float) -> Floats:
    """The scale of every group, from the slots, statistics and dead flags of every site."""
    groups = np.concatenate([np.empty(0, np.int64), *(trace.groups.of[slots[~dead]] for slots, _, dead in sites)])
    live = np.abs(np.concatenate([np.empty(0), *(statistic[~dead] for _, statistic, dead in sites)]))
    members = np.bincount(groups, minlength=trace.groups.count)
    logs = np.bincount(groups, np.log(target / live), minlength=trace.groups.count)
    scale = np.exp(np.divide(logs, members, out=np.zeros(trace.groups.count), where=members > 0))
    alone = members[groups] == 1
    scale[groups[alone]] = target / live[alone]  # exactly, where exp(log()) would round
    scale[trace.groups.pinned >= 0] = 1.0
    return scale


def _moments(layer: Layer, statistics: Statistics) -> Moments:
    found = statistics.values.get(Value(layer.site.value, layer.site.measure))
    if found is None:
        raise StatisticsError(
            f"the statistics lack value {layer.site.value!r} ({layer.site.measure}), which {layer.op} {layer.node!r} "
            "needs; calibrate this model again, with the same --filters"
        )
    if found.channels != layer.channels:
        raise StatisticsError(
            f"the statistics of {layer.site.value!r} have {found.channels} channels, {layer.op} {layer.node!r} has "
            f"{layer.channels}; calibrate this model again"
        )
    return found


def _dead(mean: Floats) -> NDArray[np.bool_]:
    size = np.abs(mean)
    least = max(_NOISE * float(size.max(initial=0.0)), float(np.finfo(np.float32).tiny))
    dead: NDArray[np.bool_] = size <= least
    return dead
