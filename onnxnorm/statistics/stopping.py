"""When to stop measuring: as soon as the means are precise enough.

A run stops as soon as the errors of the share Q of live filters are at most R. Looking again and again and
stopping at the first good look favours moments when the errors are underestimated by chance: images on which rare
filters respond are then still to come. Three things keep that small: there is a least number of images; looks are rare,
each at a tenth more images than the one before; and two looks in a row must be good. What remains is measured in
`docs/tolerance.md` and `tests/calibration/test_enough.py`: how often `mean ± 2 standard errors` covers the mean of all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from onnxnorm.errors import OptionError
from onnxnorm.options import RUNNING, Options, option
from onnxnorm.statistics.moments import Moments, Value
from onnxnorm.statistics.precision import RelativeErrors, image_count

__all__ = ["StoppingMonitor", "StoppingOptions", "StoppingRule"]

LEAST = 64
GROWTH = 1.1


@dataclass(frozen=True, kw_only=True)
class StoppingOptions(Options):
    """When a calibration has seen enough; without a tolerance it sees everything."""

    tolerance: float | None = option(
        None, "Stop when the relative standard error of the mean is at most R.", panel=RUNNING, metavar="R"
    )
    tolerance_share: float = option(0.95, "... for this share of live filters.", panel=RUNNING, metavar="Q")

    @property
    def rule(self) -> StoppingRule | None:
        """The rule that these options describe, None without a tolerance. Raises OptionError if there is no such."""
        return None if self.tolerance is None else StoppingRule(self.tolerance, self.tolerance_share)


@dataclass(frozen=True)
class StoppingRule:
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
        relative = RelativeErrors.of(values).relative
        return bool(relative.size == 0 or np.mean(relative <= self.tolerance) >= self.share)


@dataclass
class StoppingMonitor:
    """When to ask `StoppingRule`: at growing intervals; `enough` is true at the second good answer in a row."""

    rule: StoppingRule
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
