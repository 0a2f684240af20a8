"""Which scale: one per group, so that the statistic of its filters comes to the target.

`scale = target / statistic ** strength`. With strength 1 a group with one measured channel reaches the target exactly.
Filters that are tied share one scale: the geometric mean of their statistics comes to the target, and what remains
apart is reported as their spread. Scales are positive, so where a non-linearity with a negative side leaves a negative
mean, that comes to minus the target. Dead filters have no say; where all filters of a group are dead its scale stays 1.
The same holds of filters whose statistic is not known (NaN).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from onnxnorm.errors import OptionError
from onnxnorm.rewriting.layer_statistics import LayerStatistic
from onnxnorm.scaling import Ids, Layer, Trace

__all__ = ["LayerScales", "Scales", "choose_scales", "count_dead"]

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class LayerScales:
    """One layer's statistic before and its scales; arrays have shape `(channels,)`.

    `limited` marks filters whose power of two had to stay nearer to 1 for their constants to stay exact.
    """

    layer: Layer
    statistic: Floats = field(repr=False)
    standard_error: Floats = field(repr=False)
    scale: Floats = field(repr=False)
    dead: NDArray[np.bool_] = field(repr=False)
    pinned: NDArray[np.bool_] = field(repr=False)
    limited: NDArray[np.bool_] = field(repr=False)

    @property
    def after(self) -> Floats:
        """The statistic after the rewrite."""
        return self.statistic * self.scale

    @property
    def moved(self) -> Floats:
        """The scales of the filters that were free to get one."""
        return self.scale[self.live & ~self.pinned]

    @property
    def relative_errors(self) -> Floats:
        """Relative standard errors of the statistics of live filters, of those for which they are known."""
        errors = self.standard_error[self.live] / np.abs(self.statistic[self.live])
        return np.asarray(errors[np.isfinite(errors)], np.float64)

    @property
    def live(self) -> NDArray[np.bool_]:
        """Which filters have a statistic to divide by."""
        return ~self.dead & ~np.isnan(self.statistic)


@dataclass(frozen=True)
class Scales:
    """A scale per slot, shape `(slots,)`, and what that means for each layer."""

    of_slot: Floats = field(repr=False)
    layers: tuple[LayerScales, ...]

    @property
    def dead(self) -> int:
        """Number of dead filters."""
        return sum(int(layer.dead.sum()) for layer in self.layers)

    @property
    def unknown(self) -> int:
        """Number of filters that could be scaled, but whose statistic is not known."""
        return sum(int((np.isnan(layer.statistic) & ~layer.pinned).sum()) for layer in self.layers)

    @property
    def limited(self) -> int:
        """Number of filters whose power of two was limited."""
        return sum(int(layer.limited.sum()) for layer in self.layers)

    @property
    def span(self) -> tuple[float, float]:
        """The smallest and the largest scale of filters that were free to get one; 1 and 1 without any."""
        moved = np.concatenate([np.empty(0), *(layer.moved for layer in self.layers)])
        return (float(moved.min()), float(moved.max())) if moved.size else (1.0, 1.0)

    def at(self, of_slot: Floats, limited: NDArray[np.bool_]) -> Scales:
        """The same filters at other scales; `limited` has shape `(slots,)`."""
        layers = (
            replace(item, scale=of_slot[item.layer.slots], limited=limited[item.layer.slots] & ~item.pinned)
            for item in self.layers
        )
        return Scales(of_slot, tuple(layers))


def choose_scales(
    trace: Trace,
    layers: Sequence[Layer],
    measured: Sequence[LayerStatistic],
    *,
    target: float = 1.0,
    strength: float = 1.0,
) -> Scales:
    """Bring the statistic of every filter that is not pinned to `target`, or to minus that where it is negative.

    Raises OptionError for a target that is not positive, or a strength that is not finite.
    """
    if not (np.isfinite(target) and target > 0):
        raise OptionError(f"the target must be a positive number, not {target:g}")
    if not np.isfinite(strength):
        raise OptionError(f"the strength must be a finite number, not {strength:g}")
    sites = {
        layer.site: (layer.slots, found.statistic, found.dead | np.isnan(found.statistic))
        for layer, found in zip(layers, measured, strict=True)
    }
    of_group = _per_group(trace, list(sites.values()), target, strength)
    of_slot = of_group[trace.groups.of]
    of_slot[0] = 1.0
    return Scales(
        of_slot,
        tuple(
            LayerScales(
                layer,
                found.statistic,
                found.standard_error,
                of_slot[layer.slots],
                found.dead,
                trace.groups.is_pinned(layer.slots),
                np.zeros(layer.channels, np.bool_),
            )
            for layer, found in zip(layers, measured, strict=True)
        ),
    )


def count_dead(measured: Sequence[LayerStatistic]) -> int:
    """How many filters of these layers are dead."""
    return sum(int(found.dead.sum()) for found in measured)


def _per_group(
    trace: Trace, sites: list[tuple[Ids, Floats, NDArray[np.bool_]]], target: float, strength: float
) -> Floats:
    """The scale of every group, from every site: slots, statistics, and which of them to leave out."""
    groups = np.concatenate([np.empty(0, np.int64), *(trace.groups.of[slots[~dead]] for slots, _, dead in sites)])
    live = np.abs(np.concatenate([np.empty(0), *(statistic[~dead] for _, statistic, dead in sites)])) ** strength
    members = np.bincount(groups, minlength=trace.groups.count)
    logs = np.bincount(groups, np.log(target / live), minlength=trace.groups.count)
    scale = np.exp(np.divide(logs, members, out=np.zeros(trace.groups.count), where=members > 0))
    alone = members[groups] == 1
    scale[groups[alone]] = target / live[alone]  # exactly, where exp(log()) would round
    scale[trace.groups.pinned >= 0] = 1.0
    return scale
