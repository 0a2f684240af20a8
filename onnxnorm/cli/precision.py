"""Messages about precision: how precise the means are, and how many images a given precision needs."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from onnxnorm.calibration.calibrate import Progress
from onnxnorm.cli.terminal import Terminal
from onnxnorm.display import counted
from onnxnorm.statistics import Statistics
from onnxnorm.statistics.precision import RelativeErrors, error_text, forecast
from onnxnorm.statistics.stopping import StoppingRule

__all__ = ["WORST_SHOWN", "Clock", "forecast_text", "tell_stop"]

WORST_SHOWN = 5
_FORECAST_AFTER = 200


@dataclass
class Clock:
    """Times a run, leaving out what an earlier run had measured, and shows the forecast once while it runs."""

    terminal: Terminal
    start: float = field(default_factory=time.perf_counter)
    resumed: int = 0
    told: bool = False

    def watching(self, progress: Callable[[Progress], None]) -> Callable[[Progress], None]:
        """The same progress callback, with timing and forecast."""

        def update(now: Progress) -> None:
            progress(now)
            self.resumed = now.resumed
            if not self.told and now.done >= _FORECAST_AFTER:
                self.told = True
                if now.total is None or now.total > 2 * now.done:
                    text = forecast_text(RelativeErrors.of(now.values), now.jackknife.log_standard_errors(now.values))
                    self.terminal.say(f"after {counted(now.done, 'image')}: {text}")

        return update

    def seconds(self, images: int) -> float | None:
        """Seconds that `images` take at the rate of this run; None if it measured none."""
        mine = images - self.resumed
        return (time.perf_counter() - self.start) * images / mine if mine > 0 else None


def forecast_text(errors: RelativeErrors, log_standard_errors: Mapping[float, float]) -> str:
    """How many images the usual tolerances need, in one line."""
    parts: dict[float, list[str]] = {}
    for item in forecast(errors, log_standard_errors=log_standard_errors):
        who = "the median filter" if item.share == 0.5 else f"{item.share:.0%} of filters"
        about = "very roughly" if item.rough else "about"
        ends = f" ({item.low:,} to {item.high:,})" if item.low is not None else ""
        images = " images" if item.tolerance not in parts else ""
        parts.setdefault(item.tolerance, []).append(f"{about} {item.images:,}{images}{ends} for {who}")
    if not parts:
        return "too few to forecast how many images are needed"
    return "forecast: " + "; ".join(f"{tol:.0%} takes {' and '.join(who)}" for tol, who in parts.items())


def tell_stop(terminal: Terminal, statistics: Statistics, rule: StoppingRule) -> None:
    """Show whether the tolerance was reached, after how many images, and which filters are least certain."""
    errors = RelativeErrors.of(statistics.values)
    reached = errors.quantile(rule.share) <= rule.tolerance
    verdict = "is reached" if reached else "is not reached; there are no more images"
    required = f"tolerance {rule.tolerance:.2%} for {rule.share:.0%} of live filters"
    terminal.show(f"{required} {verdict}: {counted(statistics.images, 'image')}")
    for value, channel, error in errors.worst(WORST_SHOWN):
        terminal.show(f"least certain: {value.name} channel {channel}, {error_text(error, 1)}")
