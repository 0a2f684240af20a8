"""The headroom of two models in float16, as text that the page and the terminal share.

It is made from plain data: the value of "fp16" in the output of `verify --fp16 --json`, where infinity is null.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

__all__ = ["SIDES", "magnitude", "or_infinite", "sides_of", "summary_rows"]

SIDES = ("original", "rewritten")

Json = Mapping[str, Any]


def sides_of(fp16: Json) -> tuple[str, ...]:
    """The models that are described: both, or the original alone."""
    return tuple(side for side in SIDES if side in fp16)


def summary_rows(fp16: Json) -> list[tuple[str, ...]]:
    """Return the summary of the models as rows: the name of the row, and its text for each of `sides_of(fp16)`."""
    rows: dict[str, Callable[[str], str]] = {
        "largest activation": lambda side: magnitude(fp16, _largest(fp16, side), side),
        "headroom: 65504 over that": lambda side: _headroom(fp16, side),
        "values that overflow": lambda side: _values(fp16[side], "overflowing_values"),
        "values above 512": lambda side: _values(fp16[side], "values_above_512"),
        "values below 6.1e-5 as a whole": lambda side: _at(
            "least", fp16[side], f"{len(fp16[side]['subnormal_values']):,}"
        ),
        "weights beyond 65504": lambda side: f"{fp16[side]['overflowing_elements']:,} of {fp16[side]['elements']:,}",
        "weights above 512": lambda side: f"{fp16[side]['elements_above_512']:,}",
        "weights below 6.1e-5": lambda side: (
            f"{fp16[side]['subnormal_elements']:,} ({fp16[side]['subnormal_share']:.2%})"
        ),
        "... of which round to zero": lambda side: f"{fp16[side]['lost_elements']:,}",
        "nodes that AutoCast leaves in float32": lambda side: _nodes(fp16[side]),
        "multiplications in float16 then": lambda side: _share(fp16[side]),
    }
    if any(fp16[side]["outputs"] or fp16[side]["not_run"] for side in sides_of(fp16)):
        rows["outputs not finite"] = lambda side: _worst_output(fp16[side], "not_finite", ".1%")
        rows["outputs' rms error against float32"] = lambda side: _worst_output(fp16[side], "relative_rms_error", ".2e")
    return [(name, *(text(side) for side in sides_of(fp16))) for name, text in rows.items()]


def magnitude(fp16: Json, row: Json, side: str) -> str:
    """The largest magnitude of a value, an entry of "values", in one model; it says if it can only be that large."""
    if side not in row:
        return "-"
    most = "at most " if row["name"] in fp16[side]["at_most"] else ""
    return f"{most}{or_infinite(row[side]):.4g}"


def or_infinite(value: float | None) -> float:
    """Return a number that was read from JSON, where null is infinity."""
    return float("inf") if value is None else value


def _largest(fp16: Json, side: str) -> Json:
    """The entry of the largest value of a model."""
    nothing: Json = {"name": "", side: 0.0}
    return max((row for row in fp16["values"] if side in row), key=lambda row: or_infinite(row[side]), default=nothing)


def _headroom(fp16: Json, side: str) -> str:
    row = _largest(fp16, side)
    least = "at least " if row["name"] in fp16[side]["at_most"] else ""
    return f"{least}{fp16['largest'] / or_infinite(row[side]):.3g}x" if row[side] != 0 else "-"


def _values(side: Json, key: str) -> str:
    return _at("most", side, f"{len(side[key]):,} of {side['values']:,}", side[key])


def _nodes(side: Json) -> str:
    return _at("most", side, f"{len(side['nodes_kept']):,} of {side['nodes']:,}", side["values_above_512"])


def _share(side: Json) -> str:
    share = side["multiplications_in_float16"]
    return "-" if share is None else _at("least", side, f"{share:.1%}", side["values_above_512"])


def _at(bound: str, side: Json, text: str, names: Iterable[str] | None = None) -> str:
    """A text, which is a bound if any of these values, or of all, is only known to be at most so large."""
    loose = set(side["at_most"])
    return f"at {bound} {text}" if loose and (names is None or loose & set(names)) else text


def _worst_output(side: Json, key: str, digits: str) -> str:
    errors = [or_infinite(output[key]) for output in side["outputs"].values()]
    if not errors:
        return "-"
    return f"{max(errors):{digits}}" if np.isfinite(max(errors)) else "infinite"
