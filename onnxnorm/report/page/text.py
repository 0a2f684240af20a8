"""Formats numbers and names for the page."""

from __future__ import annotations

from collections.abc import Sequence

from onnxnorm.display import clean, counted, number, percent

__all__ = ["clean", "counted", "number", "percent", "ranges", "shortened"]


def shortened(text: str, length: int) -> str:
    """Return a name of at most `length` characters; the middle of a longer one is left out."""
    if len(text) <= length:
        return text
    head = (length - 1) // 2
    return f"{text[:head]}…{text[len(text) - (length - 1 - head) :]}"


def ranges(numbers: Sequence[int]) -> str:
    """Return ascending numbers as text, with ranges for consecutive ones: `1, 4–6`."""
    parts: list[list[int]] = []
    for item in numbers:
        if parts and item == parts[-1][-1] + 1:
            parts[-1][1:] = [item]
        else:
            parts.append([item])
    return ", ".join("–".join(map(str, part)) for part in parts)
