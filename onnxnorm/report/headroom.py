"""The headroom of two models in float16, in words: what the page and the terminal both say.

Made from plain data: what `verify --fp16 --json` prints under "fp16", where infinity is null.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

__all__ = ["SIDES", "or_infinite", "summary_rows"]

SIDES = ("original", "rewritten")

Json = Mapping[str, Any]


def summary_rows(found: Json) -> list[tuple[str, ...]]:
    """What is said about both models as a whole: the name of a row, and its text for each side."""
    rows: dict[str, Callable[[Json], str]] = {
        "largest activation": lambda side: f"{or_infinite(side['largest_activation']):.4g}",
        "headroom: 65504 over that": lambda side: _headroom(found["largest"], or_infinite(side["largest_activation"])),
        "values that overflow": lambda side: f"{len(side['overflowing_values']):,} of {side['values']:,}",
        "values below 6.1e-5 as a whole": lambda side: f"{len(side['subnormal_values']):,}",
        "weights beyond 65504": lambda side: f"{side['overflowing_elements']:,} of {side['elements']:,}",
        "weights below 6.1e-5": lambda side: f"{side['subnormal_elements']:,} ({side['subnormal_share']:.2%})",
        "... of which round to zero": lambda side: f"{side['lost_elements']:,}",
        "outputs not finite": lambda side: _worst_output(side, "not_finite", ".1%"),
        "outputs' rms error against float32": lambda side: _worst_output(side, "relative_rms_error", ".2e"),
    }
    return [(name, *(text(found[side]) for side in SIDES)) for name, text in rows.items()]


def or_infinite(value: float | None) -> float:
    """A number as JSON has it: null is infinity."""
    return float("inf") if value is None else value


def _headroom(limit: float, largest: float) -> str:
    return f"{limit / largest:.3g}x" if largest else "-"


def _worst_output(side: Json, key: str, digits: str) -> str:
    found = [or_infinite(output[key]) for output in side["outputs"].values()]
    if not found:
        return "-"
    return f"{max(found):{digits}}" if np.isfinite(max(found)) else "infinite"
