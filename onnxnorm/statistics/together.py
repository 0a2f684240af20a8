"""Moments of many values whose channels lie side by side, so that those of two batches are added at once.

A network has hundreds of values, most of them small. Added one by one they would take longer than some networks run.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

from onnxnorm.statistics.moments import Moments, Totals, Value

__all__ = ["Block", "Layout", "Together", "blocks_of", "image_count", "merge_totals", "sums_of", "without"]

Layout = tuple[tuple[Value, int], ...]
"""Values, and how many channels each has."""


@dataclass(frozen=True)
class Block:
    """The moments of values that were measured on the same images and with the same weights, one behind the other."""

    layout: Layout = field(repr=False)
    moments: Moments


@dataclass(frozen=True)
class Together(Mapping[Value, Moments]):
    """The moments of values.

    Attributes:
        each: those that have moments of their own.
        blocks: those of all others.
        order: all values, in the order in which they are listed.
        largest: where the largest magnitudes of some values are found: in the moments of others with as many channels.
    """

    each: Totals
    blocks: tuple[Block, ...]
    order: tuple[Value, ...] = field(repr=False)
    largest: Mapping[Value, Value] = field(default_factory=dict, repr=False)

    def __getitem__(self, value: Value) -> Moments:
        moments, other = self._own(value), self.largest.get(value)
        if other is None or moments.largest is not None:
            return moments
        found = self._own(other)
        return replace(moments, largest=found.largest) if found.channels == moments.channels else moments

    def _own(self, value: Value) -> Moments:
        place = self._places.get(value)
        return self.each[value] if place is None else place[0].part(place[1])

    def __iter__(self) -> Iterator[Value]:
        yield from self.order

    def __len__(self) -> int:
        return len(self.order)

    @cached_property
    def _places(self) -> dict[Value, tuple[Moments, slice]]:
        places = {}
        for block in self.blocks:
            end = 0
            for value, width in block.layout:
                places[value] = block.moments, slice(end, end := end + width)
        return places

    def alike(self, other: Together) -> bool:
        """Whether both have the same values in the same blocks."""
        mine, theirs = ([block.layout for block in one.blocks] for one in (self, other))
        return mine == theirs and self.order == other.order and self.largest == other.largest

    def plus(self, other: Together) -> Together:
        """The moments of the images of both, which have the same layouts."""
        pairs = zip(self.blocks, other.blocks, strict=True)
        blocks = tuple(Block(mine.layout, mine.moments + theirs.moments) for mine, theirs in pairs)
        return Together(merge_totals(self.each, other.each), blocks, self.order, self.largest)


def blocks_of(totals: Totals) -> Iterator[Block]:
    """The moments of all values, in as few blocks as they are in; each block has at least one value."""
    each = totals
    if isinstance(totals, Together):
        yield from totals.blocks
        each = totals.each
    yield from (Block(((value, moments.channels),), moments) for value, moments in each.items())


def sums_of(totals: Totals, measures: Collection[str]) -> Totals:
    """The moments of some measures without histograms, which would take most of the memory.

    Blocks that hold others as well are kept whole.
    """
    if isinstance(totals, Together) and not totals.each:
        blocks = tuple(block for block in totals.blocks if any(value.measure in measures for value, _ in block.layout))
        return Together({}, blocks, tuple(value for value in totals.order if value.measure in measures))
    return {value: replace(totals[value], histogram=None) for value in totals if value.measure in measures}


def without(totals: Totals, before: Totals, after: Totals) -> Totals:
    """The moments without the images that were measured between two points of the same run.

    Args:
        totals: those of all images.
        before: those at the first point; empty for the start of the run.
        after: those at the second point.
    """
    if isinstance(totals, Together) and isinstance(after, Together) and totals.alike(after):
        earlier = before.blocks if isinstance(before, Together) and before.alike(after) else None
        if earlier is not None or not before:
            starts = [block.moments for block in earlier] if earlier else [None] * len(after.blocks)
            parts = zip(totals.blocks, starts, after.blocks, strict=True)
            blocks = tuple(Block(own.layout, own.moments.without(start, end.moments)) for own, start, end in parts)
            return replace(totals, blocks=blocks)
    return {value: totals[value].without(before.get(value), moments) for value, moments in after.items()}


def merge_totals(totals: Totals, other: Totals) -> Totals:
    """Return the moments of the images of both; either may be empty."""
    if not totals or not other:
        return totals or other
    if isinstance(totals, Together) and isinstance(other, Together) and totals.alike(other):
        return totals.plus(other)
    return {value: totals[value] + moments for value, moments in other.items()}


def image_count(totals: Totals) -> int:
    """Return the number of images that every value was measured on."""
    if isinstance(totals, Together):
        counts = [block.moments.images for block in totals.blocks]
        return min([*counts, image_count(totals.each)] if totals.each else counts, default=0)
    return min((moments.images for moments in totals.values()), default=0)
