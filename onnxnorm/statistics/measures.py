"""What is measured on images, one entry for each statistic of a filter.

An entry says what the probe must average for it, whether that takes a histogram, and how the statistic is read off the
moments. From here the probe, the statistics, the rewrite and the command line take everything they know of it, so that
a statistic is added by one call of `register`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from onnxnorm.statistics.moments import Moments

__all__ = [
    "MEANS",
    "MeasuredStatistic",
    "histograms_wanted",
    "measurable",
    "measured",
    "operators_of",
    "register",
    "unregister",
]

Floats: TypeAlias = NDArray[np.float64]

MEANS = {"mean": (), "mean_abs": ("Abs",)}
"""By what a layer is measured anyway, behind its non-linearity or without one, and what is applied before averaging."""


@dataclass(frozen=True)
class MeasuredStatistic:
    """A statistic of filters that is measured on images.

    Attributes:
        name: as `--statistic` and `--measure` have it.
        help: what it is, for people.
        read: gives the statistic and its standard errors (NaN where not known), both `(channels,)`, from moments.
        average: the name in the statistics file of what is averaged for it; None for the mean that is measured anyway.
        operators: the ONNX operators that are applied to an activation before averaging, one after the other; "Mul"
            multiplies it by itself.
        histogram: whether all magnitudes are counted for it.
        missing: what statistics lack that were measured without it.
    """

    name: str
    help: str
    read: Callable[[Moments], tuple[Floats, Floats]]
    average: str | None = None
    operators: tuple[str, ...] = ()
    histogram: bool = False
    missing: str = ""

    @property
    def optional(self) -> bool:
        """Whether it is only measured if it is asked for."""
        return self.histogram or self.average is not None


def measured() -> dict[str, MeasuredStatistic]:
    """All statistics that are measured on images, by name."""
    return {entry.name: entry for entry in _entries}


def measurable() -> tuple[str, ...]:
    """The names of those that are only measured if they are asked for."""
    return tuple(entry.name for entry in _entries if entry.optional)


def operators_of(average: str) -> tuple[str, ...]:
    """The operators that are applied before averaging what has this name in the statistics file."""
    return MEANS[average] if average in MEANS else next(e.operators for e in _entries if e.average == average)


def register(entry: MeasuredStatistic) -> None:
    """Add a statistic. Raises ValueError if its name, or that of what it averages, is taken."""
    averages = {*MEANS, *(other.average for other in _entries)} - {None}
    if entry.name in measured() or entry.average in averages:
        raise ValueError(f"statistic {entry.name!r} has the name or the average of another one")
    _entries.append(entry)


def unregister(name: str) -> None:
    """Take a statistic away again."""
    _entries.remove(measured()[name])


def _unknown(values: Floats) -> Floats:
    return np.full(len(values), np.nan)


def _root_mean_square(moments: Moments) -> tuple[Floats, Floats]:
    """`rms = sqrt(m)`, so by the delta method its standard error is that of m over `2 * rms`."""
    rms = np.sqrt(np.maximum(moments.mean, 0.0))
    return rms, np.divide(moments.standard_error, 2 * rms, out=_unknown(rms), where=rms > 0)


def _percentile(percent: str) -> Callable[[Moments], tuple[Floats, Floats]]:
    def read(moments: Moments) -> tuple[Floats, Floats]:
        values = moments.percentile(percent)
        return values, _unknown(values)

    return read


_entries: list[MeasuredStatistic] = [
    MeasuredStatistic("mean", "mean activation", lambda moments: (moments.mean, moments.standard_error)),
    MeasuredStatistic(
        "rms",
        "root of the mean square",
        _root_mean_square,
        average="mean_square",
        operators=("Mul",),
        missing="mean squares",
    ),
    MeasuredStatistic("max", "largest magnitude", lambda moments: (moments.largest, _unknown(moments.largest))),
    MeasuredStatistic(
        "p99.9",
        "magnitude that 99.9 % of the activations do not exceed; slower, for it needs every activation",
        _percentile("99.9"),
        histogram=True,
        missing="percentiles",
    ),
]


def histograms_wanted(names: Sequence[str]) -> bool:
    """Whether one of these statistics takes a histogram."""
    return any(measured()[name].histogram for name in names)
