"""Stops a calibration as soon as the means are precise enough.

A run stops as soon as the relative standard errors of the share Q of live filters are at most R. Checking repeatedly
and stopping at the first success favours moments at which the errors are underestimated by chance, because images on
which rare filters respond have not been seen yet. Three rules keep this bias small: there is a least number of images;
checks are rare, each at 10 % more images than the last; and two checks in a row must succeed. The remaining bias is
measured in `docs/tolerance.md` and `tests/statistics/test_precision.py`: how often `mean ± 2 standard errors` covers
the mean over all images.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from onnxnorm.errors import OptionError
from onnxnorm.options import RUNNING, Options, option
from onnxnorm.statistics.moments import Moments, Value
from onnxnorm.statistics.precision import RelativeErrors
from onnxnorm.statistics.together import image_count

__all__ = ["StoppingMonitor", "StoppingOptions", "StoppingRule"]

LEAST = 64
GROWTH = 1.1


@dataclass(frozen=True, kw_only=True)
class StoppingOptions(Options):
    """When a calibration stops; without a tolerance it measures all samples."""

    tolerance: float | None = option(
        None,
        "Stop when the relative standard error of the mean is at most R for enough filters (--tolerance-share).",
        panel=RUNNING,
        metavar="R",
    )
    tolerance_share: float = option(
        0.95, "Share of live filters that must meet --tolerance.", panel=RUNNING, metavar="Q"
    )

    @property
    def rule(self) -> StoppingRule | None:
        """The rule that these options describe; None without a tolerance. Raises OptionError if they are invalid."""
        return None if self.tolerance is None else StoppingRule(self.tolerance, self.tolerance_share)


@dataclass(frozen=True)
class StoppingRule:
    """Stops when the relative standard error is at most `tolerance` for the share `share` of live filters.

    It never stops before `at_least` images.
    """

    tolerance: float
    share: float = 0.95
    at_least: int = LEAST

    def __post_init__(self) -> None:
        if not self.tolerance > 0:
            raise OptionError(f"--tolerance {self.tolerance:g} must be positive")
        if not 0 < self.share <= 1:
            raise OptionError(f"--tolerance-share {self.share:g} must lie in (0, 1]")

    def reached(self, values: Mapping[Value, Moments]) -> bool:
        """Whether these moments are precise enough."""
        if image_count(values) < self.at_least:
            return False
        relative = RelativeErrors.of(values).relative
        return bool(relative.size == 0 or np.mean(relative <= self.tolerance) >= self.share)


@dataclass
class StoppingMonitor:
    """Checks a `StoppingRule` at growing intervals, until two checks in a row succeed."""

    rule: StoppingRule
    next: int = 0
    good: int = 0

    def enough(self, values: Mapping[Value, Moments]) -> bool:
        """Whether to stop with these moments: whether this and the last check succeeded."""
        images = image_count(values)
        if images < max(self.next, self.rule.at_least):
            return False
        self.next = int(np.ceil(images * GROWTH))
        self.good = self.good + 1 if self.rule.reached(values) else 0
        return self.good >= 2
