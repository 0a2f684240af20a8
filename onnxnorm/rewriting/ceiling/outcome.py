"""What a ceiling reached: which values are still above it, and what keeps each of them there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxnorm.scaling.levels import Level

__all__ = ["AboveCeiling", "Ceiling"]

Integers = NDArray[np.int64]


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
