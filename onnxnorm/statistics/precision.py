"""How precise the means are, and how many images a given precision takes.

**How precise.** The relative standard error of a filter is the standard error of its mean over the magnitude of the
mean (`Moments`).

**How many.** A standard error falls with the square root of the number of images, so a filter whose relative standard
error is e after n images needs about n (e / R)² images for the error R. The forecast is a quantile of that number over
live filters. The error e is relative to a mean that is itself only known up to e, which alone changes e² by a factor of
about 1 + 2e. So if e > 0.2, a forecast may be wrong by a factor of about 1.5 and is called rough. That happens where
means are near 0 because positive and negative activations cancel, behind a LeakyRelu or a PRelu. The run itself
provides the rest of the uncertainty (`jackknife.py`): a forecast then has a range, and is called rough where the range
is wider than a factor of 1.5 to either side.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxnorm.statistics.measures import MEANS
from onnxnorm.statistics.moments import Moments, Value, stand_out
from onnxnorm.statistics.together import blocks_of, image_count

__all__ = ["SHARES", "TOLERANCES", "Forecast", "RelativeErrors", "error_text", "forecast"]

Floats = NDArray[np.float64]

TOLERANCES = (0.05, 0.01)
SHARES = (0.5, 0.95)
_LARGEST_SHOWN = 10.0  # relative standard error
FACTOR = 1.5
ROUGH = 0.2  # 1 + 2e is then 1.4, and exp(2e) 1.5
_NORMAL = 2.2  # half a 95 % interval in standard errors that 10 to 20 blocks give (Student's t: 2.26 to 2.09)


@dataclass(frozen=True)
class RelativeErrors:
    """Relative standard errors of the live filters.

    Attributes:
        images: number of images measured.
        relative: relative standard errors, shape `(live,)`.
        places: for each measured value, its live channels; in order, they are the filters of `relative`.
    """

    images: int
    relative: Floats = field(repr=False)
    places: tuple[tuple[Value, NDArray[np.intp]], ...] = field(repr=False)

    @classmethod
    def of(cls, values: Mapping[Value, Moments]) -> RelativeErrors:
        """Return the errors of these moments; none for a single image."""
        errors, places = [np.empty(0)], []
        for block in blocks_of(values):
            mean, error, end = block.moments.mean, block.moments.standard_error, 0
            for value, width in block.layout:
                own = slice(end, end := end + width)
                if value.measure not in MEANS:
                    continue
                live = np.flatnonzero(stand_out(mean[own])) if block.moments.images > 1 else np.empty(0, np.intp)
                errors.append(error[own][live] / np.abs(mean[own][live]))
                places.append((value, live))
        return cls(image_count(values), np.concatenate(errors), tuple(places))

    def quantile(self, share: float) -> float:
        """Return the error that this share of live filters does not exceed; NaN if no error is known."""
        return float(np.quantile(self.relative, share)) if self.relative.size else float("nan")

    def worst(self, count: int) -> list[tuple[Value, int, float]]:
        """Return the `count` least certain filters: value, channel, relative standard error; the worst first."""
        owners = [(value, int(channel)) for value, live in self.places for channel in live]
        order = np.argsort(-self.relative, kind="stable")[:count]
        return [(*owners[index], float(self.relative[index])) for index in order]

    def __str__(self) -> str:
        if self.images == 1:
            return "not known from one image; it takes two or more"
        if not self.relative.size:
            return "unknown"
        median, most, worst = (error_text(self.quantile(share)) for share in (0.5, 0.95, 1.0))
        return f"{median} at the median, {most} at 95 %, {worst} at worst"


def error_text(error: float, digits: int = 2) -> str:
    """A relative standard error in per cent. One far above 1 says no more than that the mean is not told from 0."""
    if np.isnan(error):
        return "unknown"
    return f"{error:.{digits}%}" if error <= _LARGEST_SHOWN else f"over {_LARGEST_SHOWN:,.0%}"


@dataclass(frozen=True)
class Forecast:
    """About how many images a given precision needs.

    Attributes:
        tolerance: the relative standard error to reach.
        share: the share of live filters that are to reach it.
        images: about how many images are needed.
        rough: whether the confidence interval is wider than a factor of 1.5 to either side, or the means are not yet
            precise enough for a better forecast.
        low: lower end of a 95 % confidence interval, in images; None if it is not known.
        high: upper end of the same interval.
    """

    tolerance: float
    share: float
    images: int
    rough: bool = False
    low: int | None = None
    high: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the fields as plain values."""
        return asdict(self)


def forecast(
    errors: RelativeErrors,
    tolerances: tuple[float, ...] = TOLERANCES,
    shares: tuple[float, ...] = SHARES,
    log_standard_errors: Mapping[float, float] | None = None,
) -> tuple[Forecast, ...]:
    """Return a forecast for each tolerance and share; none if no error is known.

    Args:
        errors: the errors so far.
        tolerances: the relative standard errors to reach.
        shares: the shares of live filters that are to reach them.
        log_standard_errors: standard errors of the logarithms of the forecasts, by share
            (`Jackknife.log_standard_errors`).
    """
    if not errors.relative.size:
        return ()
    return tuple(
        _forecast(errors.images, errors.quantile(share), tolerance, share, (log_standard_errors or {}).get(share))
        for tolerance in tolerances
        for share in shares
    )


def _forecast(images: int, error: float, tolerance: float, share: float, spread: float | None) -> Forecast:
    needed = images * (error / tolerance) ** 2
    factor = None if spread is None else float(np.exp(_NORMAL * spread))
    rough = error > ROUGH or (factor is not None and factor > FACTOR)
    ends = (None, None) if factor is None else (_whole(needed / factor), _whole(needed * factor))
    return Forecast(tolerance, share, _whole(needed), rough, *ends)


def _whole(images: float) -> int:
    return max(1, int(np.ceil(images)))
