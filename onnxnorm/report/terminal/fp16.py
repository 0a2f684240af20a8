"""The FP16 headroom of two models side by side, as rich renderables.

Made from plain data: what `verify --fp16 --json` prints under "fp16", where infinity is null.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.table import Table

from onnxnorm.report.headroom import SIDES, or_infinite, summary_rows

__all__ = ["fp16_tables"]

_WORST = 5

Json = Mapping[str, Any]


def fp16_tables(found: Json) -> Sequence[Table | str]:
    """A summary of both models, the values nearest to overflow, and the constants that lose most bits."""
    shown: list[Table | str] = ["", _summary(found)]
    values = _worst(found["values"], or_infinite)
    if values:
        table = _table("largest activations", *SIDES)
        for row in values:
            table.add_row(row["name"], *(f"{or_infinite(row[side]):.4g}" if side in row else "-" for side in SIDES))
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


def _summary(found: Json) -> Table:
    table = _table("float16", *SIDES)
    for row in summary_rows(found):
        table.add_row(*row)
    return table


def _table(*columns: str) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column(columns[0], overflow="fold")
    for name in columns[1:]:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _worst(rows: Sequence[Json], badness: Callable[[Any], float]) -> list[Json]:
    """The rows where one of the two models is worst, that one first."""
    return sorted(rows, key=lambda row: -max(badness(row[side]) if side in row else 0.0 for side in SIDES))[:_WORST]


def _subnormal(constant: Json | None) -> float:
    return float(constant["subnormal"]) if constant else 0.0


def _constant(found: Json | None) -> tuple[str, str]:
    if not found:
        return "-", "-"
    return f"{found['subnormal'] / max(1, found['elements']):.1%}", f"{found['smallest']:.1e}"
