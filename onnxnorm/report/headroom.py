"""The headroom of two models in float16, as text that the page and the terminal share.

It is made from plain data: the value of "fp16" in the output of `verify --fp16 --json`, where infinity is null.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

__all__ = ["SIDES", "or_infinite", "summary_rows"]

SIDES = ("original", "rewritten")

Json = Mapping[str, Any]


def summary_rows(fp16: Json) -> list[tuple[str, ...]]:
    """Return the summary of both models as rows: the name of the row, and its text for each of `SIDES`."""
    rows: dict[str, Callable[[Json], str]] = {
        "largest activation": lambda side: f"{or_infinite(side['largest_activation']):.4g}",
        "headroom: 65504 over that": lambda side: _headroom(fp16["largest"], or_infinite(side["largest_activation"])),
        "values that overflow": lambda side: f"{len(side['overflowing_values']):,} of {side['values']:,}",
        "values above 512": lambda side: f"{len(side['values_above_512']):,} of {side['values']:,}",
        "values below 6.1e-5 as a whole": lambda side: f"{len(side['subnormal_values']):,}",
        "weights beyond 65504": lambda side: f"{side['overflowing_elements']:,} of {side['elements']:,}",
        "weights above 512": lambda side: f"{side['elements_above_512']:,}",
        "weights below 6.1e-5": lambda side: f"{side['subnormal_elements']:,} ({side['subnormal_share']:.2%})",
        "... of which round to zero": lambda side: f"{side['lost_elements']:,}",
        "nodes that AutoCast leaves in float32": lambda side: f"{len(side['nodes_kept']):,} of {side['nodes']:,}",
        "multiplications in float16 then": lambda side: _share(side["multiplications_in_float16"]),
        "outputs not finite": lambda side: _worst_output(side, "not_finite", ".1%"),
        "outputs' rms error against float32": lambda side: _worst_output(side, "relative_rms_error", ".2e"),
    }
    return [(name, *(text(fp16[side]) for side in SIDES)) for name, text in rows.items()]


def or_infinite(value: float | None) -> float:
    """Return a number that was read from JSON, where null is infinity."""
    return float("inf") if value is None else value


def _share(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"


def _headroom(limit: float, largest: float) -> str:
    return f"{limit / largest:.3g}x" if largest else "-"


def _worst_output(side: Json, key: str, digits: str) -> str:
    errors = [or_infinite(output[key]) for output in side["outputs"].values()]
    if not errors:
        return "-"
    return f"{max(errors):{digits}}" if np.isfinite(max(errors)) else "infinite"
