"""What a ceiling reached: which values are still above it, and what keeps each of them there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxnorm.rewriting.ceiling.half import HalfBound
from onnxnorm.rewriting.ceiling.peaks import INFINITE
from onnxnorm.scaling import Groups, Trace
from onnxnorm.scaling.levels import Level
from onnxnorm.scaling.slots import ZERO

__all__ = ["AboveCeiling", "Ceiling", "ValuePeaks", "above_ceiling", "value_peaks"]

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class AboveCeiling:
    """A value that is above the ceiling after the rewrite: how large it is before and after, and why."""

    value: str
    before: float
    after: float
    reason: str


@dataclass(frozen=True)
class Ceiling:
    """What a ceiling reached.

    Attributes:
        ceiling: the largest magnitude that was asked for.
        values: number of floating-point values of the network.
        before: number of values above the ceiling before the rewrite.
        above: those above it after the rewrite, the largest first.
        infinite: number of values that are infinite on purpose, as masks are; they do not count as above it.
        moved: number of filters whose scale is not 1.
        lost: names of epsilons that become 0 in float16.
        proven: whether no other scales are known to do with fewer filters, or to reach more.
        higher: how many values each higher level would leave above it; empty if none is above it.
        level: the lowest level that reaches this.
    """

    ceiling: float
    values: int
    before: int
    above: tuple[AboveCeiling, ...] = field(repr=False)
    infinite: int
    moved: int
    lost: tuple[str, ...]
    proven: bool
    higher: Mapping[Level, int] = field(default_factory=dict)
    level: Level = "constants"

    def __str__(self) -> str:
        return (
            f"ceiling {self.ceiling:g}: {self.before:,} of {self.values:,} values were above it, {len(self.above):,} "
            f"are; {self.moved:,} filters moved"
        )

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "ceiling": self.ceiling,
            "values": self.values,
            "above_before": self.before,
            "above_after": len(self.above),
            "above": [vars(item) for item in self.above],
            "infinite": self.infinite,
            "moved": self.moved,
            "lost_epsilons": list(self.lost),
            "proven": self.proven,
            "higher_levels": dict(self.higher),
        }


@dataclass(frozen=True)
class ValuePeaks:
    """The largest magnitude of each group of slots that a value has; arrays have shape `(groups of the value,)`."""

    value: str
    groups: Integers = field(repr=False)
    peaks: Floats = field(repr=False)

    def after(self, exponents: Integers) -> Floats:
        """The largest magnitudes after a rewrite by these exponents `(groups,)`."""
        return np.ldexp(self.peaks, exponents[self.groups])


def value_peaks(traced: Trace, peaks: Mapping[str, Floats]) -> list[ValuePeaks]:
    """The largest magnitudes of all values by group; infinite ones are left out."""
    found = []
    for name, array in peaks.items():
        ids = traced.ids.get(name)
        if ids is None:
            continue
        rank = max(ids.ndim, array.ndim)
        slots, largest = np.broadcast_arrays(
            ids.reshape((1,) * (rank - ids.ndim) + ids.shape), array.reshape((1,) * (rank - array.ndim) + array.shape)
        )
        counts = (slots != ZERO) & (largest < INFINITE)
        groups, places = np.unique(traced.groups.of[slots[counts]], return_inverse=True)
        most = np.zeros(len(groups))
        np.maximum.at(most, places, largest[counts])
        found.append(ValuePeaks(name, groups, most))
    return found


def above_ceiling(
    traced: Trace, values: Sequence[ValuePeaks], exponents: Integers, ceiling: float, bounds: Sequence[HalfBound]
) -> tuple[AboveCeiling, ...]:
    """The values that are above a ceiling after a rewrite by these exponents `(groups,)`, the largest first."""
    left = []
    for item in values:
        after = item.after(exponents)
        over = after > ceiling
        if over.any():
            worst = int(after.argmax())
            reason = _reason(traced.groups, int(item.groups[worst]), exponents, values, ceiling, bounds)
            left.append(AboveCeiling(item.value, float(item.peaks.max()), float(after[worst]), reason))
    return tuple(sorted(left, key=lambda one: -one.after))


def _reason(
    groups: Groups,
    group: int,
    exponents: Integers,
    values: Sequence[ValuePeaks],
    ceiling: float,
    bounds: Sequence[HalfBound],
) -> str:
    """Why a group is not scaled down further: what pins it, or what would break if it was."""
    if groups.pinned[group] >= 0:
        barrier = groups.barriers[groups.pinned[group]]
        return f"{barrier.op} {barrier.node!r}: {barrier.reason}"
    mine = groups.basis[[group]]
    unknowns = mine.indices
    for bound in bounds:
        row = groups.basis[[bound.a]] - groups.basis[[bound.b]]
        against = float((row @ mine.T).toarray()[0, 0]) < 0
        if against and exponents[bound.a] - exponents[bound.b] >= bound.bound:
            return str(bound)
    for item in values:
        near = item.after(exponents) * 2 > ceiling
        for other in item.groups[near].tolist():
            row = groups.basis[[other]]
            if np.isin(row.indices, unknowns).any() and float((row @ mine.T).toarray()[0, 0]) < 0:
                return f"value {item.value!r}, which grows when this one shrinks, would be above the ceiling"
    return "it depends on others that cannot shrink further"
