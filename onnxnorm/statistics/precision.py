"""How precise the means are, and how many images a given precision takes.

**How exact.** The relative standard error of a filter is the standard error of its mean over the mean (`Moments`).

**How many.** A standard error falls with the square root of the number of images, so a filter whose relative standard
error is e after n images needs about n (e / R)² for R: a quantile of that over live filters is the forecast. It is
relative to a mean that is itself known up to e, and that alone moves its square by about 2e: from e > 0.2 on a forecast
is called rough, for it may be off by more than half as much again. So it is where filters have means near 0 because
positive and negative activations cancel, behind a LeakyRelu or a PRelu. How sure it is beyond that, a run knows
(`jackknife.py`): a forecast then comes with a range, and is called rough where that is wider than half as much again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxnorm.statistics.measures import MEANS
from onnxnorm.statistics.moments import Moments, Value

__all__ = ["SHARES", "Forecast", "RelativeErrors", "forecast", "image_count"]

Floats = NDArray[np.float64]

TOLERANCES = (0.05, 0.01)
SHARES = (0.5, 0.95)
FACTOR = 1.5
ROUGH = 0.2  # 1 + 2e is then 1.4, and exp(2e) 1.5
_NORMAL = 2.2  # half of a 95 % interval in standard errors, known from 10 to 20 blocks (Student's t: 2.26 to 2.09)


@dataclass(frozen=True)
class RelativeErrors:
    """Relative standard errors of the live filters, `(live,)`, and to which value and channel each belongs."""

    images: int
    relative: Floats = field(repr=False)
    places: tuple[tuple[Value, NDArray[np.intp]], ...] = field(repr=False)

    @classmethod
    def of(cls, values: Mapping[Value, Moments]) -> RelativeErrors:
        """The errors of these moments; none for a single image."""
        errors, places = [np.empty(0)], []
        for value, moments in values.items():
            if value.measure not in MEANS:
                continue
            live = np.flatnonzero(moments.live) if moments.images > 1 else np.empty(0, np.intp)
            errors.append(moments.relative_error[live])
            places.append((value, live))
        return cls(image_count(values), np.concatenate(errors), tuple(places))

    def quantile(self, share: float) -> float:
        """The error that this share of live filters does not exceed; NaN where nothing is known."""
        return float(np.quantile(self.relative, share)) if self.relative.size else float("nan")

    def worst(self, count: int) -> list[tuple[Value, int, float]]:
        """The least certain filters: value, channel, relative standard error."""
        owners = [(value, int(channel)) for value, live in self.places for channel in live]
        order = np.argsort(-self.relative, kind="stable")[:count]
        return [(*owners[index], float(self.relative[index])) for index in order]

    def __str__(self) -> str:
        if not self.relative.size:
            return "unknown"
        median, most, worst = (self.quantile(share) for share in (0.5, 0.95, 1.0))
        return f"{median:.2%} at the median, {most:.2%} at 95 %, {worst:.2%} at worst"


@dataclass(frozen=True)
class Forecast:
    """About how many `images` bring the relative standard error to `tolerance` for this share of live filters.

    `low` and `high` are the ends of a 95 % confidence interval, where the run can tell. `rough`: that is wider than a
    factor of 1.5 to either side, or the means are not exact enough yet for less.
    """

    tolerance: float
    share: float
    images: int
    rough: bool = False
    low: int | None = None
    high: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def forecast(
    errors: RelativeErrors,
    tolerances: tuple[float, ...] = TOLERANCES,
    shares: tuple[float, ...] = SHARES,
    log_standard_errors: Mapping[float, float] | None = None,
) -> tuple[Forecast, ...]:
    """Forecasts for each tolerance and share; none where no error is known.

    `log_standard_errors` are the standard errors of their logarithms, by share (`Jackknife.spreads`).
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


def image_count(values: Mapping[Value, Moments]) -> int:
    """How many images these moments are of."""
    return min((moments.images for moments in values.values()), default=0)
