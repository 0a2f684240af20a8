"""Computing the scales: one per group, so that the statistic of its filters is brought to the target.

`scale = target / statistic ** strength`. With strength 1 a group with one measured filter reaches the target precisely.
Tied filters share one scale, which brings the geometric mean of their statistics to the target; the differences between
them that remain are reported as their spread. Where scales depend on each other in other ways, as factors of a product,
the logarithms are the solution of least squares (`least_squares`), of which the geometric mean is the simplest case.

Scales are positive, so if a non-linearity leaves a filter with a negative mean, that is brought to minus the target.
Dead filters, and those whose statistic is not known (NaN), do not count; a group without any other filters keeps scale
1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from onnxnorm.errors import OptionError
from onnxnorm.rewriting.layer_statistics import LayerStatistic
from onnxnorm.rewriting.least_squares import least_squares
from onnxnorm.scaling import Ids, Layer, Trace

__all__ = ["LayerScales", "Scales", "choose_scales", "count_dead"]

Floats = NDArray[np.float64]

_ROUNDING = 1e-12


@dataclass(frozen=True)
class LayerScales:
    """One layer's statistic before and its scales; arrays have shape `(channels,)`.

    Attributes:
        layer: the layer.
        statistic: the statistic before the rewrite; NaN where not known.
        standard_error: its standard error; NaN where not known.
        scale: the scale of every filter.
        dead: which filters have a statistic that is too small to divide by.
        pinned: which filters must keep scale 1.
        limited: which filters have a scale nearer to 1 than their own, so that constants stay in range.
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
        """The scales of the filters that are neither pinned, dead nor unknown; one-dimensional."""
        return self.scale[self.live & ~self.pinned]

    @property
    def relative_errors(self) -> Floats:
        """Relative standard errors of the statistics of live filters, where they are known; one-dimensional."""
        errors = self.standard_error[self.live] / np.abs(self.statistic[self.live])
        return np.asarray(errors[np.isfinite(errors)], np.float64)

    @property
    def live(self) -> NDArray[np.bool_]:
        """Which filters have a known statistic that is not too small to divide by."""
        return ~self.dead & ~np.isnan(self.statistic)


@dataclass(frozen=True)
class Scales:
    """The scale of every slot, shape `(slots,)`, and the scales of the filters of every layer."""

    of_slot: Floats = field(repr=False)
    layers: tuple[LayerScales, ...]

    @property
    def dead(self) -> int:
        """Number of dead filters."""
        return sum(int(layer.dead.sum()) for layer in self.layers)

    @property
    def unknown(self) -> int:
        """Number of filters that are not pinned, but whose statistic is not known."""
        return sum(int((np.isnan(layer.statistic) & ~layer.pinned).sum()) for layer in self.layers)

    @property
    def limited(self) -> int:
        """Number of filters whose scale had to be nearer to 1 than their own."""
        return sum(int(layer.limited.sum()) for layer in self.layers)

    @property
    def span(self) -> tuple[float, float]:
        """The smallest and the largest scale of filters that could be scaled; 1 and 1 if there are none."""
        moved = np.concatenate([np.empty(0), *(layer.moved for layer in self.layers)])
        return (float(moved.min()), float(moved.max())) if moved.size else (1.0, 1.0)

    def at(self, of_slot: Floats, limited: NDArray[np.bool_]) -> Scales:
        """The same filters with other scales; `of_slot` and `limited` have shape `(slots,)`."""
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
    """Compute the scale of every group.

    Args:
        trace: a walk over the model.
        layers: its layers of filters.
        measured: the statistic of each of them.
        target: the value to which statistics are brought; negative ones are brought to minus that.
        strength: the power to which statistics are raised.

    Raises:
        OptionError: if the target is not positive, or the strength is not finite.
    """
    if not (np.isfinite(target) and target > 0):
        raise OptionError(f"the target must be a positive number, not {target:g}")
    if not np.isfinite(strength):
        raise OptionError(f"the strength must be a finite number, not {strength:g}")
    sites = {
        layer.site: (layer.slots, entry.statistic, entry.dead | np.isnan(entry.statistic))
        for layer, entry in zip(layers, measured, strict=True)
    }
    of_group = _per_group(trace, list(sites.values()), target, strength)
    of_slot = of_group[trace.groups.of]
    of_slot[0] = 1.0
    return Scales(
        of_slot,
        tuple(
            LayerScales(
                layer,
                entry.statistic,
                entry.standard_error,
                of_slot[layer.slots],
                entry.dead,
                trace.groups.is_pinned(layer.slots),
                np.zeros(layer.channels, np.bool_),
            )
            for layer, entry in zip(layers, measured, strict=True)
        ),
    )


def count_dead(measured: Sequence[LayerStatistic]) -> int:
    """Number of dead filters in these layers."""
    return sum(int(entry.dead.sum()) for entry in measured)


def _per_group(
    trace: Trace, sites: list[tuple[Ids, Floats, NDArray[np.bool_]]], target: float, strength: float
) -> Floats:
    """The scale of every group `(groups,)`; a site is given by slots, statistics, and a mask of those to leave out."""
    found = trace.groups
    groups = np.concatenate([np.empty(0, np.int64), *(found.of[slots[~dead]] for slots, _, dead in sites)])
    live = np.abs(np.concatenate([np.empty(0), *(statistic[~dead] for _, statistic, dead in sites)])) ** strength
    members = np.bincount(groups, minlength=found.count)
    logs = np.bincount(groups, np.log(target / live), minlength=found.count)
    wishes = np.divide(logs, members, out=np.zeros(found.count), where=members > 0)
    members[found.pinned >= 0] = 0
    scale: Floats = np.exp(found.at(least_squares(found.basis, wishes, members)))
    alone = (members[groups] == 1) & (np.abs(scale[groups] * live / target - 1) < _ROUNDING)
    scale[groups[alone]] = target / live[alone]  # without the rounding error of exp(log())
    return scale
