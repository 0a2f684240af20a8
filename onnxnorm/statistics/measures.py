"""The statistics of a filter that are measured on images, one entry for each.

An entry says what the probe must average, whether a histogram is needed, and how the statistic is computed from the
moments. The probe, the statistics, the rewrite and the command line use these entries only, so one call of `register`
adds a statistic everywhere.

Percentiles are a family: `p99.9` is in the table, and `pQ` and `pQ:nonzero` exist for every share Q. All are read from
one histogram, so a calibration that measured one of them has measured all, and names none in its file.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from onnxnorm.statistics.moments import Moments

__all__ = [
    "MEANS",
    "PEAK",
    "PERCENTILES",
    "RANGE",
    "MeasuredStatistic",
    "measurable",
    "measured",
    "needs",
    "operators_of",
    "recorded_names",
    "register",
    "statistic_of",
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


PERCENTILES = "pQ or pQ:nonzero for any Q above 0 and below 100, such as p99 or p99.99:nonzero"
"""How the names of percentiles are explained to users."""

_PERCENTILE = re.compile(r"p(\d{1,2}(?:\.\d{1,12})?)(:nonzero)?", re.ASCII)


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
        part: the part of the moments that it needs beyond sums: "", "largest" or "histogram".
        missing: what statistics that were measured without it lack, for messages.
    """

    name: str
    help: str
    read: Callable[[Moments], tuple[Floats, Floats]]
    average: str | None = None
    operators: tuple[str, ...] = ()
    part: Literal["", "largest", "histogram"] = ""
    missing: str = ""

    @property
    def optional(self) -> bool:
        """Whether it is measured only on request."""
        return bool(self.part) or self.average is not None

    def known(self, moments: Moments | None) -> bool:
        """Whether it can be read from these moments, which are those of its average."""
        return moments is not None and (not self.part or getattr(moments, self.part) is not None)


def measured() -> dict[str, MeasuredStatistic]:
    """Return the table of statistics that are measured on images, by name; of percentiles, only p99.9."""
    return {entry.name: entry for entry in _entries}


def statistic_of(name: str) -> MeasuredStatistic | None:
    """Return the statistic of this name, be it in the table or any percentile; None if there is none."""
    found = _PERCENTILE.fullmatch(name)
    if name in measured() or found is None or not Fraction(found[1]):
        return measured().get(name)
    return _percentile(name, found[1], nonzero=found[2] is not None)


def recorded_names(names: Iterable[str]) -> list[str]:
    """Return the names under which a run notes what it measures; p99.9 stands for every percentile."""
    usual = next((entry.name for entry in _entries if entry.part == "histogram"), "")
    return list(dict.fromkeys(usual if needs("histogram", [name]) else name for name in names))


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


def _largest(moments: Moments) -> tuple[Floats, Floats]:
    largest = _unknown(moments.total) if moments.largest is None else moments.largest
    return largest, _unknown(largest)


def _percentile(name: str, percent: str, *, nonzero: bool = False) -> MeasuredStatistic:
    def read(moments: Moments) -> tuple[Floats, Floats]:
        values = moments.percentile(percent, nonzero=nonzero)
        return values, _unknown(values)

    which = "activations that are not 0" if nonzero else "activations"
    help_ = f"magnitude that {percent} % of the {which} do not exceed; slower, for it needs every activation"
    return MeasuredStatistic(name, help_, read, part="histogram", missing="percentiles")


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
    MeasuredStatistic(
        "max", "largest magnitude; reads every activation once more", _largest, part="largest", missing="maxima"
    ),
    _percentile("p99.9", "99.9"),
]


def needs(part: str, names: Iterable[str]) -> bool:
    """Whether any of these statistics needs this part of the moments, "largest" or "histogram"."""
    return any(entry.part == part for entry in map(statistic_of, names) if entry is not None)
