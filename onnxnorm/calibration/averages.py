"""The averages of a batch, from what a probe returns: those of many small values at once.

Every operation of NumPy has a price, which a small network notices, and so has every pass over the numbers. So all
means stand side by side in one array; most leave the runtime that way (`joint`). Values whose samples have
the same number of rows and of positions are a group, whose samples have the same weight.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import accumulate, groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxnorm.calibration.joint import Columns, Joint, Outputs, rows_of
from onnxnorm.calibration.taps import Positions, Tap

__all__ = ["Averages", "Spreads", "averages_of"]


@dataclass(frozen=True)
class Group:
    """Values whose samples have the same number of rows and of positions.

    Attributes:
        places: which taps measured the values.
        widths: how many channels each value has.
        spread: the positions of each sample.
        rows: rows of each sample.
        largest: the largest magnitudes in all samples, `(channels,)`; None if they were not measured.
    """

    places: tuple[int, ...]
    widths: tuple[int, ...]
    spread: Positions
    rows: int = 1
    largest: NDArray[np.float64] | None = field(default=None, repr=False)

    @property
    def width(self) -> int:
        """Number of channels of all values."""
        return sum(self.widths)


@dataclass(frozen=True)
class Averages:
    """The means over positions of each sample.

    Attributes:
        means: the means, one value behind the other, shape `(samples, channels)`; 0 without rows.
        groups: the values, in the order of their channels.
    """

    means: NDArray[np.float64] = field(repr=False)
    groups: tuple[Group, ...]

    def each(self) -> Iterator[tuple[int, NDArray[np.float64]]]:
        """The place of each tap, and the means that it measured, shape `(samples, width)`."""
        places = [place for group in self.groups for place in group.places]
        ends = list(accumulate(width for group in self.groups for width in group.widths))
        yield from zip(places, np.split(self.means, ends[:-1], axis=1), strict=True)


@dataclass(frozen=True)
class Joined:
    """The values whose means are in the joint output, and where it holds them.

    Attributes:
        groups: the values, those at the end of which the means are computed of two outputs.
        means: where their means are.
        signed: where those at the end are of positive parts, the means of the values themselves.
        largest: where the largest magnitudes of the values of a group are; None if these are not measured.
        factors: what means are multiplied by, shape `(channels,)`.
    """

    groups: tuple[Group, ...]
    means: Columns = field(repr=False)
    signed: Columns | None = field(repr=False)
    largest: tuple[Columns | None, ...] = field(repr=False)
    factors: NDArray[np.float64] = field(repr=False)

    @classmethod
    def of(cls, taps: Sequence[Tap], each: Sequence[Positions | None], joint: Joint) -> Joined | None:
        """Find the joined values; None if there are none."""
        known = [(place, tap, spread) for place, (tap, spread) in enumerate(zip(taps, each, strict=True)) if spread]
        inside = [entry for entry in known if entry[1].mean in joint.places]
        inside.sort(key=lambda entry: (bool(entry[1].signed), joint.places[entry[1].mean].start))
        if not inside:
            return None
        groups, largest = list[Group](), list[Columns | None]()
        for (spread, _, measured), some in groupby(
            inside, key=lambda entry: (entry[2], bool(entry[1].signed), bool(entry[1].largest))
        ):
            places, own, _ = zip(*some, strict=True)
            groups.append(Group(places, joint.widths([tap.mean for tap in own]), spread))
            largest.append(joint.columns([tap.largest for tap in own]) if measured else None)
        signed = [tap.signed for _, tap, _ in inside if tap.signed]
        return cls(
            groups=tuple(groups),
            means=joint.columns([tap.mean for _, tap, _ in inside]),
            signed=joint.columns(signed) if signed else None,
            largest=tuple(largest),
            factors=np.repeat([group.spread.factor for group in groups], [group.width for group in groups]),
        )

    def averages(self, rows: NDArray[Any]) -> Averages:
        """The averages that some rows of the joint output hold."""
        means = rows[:, self.means].astype(np.float64)
        if self.signed is not None:
            signed = rows[:, self.signed]
            halves = means[:, -signed.shape[1] :]
            halves *= 2
            halves -= signed
        means *= self.factors
        return Averages(
            means,
            tuple(
                group if columns is None else replace(group, largest=_most(rows[:, columns]))
                for group, columns in zip(self.groups, self.largest, strict=True)
            ),
        )


@dataclass(frozen=True)
class Spreads:
    """The positions of each tap, None if only a run tells the shape, and those of the values that are joined."""

    each: tuple[Positions | None, ...]
    joined: Joined | None = field(default=None, repr=False)

    @classmethod
    def of(cls, taps: Sequence[Tap], each: Sequence[Positions | None], joint: Joint) -> Spreads:
        """Find the groups of taps with these positions."""
        return cls(tuple(each), Joined.of(taps, each, joint))

    @cached_property
    def alone(self) -> tuple[tuple[int, Positions | None], ...]:
        """The place of each tap that is not joined, and its positions."""
        groups = () if self.joined is None else self.joined.groups
        grouped = {place for group in groups for place in group.places}
        return tuple((place, spread) for place, spread in enumerate(self.each) if place not in grouped)


def averages_of(taps: Sequence[Tap], results: Outputs, spreads: Spreads, count: int, batch: int) -> Averages:
    """The averages of the first `count` samples of a batch.

    Args:
        taps: what was measured.
        results: the outputs of the probe by name.
        spreads: the positions of each tap.
        count: number of samples that are counted.
        batch: number of samples in the batch.

    Raises:
        ModelError: if the first axis of a value is not the batch.
    """
    found = [] if spreads.joined is None else [spreads.joined.averages(results.joined[:count])]
    found += _alone(taps, results, spreads, count, batch)
    if len(found) == 1:
        return found[0]
    means = np.concatenate([part.means for part in found], axis=1) if found else np.zeros((count, 0))
    return Averages(means, tuple(group for part in found for group in part.groups))


def _alone(taps: Sequence[Tap], results: Outputs, spreads: Spreads, count: int, batch: int) -> Iterator[Averages]:
    """The averages of the taps that are not joined, those that are alike together."""
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
        group = Group(tuple(places), widths, Positions(positions, factor), each, largest)
        yield Averages(means * factor, (group,))


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


def _most(rows: NDArray[Any]) -> NDArray[np.float64]:
    return np.asarray(rows.max(axis=0, initial=0), np.float64)
