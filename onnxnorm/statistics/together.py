"""Moments of many values whose channels lie side by side, so that those of two batches are added at once.

The range of a network has hundreds of values, most of them small. Added one by one they would take longer than some
networks run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from onnxnorm.statistics.moments import Moments, Totals, Value

__all__ = ["Layout", "Together", "image_count", "merge_totals"]

Layout = tuple[tuple[Value, int], ...]
"""Values, and how many channels each has."""


@dataclass(frozen=True)
class Together(Mapping[Value, Moments]):
    """The moments of values.

    Attributes:
        each: those that have moments of their own.
        every: the moments of all others, one behind the other.
        layout: which values those are.
    """

    each: Totals
    every: Moments
    layout: Layout = field(repr=False)

    def __getitem__(self, value: Value) -> Moments:
        place = self._places.get(value)
        return self.each[value] if place is None else self.every.part(place)

    def __iter__(self) -> Iterator[Value]:
        yield from self.each
        yield from (value for value, _ in self.layout)

    def __len__(self) -> int:
        return len(self.each) + len(self.layout)

    @cached_property
    def _places(self) -> dict[Value, slice]:
        places, end = {}, 0
        for value, width in self.layout:
            places[value] = slice(end, end := end + width)
        return places

    def plus(self, other: Together) -> Together:
        """The moments of the images of both, which have the same layout."""
        return Together(merge_totals(self.each, other.each), self.every + other.every, self.layout)


def merge_totals(totals: Totals, other: Totals) -> Totals:
    """Return the moments of the images of both; either may be empty."""
    if not totals or not other:
        return totals or other
    if isinstance(totals, Together) and isinstance(other, Together) and totals.layout == other.layout:
        return totals.plus(other)
    return {value: totals[value] + moments for value, moments in other.items()}


def image_count(totals: Totals) -> int:
    """Return the number of images that every value was measured on."""
    if isinstance(totals, Together):
        return min(totals.every.images, image_count(totals.each) if totals.each else totals.every.images)
    return min((moments.images for moments in totals.values()), default=0)
