"""Histograms of the magnitudes of activations per channel, and percentiles computed from them.

The bin of a number is given by the leading bits of its float32 representation: the exponent and the first `BITS` bits
of the mantissa, extracted with a shift. So every octave is cut into `2**BITS` bins of equal width. This needs neither
logarithms nor a range to be set beforehand; a number falls into the same bin on every machine, and counts are integers,
whose sums do not depend on the order. A bin is at most `WIDTH` = 1/32 of its lower edge wide.

A percentile is an order statistic: the smallest magnitude such that at least the given share of all magnitudes do not
exceed it (NumPy's `inverted_cdf`). It lies in the bin in which the cumulative count reaches its rank, so the value,
which is interpolated linearly in that bin, has a relative error below `WIDTH`, and a far smaller one where the bin
holds many numbers. Numbers below `SMALLEST` count as 0. Zeros may be left out: then it is that of the other numbers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["BITS", "SMALLEST", "WIDTH", "Histogram"]

BITS = 5
WIDTH = 2.0**-BITS
SMALLEST = 2.0**-64

_BIAS, _MANTISSA = 127, 23  # of float32
_FIRST = (_BIAS - 64) << BITS  # the bin that starts at SMALLEST
_INFINITE = (2 * _BIAS + 1) << BITS  # the bins of infinities and NaN start here
_BLOCK = 1 << 16  # how many numbers are counted at once: they and their bins fit into the processor's cache
_FEW, _MOST = 1 << 32, 1 << 62

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Histogram:
    """Counts of the magnitudes of one value.

    The bins run from the first to the last one in which any channel has a number, and counts are uint32 for fewer than
    2^32 positions, else uint64. So equal data make equal histograms, in whatever order they were added.

    Attributes:
        positions: how many numbers of each channel were counted.
        start: the number of the first bin.
        counts: how many of these numbers fell into the bins `start`, `start + 1`, ..., shape `(channels, bins)`; the
            rest were 0.
    """

    positions: int
    start: int
    counts: NDArray[Any] = field(repr=False)

    @classmethod
    def of(cls, values: NDArray[np.float32]) -> Histogram:
        """Count values of shape `(rows, channels, positions)`. Raises OverflowError if one is not finite."""
        rows, channels, positions = values.shape
        bits = values.view(np.uint32)
        step = max(1, _BLOCK // max(1, rows * positions))
        blocks = [_counted(bits[:, start : start + step]) for start in range(0, channels, step)]
        wide = np.zeros((channels, max(block.shape[1] for block in blocks)), _counter(rows * positions))
        for index, block in enumerate(blocks):
            wide[index * step : index * step + len(block), : block.shape[1]] = block
        return cls._trimmed(rows * positions, _FIRST, wide[:, 1:])

    @classmethod
    def _trimmed(cls, positions: int, start: int, counts: NDArray[Any]) -> Histogram:
        """Return the histogram without empty bins at its ends."""
        used = np.flatnonzero(counts.any(axis=0))
        if not used.size:
            return cls(positions, _FIRST, counts[:, :0].copy())
        first, last = int(used[0]), int(used[-1])
        return cls(positions, start + first, counts[:, first : last + 1].copy())

    def __add__(self, other: Histogram) -> Histogram:
        """Return the histogram of the numbers of both."""
        positions = self.positions + other.positions
        parts = [part for part in (self, other) if part.counts.size] or [self]
        start = min(part.start for part in parts)
        stop = max(part.start + part.counts.shape[1] for part in parts)
        counts = np.zeros((self.channels, stop - start), _counter(positions))
        for part in parts:
            counts[:, part.start - start :][:, : part.counts.shape[1]] += part.counts
        return Histogram(positions, start, counts)

    @property
    def channels(self) -> int:
        """Number of channels."""
        return len(self.counts)

    @property
    def zeros(self) -> NDArray[np.int64]:
        """How many numbers of each channel were 0, shape `(channels,)`."""
        return np.asarray(self.positions - self.counts.sum(axis=1, dtype=np.int64), np.int64)

    def percentile(self, percent: str | int, *, nonzero: bool = False) -> Floats:
        """Return the magnitude that this many per cent of the numbers of each channel do not exceed.

        Args:
            percent: a whole number, or a decimal fraction as text such as "99.9", so that the rank is exact.
            nonzero: whether only numbers that are not 0 count.

        Returns:
            The percentiles, shape `(channels,)`; 0 for a channel of zeros.
        """
        share = Fraction(percent) / 100
        left_out = self.zeros if nonzero else np.zeros(self.channels, np.int64)
        of_rest = (max(1, math.ceil(count * share)) for count in (self.positions - left_out).tolist())
        rank = left_out + np.fromiter(of_rest, np.int64, self.channels)  # among all numbers, the zeros first
        reached = np.cumsum(self.counts, axis=1, dtype=np.int64) + self.zeros[:, np.newaxis]
        index = (reached < rank[:, np.newaxis]).sum(axis=1)
        above = np.flatnonzero((rank > self.zeros) & (self.zeros < self.positions))
        result = np.zeros(self.channels)
        at = index[above]
        count = self.counts[above, at].astype(np.float64)
        before = reached[above, at] - self.counts[above, at].astype(np.int64)
        low, high = _edges(self.start + at), _edges(self.start + at + 1)
        result[above] = low + (high - low) * (rank[above] - before - 0.5) / count
        return result

    def pooled(self) -> Histogram:
        """Return the histogram of the numbers of all channels, as those of one."""
        positions = self.positions * self.channels
        return Histogram(positions, self.start, self.counts.sum(axis=0, keepdims=True, dtype=_counter(positions)))

    def check(self) -> None:
        """Raise ValueError if the counts are not possible for any numbers."""
        stop = self.start + self.counts.shape[1] if self.counts.ndim == 2 else -1
        if not (self.counts.dtype.kind == "u" and _FIRST <= self.start <= stop <= _INFINITE):
            raise ValueError("the bins of a histogram are not those of float32 numbers")
        if not (1 <= self.positions < _MOST and (self.counts.sum(axis=1, dtype=np.uint64) <= self.positions).all()):
            raise ValueError("the counts of a histogram do not add up")

    def narrow(self) -> NDArray[Any]:
        """Return the counts in the smallest unsigned type that holds them all, for a file."""
        return self.counts.astype(np.min_scalar_type(int(self.counts.max(initial=0))))

    @classmethod
    def widened(cls, positions: int, start: int, counts: NDArray[Any]) -> Histogram:
        """Return the histogram of counts from `narrow`. Raises ValueError if they are not possible for any numbers."""
        cls(positions, start, counts).check()
        return cls(positions, start, counts.astype(_counter(positions)))


def _counted(bits: NDArray[np.uint32]) -> NDArray[np.intp]:
    """Count numbers `(rows, channels, positions)`; in the result `(channels, 1 + bins)`, column 0 counts zeros."""
    keys = np.left_shift(bits, np.uint32(1), order="C")  # drops the sign
    keys >>= np.uint32(_MANTISSA - BITS + 1)
    np.maximum(keys, np.uint32(_FIRST - 1), out=keys)
    keys -= np.uint32(_FIRST - 1)
    channels, width = keys.shape[1], int(keys.max(initial=0)) + 1
    if width > _INFINITE - _FIRST + 1:
        raise OverflowError("a number is not finite")
    keys += (np.arange(channels, dtype=np.uint32) * np.uint32(width))[:, np.newaxis]
    return np.bincount(keys.reshape(-1), minlength=channels * width).reshape(channels, width)


def _counter(positions: int) -> type[np.uint32] | type[np.uint64]:
    """Return the dtype for counts up to `positions`."""
    return np.uint32 if positions < _FEW else np.uint64


def _edges(bins: NDArray[np.intp]) -> Floats:
    """Return the lower edges of bins, by their numbers."""
    octave, part = np.divmod(bins, 1 << BITS)
    return np.asarray(np.ldexp(1.0 + part * WIDTH, octave - _BIAS), np.float64)
