"""The values above a ceiling, and what keeps each there: what would break if its group was scaled down further.

Groups are linear forms of the unknowns (`Groups.basis`). A form stands against a group if its product with the group's
is negative: it grows where the group shrinks. It stands in the way if one step of an unknown of both, which may count
several times, leaves no room. All forms are multiplied with a group at once, because there may be thousands.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from onnxnorm.rewriting.ceiling.half import HalfBound
from onnxnorm.rewriting.ceiling.outcome import AboveCeiling
from onnxnorm.rewriting.ceiling.peaks import ValuePeaks
from onnxnorm.scaling import Groups, Trace

__all__ = ["above_ceiling"]

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]


def above_ceiling(
    traced: Trace, values: Sequence[ValuePeaks], exponents: Integers, ceiling: float, bounds: Sequence[HalfBound]
) -> tuple[AboveCeiling, ...]:
    """The values that are above a ceiling after a rewrite by these exponents `(groups,)`, the largest first."""
    reasons, left = _Reasons(traced.groups, exponents, values, ceiling, bounds), []
    for item in values:
        after = item.after(exponents)
        over = after > ceiling
        if over.any():
            worst = int(after.argmax())
            reason = reasons.of(int(item.groups[worst]), item.value)
            left.append(AboveCeiling(item.value, float(item.peaks.max()), float(after[worst]), reason))
    return tuple(sorted(left, key=lambda one: -one.after))


class _Reasons:
    """Why groups are not scaled down further, after a choice of exponents `(groups,)`."""

    def __init__(
        self,
        groups: Groups,
        exponents: Integers,
        values: Sequence[ValuePeaks],
        ceiling: float,
        bounds: Sequence[HalfBound],
    ) -> None:
        self.groups, self.bounds = groups, bounds
        a, b = (np.asarray([getattr(bound, end) for bound in bounds], np.int64) for end in ("a", "b"))
        self.pairs = csr_array(groups.basis[a] - groups.basis[b])
        self.slack = np.asarray([bound.bound for bound in bounds], np.int64) - (exponents[a] - exponents[b])
        self.largest, self.names = _largest(values, exponents, groups.count)
        self.near = np.flatnonzero(self.largest > 0)
        self.forms = csr_array(groups.basis[self.near])
        self.room = np.log2(ceiling / self.largest[self.near])

    def of(self, group: int, value: str) -> str:
        """Why a group of a value is not scaled down further: what pins it, or what would break if it was."""
        groups = self.groups
        if groups.pinned[group] >= 0:
            barrier = groups.barriers[groups.pinned[group]]
            return f"{barrier.op} {barrier.node!r}: {barrier.reason}"
        mine = csr_array(groups.basis[[group]])
        against = np.flatnonzero(_steps(self.pairs, mine) > self.slack)
        if len(against):
            return str(self.bounds[against[0]])
        others = self.near[_steps(self.forms, mine) > self.room]
        if len(others):
            _, name = min(self.names[other] for other in others.tolist())
            if name == value:
                return "others of its channels, which grow when these shrink, would be above the ceiling"
            return f"value {name!r}, which grows when this one shrinks, would be above the ceiling"
        return "it depends on others that cannot shrink further"


def _largest(values: Sequence[ValuePeaks], exponents: Integers, count: int) -> tuple[Floats, list[tuple[int, str]]]:
    """The largest magnitude of each group after the rewrite, and the place and the name of the value that has it."""
    largest, names = np.zeros(count), [(-1, "")] * count
    for place, item in enumerate(values):
        after = item.after(exponents)
        for index in np.flatnonzero(after > largest[item.groups]).tolist():
            names[int(item.groups[index])] = (place, item.value)
        np.maximum.at(largest, item.groups, after)
    return largest, names


def _steps(forms: csr_array, mine: csr_array) -> Floats:
    """By how much each form grows at least if an unknown that it shares with another form shrinks that by a step.

    Minus infinity for those that do not grow.
    """
    grows = (forms @ mine.T).toarray().reshape(-1) < 0
    steps = np.full(len(grows), -np.inf)
    if grows.any():
        shared = abs(forms[np.flatnonzero(grows)][:, mine.indices])
        steps[grows] = shared.max(axis=1).toarray().reshape(-1)
    return steps
