"""The statistics of a filter that are measured on images, one entry for each.

An entry says what the probe must average, whether a histogram is needed, and how the statistic is computed from the
moments. The probe, the statistics, the rewrite and the command line use these entries only, so one call of `register`
adds a statistic everywhere.
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
    "PEAK",
    "RANGE",
    "MeasuredStatistic",
    "measurable",
    "measured",
    "needs_histograms",
    "operators_of",
    "register",
    "unregister",
]

Floats: TypeAlias = NDArray[np.float64]

MEANS = {"mean": (), "mean_abs": ("Abs",)}
"""The measures that every calibration has, by name: the operators that are applied before averaging.

A layer is measured by the mean behind its non-linearity, or by the mean absolute value if there is none.
"""

RANGE, PEAK = "range", "peak"
"""`--measure range` is no statistic of filters: it measures every floating-point value of the network.

Its name in the statistics file is `peak`. What is averaged over images is the largest magnitude of each image, for each
channel of the value (`scaling.channels`).
"""


@dataclass(frozen=True)
class MeasuredStatistic:
    """A statistic of filters that is measured on images.

    Attributes:
        name: its name for `--statistic` and `--measure`.
        help: a description for the help text.
        read: computes the statistic and its standard errors (NaN if not known), both `(channels,)`, from moments.
        average: name in the statistics file of the average that it needs; None if the usual mean is enough.
        operators: the ONNX operators that are applied to an activation before averaging, in order; "Mul" multiplies
            the activation by itself.
        histogram: whether it needs a histogram of all magnitudes.
        missing: what statistics that were measured without it lack, for messages.
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
        """Whether it is measured only on request."""
        return self.histogram or self.average is not None


def measured() -> dict[str, MeasuredStatistic]:
    """Return all statistics that are measured on images, by name."""
    return {entry.name: entry for entry in _entries}


def measurable() -> tuple[str, ...]:
    """Return the names of what is measured only on request: statistics of filters, and the range of every value."""
    return (*(entry.name for entry in _entries if entry.optional), RANGE)


def operators_of(average: str) -> tuple[str, ...]:
    """Return the operators that are applied before averaging, for an average by its name in the statistics file."""
    return MEANS[average] if average in MEANS else next(e.operators for e in _entries if e.average == average)


def register(entry: MeasuredStatistic) -> None:
    """Add a statistic. Raises ValueError if its name, or the name of its average, is in use."""
    averages = {*MEANS, *(other.average for other in _entries)} - {None}
    if entry.name in measured() or entry.average in averages:
        raise ValueError(f"statistic {entry.name!r} has the name or the average of another one")
    _entries.append(entry)


def unregister(name: str) -> None:
    """Remove a statistic by its name. Raises KeyError if there is none."""
    _entries.remove(measured()[name])


def _unknown(values: Floats) -> Floats:
    return np.full(len(values), np.nan)


def _root_mean_square(moments: Moments) -> tuple[Floats, Floats]:
    """Return `rms = sqrt(m)` and, by the delta method, its standard error: the standard error of m over `2 * rms`."""
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


def needs_histograms(names: Sequence[str]) -> bool:
    """Whether any of these statistics needs a histogram."""
    return any(entry.histogram for entry in _entries if entry.name in names)
