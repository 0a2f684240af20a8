"""The FP16 headroom of two models side by side, as rich renderables.

Made from plain data: what `verify --fp16 --json` prints under "fp16", where infinity is null.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from rich.table import Table

__all__ = ["SIDES", "fp16_tables", "summary_rows"]

SIDES = ("original", "rewritten")
_WORST = 5

Json = Mapping[str, Any]


def fp16_tables(found: Json) -> Sequence[Table | str]:
    """A summary of both models, the values nearest to overflow, and the constants that lose most bits."""
    shown: list[Table | str] = ["", _summary(found)]
    values = _worst(found["values"], _number)
    if values:
        table = _table("largest activations", *SIDES)
        for row in values:
            table.add_row(row["name"], *(f"{_number(row[side]):.4g}" if side in row else "-" for side in SIDES))
        shown += ["", table]
    constants = _worst(found["constants"], _subnormal)
    if any(_subnormal(row.get(side)) for row in constants for side in SIDES):
        columns = (name for side in SIDES for name in (f"{side}: subnormal", "smallest"))
        table = _table("constants that lose bits", *columns)
        for row in constants:
            table.add_row(row["name"], *(text for side in SIDES for text in _constant(row.get(side))))
        shown += ["", table]
    reasons = dict.fromkeys(found[side]["not_run"] for side in SIDES if found[side]["not_run"])
    return [*shown, *(f"not run in float16: {reason}" for reason in reasons)]


def summary_rows(found: Json) -> list[tuple[str, ...]]:
    """What is said about both models as a whole: the name of a row, and its text for each side."""
    rows: dict[str, Callable[[Json], str]] = {
        "largest activation": lambda side: f"{_number(side['largest_activation']):.4g}",
        "headroom: 65504 over that": lambda side: _headroom(found["largest"], _number(side["largest_activation"])),
        "values that overflow": lambda side: f"{len(side['overflowing_values']):,} of {side['values']:,}",
        "values below 6.1e-5 as a whole": lambda side: f"{len(side['subnormal_values']):,}",
        "weights beyond 65504": lambda side: f"{side['overflowing_elements']:,} of {side['elements']:,}",
        "weights below 6.1e-5": lambda side: f"{side['subnormal_elements']:,} ({side['subnormal_share']:.2%})",
        "... of which round to zero": lambda side: f"{side['lost_elements']:,}",
        "outputs not finite": lambda side: _worst_output(side, "not_finite", ".1%"),
        "outputs' rms error against float32": lambda side: _worst_output(side, "relative_rms_error", ".2e"),
    }
    return [(name, *(text(found[side]) for side in SIDES)) for name, text in rows.items()]


def _summary(found: Json) -> Table:
    table = _table("float16", *SIDES)
    for row in summary_rows(found):
        table.add_row(*row)
    return table


def _headroom(limit: float, largest: float) -> str:
    return f"{limit / largest:.3g}x" if largest else "-"


def _worst_output(side: Json, key: str, digits: str) -> str:
    found = [_number(output[key]) for output in side["outputs"].values()]
    if not found:
        return "-"
    return f"{max(found):{digits}}" if np.isfinite(max(found)) else "infinite"


def _table(*columns: str) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column(columns[0], overflow="fold")
    for name in columns[1:]:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _worst(rows: Sequence[Json], badness: Callable[[Any], float]) -> list[Json]:
    """The rows where one of the two models is worst, that one first."""
    return sorted(rows, key=lambda row: -max(badness(row[side]) if side in row else 0.0 for side in SIDES))[:_WORST]


def _number(value: float | None) -> float:
    return float("inf") if value is None else value


def _subnormal(constant: Json | None) -> float:
    return float(constant["subnormal"]) if constant else 0.0


def _constant(found: Json | None) -> tuple[str, str]:
    if not found:
        return "-", "-"
    return f"{found['subnormal'] / max(1, found['elements']):.1%}", f"{found['smallest']:.1e}"
