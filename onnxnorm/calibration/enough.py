"""Knowing when it is enough: how exact the means are, how many images a given exactness takes, and when to stop.

**How exact.** The relative standard error of a filter is the standard error of its mean over the mean (`Moments`).

**How many.** A standard error falls with the square root of the number of images, so a filter whose relative standard
error is e after n images needs about n (e / R)² for R: a quantile of that over live filters is the forecast. It is
relative to a mean that is itself known up to e, and that alone moves its square by about 2e: from e > 0.2 on a forecast
is called rough, for it may be off by more than half as much again. So it is where filters have means near 0 because
positive and negative activations cancel, behind a LeakyRelu or a PRelu.

**When to stop.** As soon as the errors of the share Q of live filters are at most R. Looking again and again and
stopping at the first good look favours moments when the errors are underestimated by chance: images on which rare
filters respond are then still to come. Three things keep that small: there is a least number of images; looks are rare,
each at a tenth more images than the one before; and two looks in a row must be good. What remains is measured in
`docs/tolerance.md` and `tests/calibration/test_enough.py`: how often `mean ± 2 standard errors` covers the mean of all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxnorm.errors import OptionError
from onnxnorm.statistics import MEANS, Moments, Value

__all__ = ["Enough", "Errors", "Forecast", "Looks", "forecast"]

Floats = NDArray[np.float64]

LEAST = 64
GROWTH = 1.1
TOLERANCES = (0.05, 0.01)
ROUGH = 0.2  # 1 + 2e is then 1.4, and exp(2e) 1.5


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
        if _images(values) < self.at_least:
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
        images = _images(values)
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
        return cls(_images(values), np.concatenate(found), tuple(places))

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

    `rough`: it comes from means that are not exact enough yet for a forecast within a factor of 1.5.
    """

    tolerance: float
    share: float
    images: int
    rough: bool = False

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {"tolerance": self.tolerance, "share": self.share, "images": self.images, "rough": self.rough}


def forecast(
    errors: Errors, tolerances: tuple[float, ...] = TOLERANCES, shares: tuple[float, ...] = (0.5, 0.95)
) -> tuple[Forecast, ...]:
    """Forecasts for each tolerance and share; none where no error is known."""
    if not errors.relative.size:
        return ()
    found = [(share, errors.quantile(share)) for share in shares]
    return tuple(
        Forecast(tolerance, share, max(1, int(np.ceil(errors.images * (now / tolerance) ** 2))), rough=now > ROUGH)
        for tolerance in tolerances
        for share, now in found
    )


def _images(values: Mapping[Value, Moments]) -> int:
    return min((moments.images for moments in values.values()), default=0)
