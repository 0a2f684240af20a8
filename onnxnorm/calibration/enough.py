"""Knowing when it is enough: how exact the means are, how many images a given exactness takes, and when to stop.

**How exact.** The relative standard error of a filter is the standard error of its mean over the mean (`Moments`).

**How many.** A standard error falls with the square root of the number of images, so a filter whose relative standard
error is e after n images needs about n (e / R)² for R: a quantile of that over live filters is the forecast. It is
relative to a mean that is itself known up to e, and that alone moves its square by about 2e: from e > 0.2 on a forecast
is called rough, for it may be off by more than half as much again. So it is where filters have means near 0 because
positive and negative activations cancel, behind a LeakyRelu or a PRelu. How sure it is beyond that, a run knows
(`trail.py`): a forecast then comes with a range, and is called rough where that is wider than half as much again.

**When to stop.** As soon as the errors of the share Q of live filters are at most R. Looking again and again and
stopping at the first good look favours moments when the errors are underestimated by chance: images on which rare
filters respond are then still to come. Three things keep that small: there is a least number of images; looks are rare,
each at a tenth more images than the one before; and two looks in a row must be good. What remains is measured in
`docs/tolerance.md` and `tests/calibration/test_enough.py`: how often `mean ± 2 standard errors` covers the mean of all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxnorm.errors import OptionError
from onnxnorm.statistics import MEANS, Moments, Value

__all__ = ["SHARES", "Enough", "Errors", "Forecast", "Looks", "forecast", "image_count"]

Floats = NDArray[np.float64]

LEAST = 64
GROWTH = 1.1
TOLERANCES = (0.05, 0.01)
SHARES = (0.5, 0.95)
FACTOR = 1.5
ROUGH = 0.2  # 1 + 2e is then 1.4, and exp(2e) 1.5
_NORMAL = 2.2  # half of a 95 % interval in standard errors, known from 10 to 20 blocks (Student's t: 2.26 to 2.09)


@dataclass(frozen=True)
class Enough:
    """Stop when the relative standard error is at most `tolerance` for the share `share` of live filters."""

    tolerance: float
    share: float = 0.95
    at_least: int = LEAST

    def __post_init__(self) -> None:
        if not self.tolerance > 0:
            raise OptionError(f"--tolerance {self.tolerance:g} must be positive")
        if not 0 < self.share <= 1:
            raise OptionError(f"--tolerance-share {self.share:g} must lie in (0, 1]")

    def reached(self, values: Mapping[Value, Moments]) -> bool:
        """Whether these moments are exact enough."""
        if image_count(values) < self.at_least:
            return False
        relative = Errors.of(values).relative
        return bool(relative.size == 0 or np.mean(relative <= self.tolerance) >= self.share)


@dataclass
class Looks:
    """When to ask `Enough`: at growing intervals; `enough` is true at the second good answer in a row."""

    rule: Enough
    next: int = 0
    good: int = 0

    def enough(self, values: Mapping[Value, Moments]) -> bool:
        """Whether to stop with these moments."""
        images = image_count(values)
        if images < max(self.next, self.rule.at_least):
            return False
        self.next = int(np.ceil(images * GROWTH))
        self.good = self.good + 1 if self.rule.reached(values) else 0
        return self.good >= 2


@dataclass(frozen=True)
class Errors:
    """Relative standard errors of the live filters, `(live,)`, and to which value and channel each belongs."""

    images: int
    relative: Floats = field(repr=False)
    places: tuple[tuple[Value, NDArray[np.intp]], ...] = field(repr=False)

    @classmethod
    def of(cls, values: Mapping[Value, Moments]) -> Errors:
        """The errors of these moments; none for a single image."""
        found, places = [np.empty(0)], []
        for value, moments in values.items():
            if value.measure not in MEANS:
                continue
            live = np.flatnonzero(moments.live) if moments.images > 1 else np.empty(0, np.intp)
            found.append(moments.standard_error[live] / np.abs(moments.mean[live]))
            places.append((value, live))
        return cls(image_count(values), np.concatenate(found), tuple(places))

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
    errors: Errors,
    tolerances: tuple[float, ...] = TOLERANCES,
    shares: tuple[float, ...] = SHARES,
    spreads: Mapping[float, float] | None = None,
) -> tuple[Forecast, ...]:
    """Forecasts for each tolerance and share; none where no error is known.

    `spreads` are the standard errors of their logarithms, by share (`Trail.spreads`).
    """
    if not errors.relative.size:
        return ()
    return tuple(
        _forecast(errors.images, errors.quantile(share), tolerance, share, (spreads or {}).get(share))
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
