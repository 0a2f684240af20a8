"""Tables of the headroom of two models in float16, side by side, as rich renderables.

They are made from plain data: the value of "fp16" in the output of `verify --fp16 --json`, where infinity is null.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.table import Table

from onnxnorm.report.headroom import SIDES, magnitude, or_infinite, summary_rows

__all__ = ["fp16_tables"]

_WORST = 5

Json = Mapping[str, Any]


def fp16_tables(fp16: Json) -> Sequence[Table | str]:
    """Return a summary of both models, the values nearest to overflow, and the constants that lose most bits."""
    shown: list[Table | str] = ["", *([_origin(fp16["images"]), ""] if fp16["images"] else []), _summary(fp16)]
    values = _worst(fp16["values"], or_infinite)
    if values:
        table = _table("largest activations", *SIDES)
        for row in values:
            table.add_row(row["name"], *(magnitude(fp16, row, side) for side in SIDES))
        shown += ["", table]
    constants = _worst(fp16["constants"], _subnormal)
    if any(_subnormal(row.get(side)) for row in constants for side in SIDES):
        columns = (name for side in SIDES for name in (f"{side}: subnormal", "smallest"))
        table = _table("constants that lose bits", *columns)
        for row in constants:
            table.add_row(row["name"], *(text for side in SIDES for text in _constant(row.get(side))))
        shown += ["", table]
    reasons = dict.fromkeys(fp16[side]["not_run"] for side in SIDES if fp16[side]["not_run"])
    return [*shown, *(f"not run in float16: {reason}" for reason in reasons)]


def _origin(images: int) -> str:
    return (
        f"activations: as calibrate --measure range stored them, on {images:,} images; in the rewritten model they are "
        "these times its scales"
    )


def _summary(fp16: Json) -> Table:
    table = _table("float16", *SIDES)
    for row in summary_rows(fp16):
        table.add_row(*row)
    return table


def _table(*columns: str) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column(columns[0], overflow="fold")
    for name in columns[1:]:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _worst(rows: Sequence[Json], badness: Callable[[Any], float]) -> list[Json]:
    """Return the rows in which either model is worst, the worst row first."""
    return sorted(rows, key=lambda row: -max(badness(row[side]) if side in row else 0.0 for side in SIDES))[:_WORST]


def _subnormal(constant: Json | None) -> float:
    return float(constant["subnormal"]) if constant else 0.0


def _constant(constant: Json | None) -> tuple[str, str]:
    if not constant:
        return "-", "-"
    return f"{constant['subnormal'] / max(1, constant['elements']):.1%}", f"{constant['smallest']:.1e}"
