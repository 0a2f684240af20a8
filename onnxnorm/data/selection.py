"""Selects samples. Each sample has an index, its position in DATA (a file, or a row of an array), counted from 0.

The shard I/N has the indices I, I + N, I + 2N, ...: shards with the same N are disjoint and together hold all samples,
whatever is in the files. `Ranges` compactly records which samples are done, by their places 0, 1, 2, ... along the
shard. A run that reads its data in order needs one range; samples that wait for a full batch, or that a worker has not
returned yet, leave a few gaps.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from operator import itemgetter

import numpy as np
from numpy.typing import NDArray

from onnxnorm.errors import OptionError

__all__ = ["Indices", "Ranges", "RowSelector", "Selection", "Shard", "all_rows", "stretches", "these_rows"]

Indices = NDArray[np.int64]

RowSelector = Callable[[int, int], Indices]
"""Maps `(start, stop)` to the indices of the selected samples in `[start, stop)`, ascending."""

# Indices are computed for a stretch of this many rows at a time.
_STRETCH = 65536


def all_rows(start: int, stop: int) -> Indices:
    """Select every sample in `[start, stop)`."""
    return np.arange(start, stop, dtype=np.int64)


def these_rows(rows: Indices) -> RowSelector:
    """Return a selector of the samples `rows`, which must be ascending."""
    return lambda start, stop: rows[np.searchsorted(rows, start) : np.searchsorted(rows, stop)]


def stretches(total: int, selected: RowSelector) -> Iterator[Indices]:
    """Yield the indices of the selected samples among `total`, one stretch at a time."""
    for start in range(0, total, _STRETCH):
        yield selected(start, min(start + _STRETCH, total))


@dataclass(frozen=True)
class Shard:
    """One of `count` disjoint parts of the samples: the one numbered `index`, from 0."""

    index: int = 0
    count: int = 1

    def __post_init__(self) -> None:
        if self.count < 1 or not 0 <= self.index < self.count:
            raise OptionError(f"--shard {self} does not exist; of N shards the first is 0/N and the last is N-1/N")

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Return the shard that `"I/N"` names. Raises OptionError if there is no such shard."""
        match = re.fullmatch(r"(\d+)/(\d+)", text.strip())
        if not match:
            raise OptionError(f"--shard {text!r} is not of the form I/N, such as 0/4 for the first of four")
        return cls(int(match[1]), int(match[2]))

    def size(self, total: int) -> int:
        """Number of samples in this shard, of `total` in all."""
        return len(range(self.index, total, self.count))


@dataclass(frozen=True)
class Ranges:
    """A set of integers, stored as ranges `(start, stop)` that are ascending, disjoint and not adjacent."""

    spans: tuple[tuple[int, int], ...] = ()

    def __len__(self) -> int:
        return sum(stop - start for start, stop in self.spans)

    def __contains__(self, place: int) -> bool:
        at = bisect_right(self.spans, (place, place)) - 1
        if at + 1 < len(self.spans) and self.spans[at + 1][0] == place:
            return True
        return at >= 0 and place < self.spans[at][1]

    def with_spans(self, spans: Iterable[tuple[int, int]]) -> Ranges:
        """Return the union with other ranges, found by bisection because there may be many ranges already."""
        joined = list(self.spans)
        for span in _united(spans):
            low = bisect_left(joined, span[0], key=itemgetter(1))
            high = bisect_right(joined, span[1], key=itemgetter(0))
            touched = [span, *joined[low:high]]
            joined[low:high] = [(min(start for start, _ in touched), max(stop for _, stop in touched))]
        return Ranges(tuple(joined))

    def with_places(self, places: Iterable[int]) -> Ranges:
        """Return the union with single integers."""
        return self.with_spans((place, place + 1) for place in places)

    def gaps(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """Yield the ranges of `[start, stop)` that are not in this set, ascending."""
        for begin, end in self.spans[max(0, bisect_right(self.spans, (start, start)) - 1) :]:
            if begin >= stop:
                break
            if start < begin:
                yield start, begin
            start = max(start, end)
        if start < stop:
            yield start, stop


def _united(spans: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the union as ranges that are ascending, disjoint, not adjacent and not empty."""
    united: list[tuple[int, int]] = []
    for start, stop in sorted(spans):
        if united and start <= united[-1][1]:
            united[-1] = (united[-1][0], max(stop, united[-1][1]))
        elif start < stop:
            united.append((start, stop))
    return united


@dataclass(frozen=True)
class Selection:
    """The samples of a shard that are not done yet.

    Attributes:
        shard: the shard.
        done: places along the shard of the samples that are done.
        measured: how many of these were measured; they count towards `--limit`.
        unusable: how many of these could not be used.
    """

    shard: Shard = Shard()
    done: Ranges = Ranges()
    measured: int = 0
    unusable: int = 0

    def among(self, start: int, stop: int) -> Indices:
        """Return the indices of the shard in `[start, stop)` that are not done, ascending."""
        parts = [np.arange(a, b, dtype=np.int64) for a, b in self.done.gaps(*self._places(start, stop))]
        return np.concatenate([np.empty(0, np.int64), *parts]) * self.shard.count + self.shard.index

    def shifted(self, offset: int) -> RowSelector:
        """Return the selector for a reader whose first sample has the index `offset`."""
        return lambda start, stop: self.among(start + offset, stop + offset) - offset

    def place(self, index: int) -> int:
        """Return the place along the shard of a sample, by its index."""
        return (index - self.shard.index) // self.shard.count

    def has_done(self, start: int, stop: int) -> bool:
        """Whether any sample of the shard in `[start, stop)` is done."""
        low, high = self._places(start, stop)
        return sum(end - begin for begin, end in self.done.gaps(low, high)) < high - low

    def done_among(self, start: int, stop: int) -> Indices:
        """Return the indices of the shard in `[start, stop)` that are done, ascending."""
        low, high = self._places(start, stop)
        is_done = np.ones(high - low, np.bool_)
        for begin, end in self.done.gaps(low, high):
            is_done[begin - low : end - low] = False
        return (np.flatnonzero(is_done) + low) * self.shard.count + self.shard.index

    def _places(self, start: int, stop: int) -> tuple[int, int]:
        """Return the range of places along the shard of the indices in `[start, stop)`."""
        low, high = (max(0, -(-(edge - self.shard.index) // self.shard.count)) for edge in (start, stop))
        return low, high
