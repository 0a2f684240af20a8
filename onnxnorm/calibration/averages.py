"""The averages of a batch, from what a probe returns: those of many small values at once.

Every operation of NumPy has a price, which a small network notices. Values of which samples have as many rows and
positions are concatenated along their channels, and averaged together; most leave the runtime that way (`joint`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxnorm.calibration.joint import Columns, Joint, Outputs
from onnxnorm.calibration.taps import Positions, Tap
from onnxnorm.errors import ModelError

__all__ = ["Averages", "Spreads", "averages_of", "rows_of"]


@dataclass(frozen=True)
class Group:
    """Joined values of which a sample has as many positions.

    Attributes:
        places: which taps measured the values.
        widths: how many channels each value has.
        spread: the positions of each sample.
        means: where the joint output holds their means,
        signed: where these are of positive parts, the means of the values themselves,
        largest: and their largest magnitudes, if these are measured.
    """

    places: tuple[int, ...]
    widths: tuple[int, ...]
    spread: Positions
    means: Columns = field(repr=False)
    signed: Columns | None = field(repr=False)
    largest: Columns | None = field(repr=False)

    def averages(self, joined: NDArray[Any]) -> Averages:
        """The averages that some rows of the joint output hold."""
        means = joined[:, self.means].astype(np.float64)
        if self.signed is not None:
            means = 2 * means - joined[:, self.signed]
        largest = None if self.largest is None else joined[:, self.largest].max(axis=0, initial=0).astype(np.float64)
        return Averages(self.places, self.widths, 1, self.spread, means * self.spread.factor, largest)


@dataclass(frozen=True)
class Spreads:
    """The positions of each tap, None if only a run tells the shape, and the groups of those that are joined."""

    each: tuple[Positions | None, ...]
    groups: tuple[Group, ...] = field(default=(), repr=False)

    @classmethod
    def of(cls, taps: Sequence[Tap], each: Sequence[Positions | None], joint: Joint) -> Spreads:
        """Find the groups of taps with these positions."""
        alike = dict[tuple[Positions, bool, bool], list[int]]()
        for place, (tap, spread) in enumerate(zip(taps, each, strict=True)):
            if tap.mean in joint.places and spread is not None:
                alike.setdefault((spread, bool(tap.signed), bool(tap.largest)), []).append(place)
        groups = []
        for (spread, *_), places in alike.items():
            names = zip(*((taps[place].mean, taps[place].signed, taps[place].largest) for place in places), strict=True)
            means, signed, largest = (joint.columns(some) if some[0] else None for some in names)
            assert means is not None
            widths = joint.widths([taps[place].mean for place in places])
            groups.append(Group(tuple(places), widths, spread, means, signed, largest))
        return cls(tuple(each), tuple(groups))

    @cached_property
    def alone(self) -> tuple[tuple[int, Positions | None], ...]:
        """The place of each tap that is in no group, and its positions."""
        grouped = {place for group in self.groups for place in group.places}
        return tuple((place, spread) for place, spread in enumerate(self.each) if place not in grouped)


@dataclass(frozen=True)
class Averages:
    """The means over positions of each sample, of values of which samples have as many rows and positions.

    Attributes:
        places: which taps measured the values.
        widths: how many channels each value has.
        rows: rows of each sample.
        spread: the positions of each sample.
        means: the means, one value behind the other, shape `(samples, channels)`; 0 without rows.
        largest: the largest magnitudes in all samples, `(channels,)`; None if they were not measured.
    """

    places: tuple[int, ...]
    widths: tuple[int, ...]
    rows: int
    spread: Positions
    means: NDArray[np.float64] = field(repr=False)
    largest: NDArray[np.float64] | None = field(default=None, repr=False)

    def each(self) -> Iterator[tuple[int, NDArray[np.float64]]]:
        """The place of each tap, and the means that it measured, shape `(samples, width)`."""
        yield from zip(self.places, np.split(self.means, np.cumsum(self.widths)[:-1], axis=1), strict=True)


def averages_of(taps: Sequence[Tap], results: Outputs, spreads: Spreads, count: int, batch: int) -> list[Averages]:
    """The averages of the first `count` samples of a batch, each value in one of them.

    Args:
        taps: what was measured.
        results: the outputs of the probe by name.
        spreads: the positions of each tap.
        count: number of samples that are counted.
        batch: number of samples in the batch.

    Raises:
        ModelError: if the first axis of a value is not the batch.
    """
    found = [group.averages(results.joined[:count]) for group in spreads.groups]
    rows, groups = dict[int, NDArray[Any]](), dict[tuple[int, float, int, int, bool], list[int]]()
    for place, spread in spreads.alone:
        tap = taps[place]
        known = spread or tap.spread(tuple(results[tap.shape].tolist()), batch)
        array = rows_of(_averages(tap, results), batch, tap.site.value)[:count]
        rows[place] = array
        single = array.shape[1] > 1 and array.shape[2] == 1  # column, which NumPy sums in another order
        key = (known.positions, known.factor, array.shape[1], place if single else -1, bool(tap.largest))
        groups.setdefault(key, []).append(place)
    for (positions, factor, each, *_), places in groups.items():
        arrays = [rows[place] for place in places]
        means = _means(np.concatenate(arrays, axis=2) if len(arrays) > 1 else arrays[0])
        widths = tuple(array.shape[2] for array in arrays)
        largest = _largest([taps[place] for place in places], results, count, batch)
        found.append(Averages(tuple(places), widths, each, Positions(positions, factor), means * factor, largest))
    return found


def rows_of(result: NDArray[Any], batch: int, value: str) -> NDArray[Any]:
    """Return an output as `(batch, k, channels)`: k rows for each sample. Raises ModelError if that does not fit."""
    channels = math.prod(result.shape[1:])
    if result.shape[0] % batch:
        raise ModelError(
            f"value {value!r} has {result.shape[0]} rows for {batch} samples: its first axis is not the batch"
        )
    return result.reshape(batch, result.shape[0] // batch, channels)


def _averages(tap: Tap, results: Outputs) -> NDArray[Any]:
    """The mean of a tap: an output, or computed of two."""
    mean = results[tap.mean]
    return 2 * mean.astype(np.float64) - results[tap.signed] if tap.signed else mean


def _means(rows: NDArray[Any]) -> NDArray[np.float64]:
    """Return the means over the rows of each sample, `(batch, channels)`; 0 without rows."""
    if rows.shape[1] == 1:
        return rows[:, 0].astype(np.float64)
    return np.asarray(rows.mean(axis=1, dtype=np.float64) if rows.shape[1] else np.zeros((len(rows), rows.shape[2])))


def _largest(taps: Sequence[Tap], results: Outputs, count: int, batch: int) -> NDArray[np.float64] | None:
    """The largest magnitude of each channel of these taps, one behind the other; 0 without rows."""
    if not taps[0].largest:
        return None
    rows = (rows_of(results[tap.largest], batch, tap.site.value)[:count] for tap in taps)
    return np.concatenate([part.max(axis=(0, 1), initial=0.0) for part in rows]).astype(np.float64)
