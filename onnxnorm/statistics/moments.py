"""Mergeable moments of per-image means, as plain data.

For channel c of a measured value, image i contributes its mean `m[i, c]` over the positions of that image, with a
weight `w[i]`: the number of positions, so that the weighted mean is the mean over all images *and positions* (or 1, so
that all images count the same). Only sums are stored, in float64, so batches, shards and runs can be added in any
order::

    mean = Σ w m / Σ w          variance of the mean = n / (n - 1) * Σ w² (m - mean)² / (Σ w)²

Source: the standard error of a ratio of sums over independent images; Cochran, Sampling Techniques, 1977, section 6.4.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxnorm.errors import StatisticsError
from onnxnorm.statistics.histograms import Histogram

__all__ = ["Moments", "Totals", "Value", "stand_out"]

Floats = NDArray[np.float64]

_NOISE = float(np.finfo(np.float32).eps)
_SMALLEST = float(np.finfo(np.float32).tiny)
_LARGEST = float(np.finfo(np.float64).max)  # what infinity counts as


def stand_out(values: Floats) -> NDArray[np.bool_]:
    """Return which of a layer's numbers `(channels,)` stand out from 0 and from the rounding noise of the largest one.

    A filter whose statistic does not stand out is *dead*: it is too small to divide by. NaN does not stand out.
    """
    magnitudes = np.abs(values)
    largest = min(float(np.fmax.reduce(magnitudes, initial=0.0)), _LARGEST)
    return np.asarray(magnitudes > max(_NOISE * largest, _SMALLEST))


@dataclass(frozen=True)
class Moments:
    """Sums over images for one measured value; arrays have shape `(channels,)`.

    Attributes:
        images: number of images.
        weight: Σ w; the number of positions, if positions are the weights.
        weight_squares: Σ w².
        total: Σ w m.
        square_total: Σ w² m.
        squares: Σ w² m².
        largest: the largest magnitude of a single activation; None if it was not measured.
        histogram: counts of the magnitudes of all activations; None if they were not measured.
        smallest: where the largest magnitude of each image was measured, the smallest of these that is not 0; 0 if all
            are. None if something else was measured.
    """

    images: int
    weight: float
    weight_squares: float
    total: Floats = field(repr=False)
    square_total: Floats = field(repr=False)
    squares: Floats = field(repr=False)
    largest: Floats | None = field(default=None, repr=False)
    histogram: Histogram | None = field(default=None, repr=False)
    smallest: Floats | None = field(default=None, repr=False)

    @classmethod
    def of(cls, means: NDArray[Any], largest: NDArray[Any] | None, weights: NDArray[Any]) -> Moments:
        """Return the moments of a batch.

        Args:
            means: mean of each image, shape `(n, channels)`.
            largest: largest magnitude of each image, shape `(n, channels)`; None if it was not measured.
            weights: weight of each image, shape `(n,)`.
        """
        m, w = means.astype(np.float64), weights.astype(np.float64)[:, np.newaxis]
        squares = w * w
        return cls(
            images=len(m),
            weight=float(w.sum()),
            weight_squares=float(squares.sum()),
            total=(w * m).sum(axis=0),
            square_total=(squares * m).sum(axis=0),
            squares=(squares * m * m).sum(axis=0),
            largest=None if largest is None else largest.astype(np.float64).max(axis=0),
        )

    @classmethod
    def of_peaks(cls, peaks: Floats) -> Moments:
        """Return the moments of the largest magnitude of each image, float64 of shape `(n, channels)`."""
        images, total = len(peaks), peaks.sum(axis=0)
        squares, largest = np.einsum("nc,nc->c", peaks, peaks), peaks.max(axis=0)
        return cls(images, float(images), float(images), total, total, squares, largest, smallest=_smallest(peaks))

    @classmethod
    def beside(cls, parts: Sequence[Moments]) -> Moments:
        """Return the moments of the channels of all parts: largest magnitudes of the same images (`of_peaks`)."""
        first = parts[0]
        total, squares, largest, smallest = (
            np.concatenate([getattr(part, name) for part in parts])
            for name in ("total", "squares", "largest", "smallest")
        )
        return cls(first.images, first.weight, first.weight_squares, total, total, squares, largest, smallest=smallest)

    def part(self, channels: slice) -> Moments:
        """Return the moments of some channels; there is no histogram."""
        return Moments(
            self.images,
            self.weight,
            self.weight_squares,
            self.total[channels],
            self.square_total[channels],
            self.squares[channels],
            None if self.largest is None else self.largest[channels],
            smallest=None if self.smallest is None else self.smallest[channels],
        )

    def __add__(self, other: Moments) -> Moments:
        """Return the moments of the images of both; they have a largest magnitude if both have.

        Raises StatisticsError if only one has a histogram.
        """
        return Moments(
            images=self.images + other.images,
            weight=self.weight + other.weight,
            weight_squares=self.weight_squares + other.weight_squares,
            total=self.total + other.total,
            square_total=self.square_total + other.square_total,
            squares=self.squares + other.squares,
            largest=_of_both(np.maximum, self.largest, other.largest),
            histogram=self._joined(other),
            smallest=_of_both(_smaller, self.smallest, other.smallest),
        )

    def pooled(self) -> Moments:
        """Return the moments of all channels taken as one with more positions.

        Standard errors are NaN: how the channels of one image vary together was not measured.
        """
        return Moments(
            images=self.images,
            weight=self.weight,
            weight_squares=self.weight_squares,
            total=self.total.mean(keepdims=True),
            square_total=self.square_total.mean(keepdims=True),
            squares=np.full(1, np.nan),
            largest=None if self.largest is None else self.largest.max(keepdims=True),
            histogram=None if self.histogram is None else self.histogram.pooled(),
        )

    def without(self, before: Moments | None, after: Moments) -> Moments:
        """Return the moments without the images that were measured between two points of the same run.

        Args:
            before: the moments at the first point; None for the start of the run.
            after: the moments at the second point.

        Returns:
            Moments without a histogram, whose `largest` is still that of all images.
        """
        sums = ("images", "weight", "weight_squares", "total", "square_total", "squares")
        left = {name: getattr(self, name) - getattr(after, name) for name in sums}
        if before is not None:
            left = {name: number + getattr(before, name) for name, number in left.items()}
        return Moments(**left, largest=self.largest)

    def _joined(self, other: Moments) -> Histogram | None:
        """Return the histogram of both. Raises StatisticsError if only one of them has a histogram."""
        if self.histogram is None and other.histogram is None:
            return None
        if self.histogram is None or other.histogram is None:
            raise StatisticsError("only one of these statistics has histograms, so they cannot be merged")
        return self.histogram + other.histogram

    @property
    def channels(self) -> int:
        """Number of channels."""
        return len(self.total)

    @property
    def mean(self) -> Floats:
        """Mean activation of each channel, shape `(channels,)`; NaN if no image had a position."""
        return self.total / self.weight if self.weight else np.full_like(self.total, np.nan)

    def percentile(self, percent: str | int, *, nonzero: bool = False) -> Floats:
        """Return the magnitude that this many per cent of a channel's activations do not exceed, shape `(channels,)`.

        It is NaN without a histogram. `percent` is a whole number, or a decimal fraction as text such as "99.9". With
        `nonzero`, activations of 0 do not count.
        """
        if self.histogram is None:
            return np.full(self.channels, np.nan)
        found = self.histogram.percentile(percent, nonzero=nonzero)
        return found if self.largest is None else np.minimum(found, self.largest)

    @property
    def live(self) -> NDArray[np.bool_]:
        """Which channels have a mean that stands out (`stand_out`), shape `(channels,)`."""
        return stand_out(self.mean)

    @property
    def relative_error(self) -> Floats:
        """Standard error over the magnitude of the mean, shape `(channels,)`; NaN for channels that are not live."""
        mean = np.where(self.live, np.abs(self.mean), np.nan)
        return np.asarray(self.standard_error / mean, np.float64)

    @property
    def standard_error(self) -> Floats:
        """Standard error of the mean of each channel, shape `(channels,)`; NaN for a single image."""
        if self.images < 2:
            return np.full(self.channels, np.nan)
        mean = self.mean
        spread = self.squares - 2 * mean * self.square_total + mean * mean * self.weight_squares
        variance = np.maximum(spread, 0) / self.weight**2 * (self.images / (self.images - 1))
        return np.asarray(np.sqrt(variance), np.float64)


def _of_both(join: Callable[[Floats, Floats], Floats], mine: Floats | None, theirs: Floats | None) -> Floats | None:
    """Return what is known of both together; None if it is not known of one."""
    return None if mine is None or theirs is None else join(mine, theirs)


def _smallest(magnitudes: Floats) -> Floats:
    """Return the smallest number of each column that is not 0; 0 if there is none."""
    least = np.asarray(magnitudes.min(axis=0))
    zeros = np.flatnonzero(least <= 0)
    if zeros.size:
        some = magnitudes[:, zeros]
        least[zeros] = np.where(some > 0, some, np.inf).min(axis=0)
        least[np.isinf(least)] = 0.0
    return least


def _smaller(mine: Floats, theirs: Floats) -> Floats:
    """Return the smaller of two numbers, unless it is 0."""
    return np.where((theirs > 0) & ((mine <= 0) | (theirs < mine)), theirs, mine)


@dataclass(frozen=True)
class Value:
    """A measured value: its name in the graph, and the name of the average (`mean`, `mean_abs`, or see `measures`)."""

    name: str
    measure: str


Totals = Mapping[Value, Moments]
"""The moments of every measured value."""
