"""How results show themselves: short in a Python session, as tables in a notebook.

Names come from files that others wrote, so everything is escaped here. The page of the report shows numbers and names
with the same functions.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape

import numpy as np
from numpy.typing import NDArray

__all__ = ["Raw", "Shown", "clean", "counted", "html_block", "html_table", "min_median_max", "number", "percent"]

_TABLE = "border-collapse:collapse;font-variant-numeric:tabular-nums"
_CELL = "padding:0.15em 0.7em;white-space:nowrap;text-align:"
_SCROLLED = "max-height:32em;overflow:auto;margin:0.4em 0"


class Raw(str):
    """Text that is HTML already."""

    __slots__ = ()


class Shown:
    """A result whose `repr` is its `str` in one line, between angle brackets."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {'; '.join(clean(line) for line in str(self).splitlines())}>"


def html_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Raw:
    """Return a table that scrolls; columns whose name starts with `>` are aligned to the right."""
    sides = ["right" if name.startswith(">") else "left" for name in columns]
    head = "".join(
        f'<th scope="col" style="{_CELL}{side}">{_text(name.removeprefix(">"))}</th>'
        for name, side in zip(columns, sides, strict=True)
    )
    body = "".join(
        "<tr>"
        + "".join(f'<td style="{_CELL}{side}">{_text(cell)}</td>' for cell, side in zip(row, sides, strict=True))
        + "</tr>"
        for row in rows
    )
    table = f'<table style="{_TABLE}"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
    return Raw(f'<div style="{_SCROLLED}" tabindex="0">{table}</div>')


def html_block(*parts: str) -> str:
    """Return paragraphs, and what is HTML already as it is, in one element."""
    return "<div>" + "".join(part if isinstance(part, Raw) else f"<p>{_text(part)}</p>" for part in parts) + "</div>"


def _text(item: object) -> str:
    return item if isinstance(item, Raw) else escape(clean(str(item)))


def clean(text: str) -> str:
    """Return a name with invisible and direction-changing characters replaced, because names are untrusted input."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)


def counted(count: int, noun: str) -> str:
    """Return a number with its noun: `1 value`, `2 values`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def number(value: float | None, digits: int = 4) -> str:
    """Return a number with `digits` significant digits; a dash for None and NaN."""
    if value is None or math.isnan(value):
        return "–"
    if not math.isfinite(value):
        return "infinite"
    size = abs(value)
    return f"{value:,.0f}" if 1000 <= size < 1e6 else f"{value:.{digits}g}"


def percent(value: float | None) -> str:
    """Return a share in per cent; a dash if it is not known."""
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value:.0%}" if value >= 0.1 else f"{value:.1%}" if value >= 0.001 or not value else f"{value:.1e}"


def min_median_max(values: NDArray[np.float64]) -> tuple[float, float, float] | None:
    """Return these three of the numbers that are not NaN; None if there are none."""
    known = values[~np.isnan(values)]
    return (float(known.min()), float(np.median(known)), float(known.max())) if known.size else None
