"""Formats numbers and names for the page."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

__all__ = ["clean", "counted", "number", "percent", "ranges", "shortened"]


def clean(text: str) -> str:
    """Return a name with invisible and direction-changing characters replaced, because names are untrusted input."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)


def shortened(text: str, length: int) -> str:
    """Return a name of at most `length` characters; the middle of a longer one is left out."""
    if len(text) <= length:
        return text
    head = (length - 1) // 2
    return f"{text[:head]}…{text[len(text) - (length - 1 - head) :]}"


def counted(count: int, noun: str) -> str:
    """Return a number with its noun: `1 value`, `2 values`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def number(value: float | None, digits: int = 4) -> str:
    """Return a number with `digits` significant digits; a dash for None and NaN."""
    if value is None or np.isnan(value):
        return "–"
    if not np.isfinite(value):
        return "infinite"
    size = abs(value)
    return f"{value:,.0f}" if 1000 <= size < 1e6 else f"{value:.{digits}g}"


def percent(value: float | None) -> str:
    """Return a share in per cent; a dash if it is not known."""
    if value is None or not np.isfinite(value):
        return "–"
    return f"{value:.0%}" if value >= 0.1 else f"{value:.1%}" if value >= 0.001 or not value else f"{value:.1e}"


def ranges(numbers: Sequence[int]) -> str:
    """Return ascending numbers as text, with ranges for consecutive ones: `1, 4–6`."""
    parts: list[list[int]] = []
    for item in numbers:
        if parts and item == parts[-1][-1] + 1:
            parts[-1][1:] = [item]
        else:
            parts.append([item])
    return ", ".join("–".join(map(str, part)) for part in parts)
