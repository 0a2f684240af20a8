"""From the outputs of a probe to the largest magnitude of every channel of every value, for each sample."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxnorm.calibration.joint import Outputs, rows_of
from onnxnorm.calibration.links import Link
from onnxnorm.calibration.parts import Extremes
from onnxnorm.calibration.rising import Floats
from onnxnorm.statistics.measures import PEAK
from onnxnorm.statistics.moments import Moments, Value
from onnxnorm.statistics.together import Layout

__all__ = ["PeakTap", "layout_of", "peak_moments"]

_AT_ONCE = 1 << 16  # numbers
_INFINITE = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class PeakTap:
    """A value, and where the extremes of its channels come from.

    Attributes:
        value: name of the value.
        channels: number of channels.
        high: name of the output of the probe that holds the largest numbers; empty if the value is not measured.
        low: name of the one with the smallest numbers; empty where they are not negative. The same as `high` where each
            channel has one number, and where one output holds both (`negated`).
        by_sample: whether the first axis of the outputs holds samples, or several rows of each.
        negated: whether the output holds the largest numbers, and behind them those of the value's negative.
        link: how its extremes follow from those of other values; None if it is measured.
    """

    value: str
    channels: int
    high: str
    low: str
    by_sample: bool
    negated: bool = False
    link: Link | None = None

    @property
    def outputs(self) -> tuple[tuple[str, int], ...]:
        """The outputs of the probe, and how many numbers each has in a row."""
        both = ((self.high, self.channels * (1 + self.negated)), (self.low, self.channels))
        return both[: 1 + (self.low not in {"", self.high})]

    def extremes(self, results: Outputs, batch: int) -> Extremes:
        """The largest and the smallest numbers of each sample of a batch, both `(samples, channels)`.

        Args:
            results: the outputs of the probe by name.
            batch: number of samples in the batch.
        """
        high = self._rows(results[self.high], batch).max(axis=1, initial=-_INFINITE)
        low = np.zeros_like(high)
        if self.negated:
            high, low = high[:, : self.channels], -high[:, self.channels :]
        elif self.low:
            low = self._rows(results[self.low], batch).min(axis=1, initial=_INFINITE)
        if not self.by_sample:
            high, low = (np.broadcast_to(part, (batch, self.channels)) for part in (high, low))
        return high, low

    def _rows(self, result: NDArray[Any], batch: int) -> Floats:
        """An output as `(samples, rows, channels)`, of one sample if it has none."""
        width = self.channels * (1 + self.negated)
        rows = np.asarray(result, np.float64).reshape(-1, width)
        return rows_of(rows, batch if self.by_sample else 1, self.value)


def layout_of(taps: Sequence[PeakTap]) -> Layout:
    """The values in the order of the taps, with their numbers of channels."""
    return tuple((Value(tap.value, PEAK), tap.channels) for tap in taps)


def peak_moments(taps: Sequence[PeakTap], results: Outputs, count: int, batch: int) -> Moments:
    """The moments of the peaks of the first `count` samples of a batch, the channels of all taps one behind the other.

    Each sample counts the same.
    """
    known = _measured([tap for tap in taps if tap.link is None], results, batch)
    links = {tap.value: tap.link for tap in taps if tap.link is not None}
    with np.errstate(over="ignore", invalid="ignore"):  # infinity counts as the largest number
        for value in links:
            _follow(value, known, links)
    return Moments.beside([_of_peaks([known[tap.value] for tap in some], count) for some in _pieces(taps, batch)])


def _of_peaks(known: Sequence[Extremes], count: int) -> Moments:
    """The moments of the larger magnitudes of extremes, of the first `count` samples."""
    highs, lows = zip(*known, strict=True)
    peaks, smallest = np.concatenate(highs, axis=1)[:count], np.concatenate(lows, axis=1)[:count]
    np.maximum(peaks, np.negative(smallest, out=smallest), out=peaks)
    np.maximum(peaks, 0.0, out=peaks)
    if not peaks.max(initial=0.0) <= _INFINITE:
        np.copyto(peaks, _INFINITE, where=~(peaks <= _INFINITE))
    return Moments.of_peaks(peaks)


def _pieces(taps: Sequence[PeakTap], batch: int) -> Iterator[list[PeakTap]]:
    """Taps whose numbers together are as many as can be joined in memory that is at hand: new memory is slow."""
    piece, size = list[PeakTap](), 0
    for tap in taps:
        own = tap.channels * batch
        if piece and size + own > _AT_ONCE:
            yield piece
            piece, size = [], 0
        piece.append(tap)
        size += own
    if piece:
        yield piece


def _measured(taps: Sequence[PeakTap], results: Outputs, batch: int) -> dict[str, Extremes]:
    """The extremes of what is measured, by the names of the values."""
    joined = [tap for tap in taps if tap.high in results.joint.places]
    known = {name: found for some in _pieces(joined, batch) for name, found in _joined(some, results)}
    return known | {tap.value: tap.extremes(results, batch) for tap in taps if tap.value not in known}


def _joined(taps: Sequence[PeakTap], results: Outputs) -> Iterator[tuple[str, Extremes]]:
    """The extremes of joined outputs that are neighbours, by the names of their values."""
    places = results.joint.places
    start, stop = places[taps[0].high].start, max(places[name].stop for name in (taps[-1].high, taps[-1].low) if name)
    numbers = results.joined[:, start:stop].astype(np.float64)
    negative = -numbers if any(tap.negated for tap in taps) else numbers
    nothing = np.zeros((len(numbers), max(tap.channels for tap in taps)))
    for tap in taps:
        first = places[tap.high].start - start
        middle = first + tap.channels
        low = nothing[:, : tap.channels]
        if tap.negated:
            low = negative[:, middle : middle + tap.channels]
        elif tap.low:
            low = numbers[:, (own := places[tap.low].start - start) : own + tap.channels]
        yield tap.value, (numbers[:, first:middle], low)


def _follow(value: str, known: dict[str, Extremes], links: Mapping[str, Link]) -> None:
    """Make the extremes of a value known, which follow by links; all on the way become known."""
    waiting = [value]
    while waiting:
        name = waiting[-1]
        missing = [] if name in known else [source for source in links[name].sources if source not in known]
        if missing:
            waiting += missing
            continue
        waiting.pop()
        if name not in known:
            known[name] = links[name].follow([known[source] for source in links[name].sources])
