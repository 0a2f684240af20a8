"""The section that shows how near both models come to the limits of float16."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from markupsafe import Markup

from onnxnorm.report.data import ReportData
from onnxnorm.report.headroom import sides_of, summary_rows
from onnxnorm.report.page.curves import headroom_plot
from onnxnorm.report.page.section import Section, template_text
from onnxnorm.report.page.text import clean, number
from onnxnorm.verification.fp16 import ranges_json
from onnxnorm.verification.fp16_nodes import DATA_MAX

__all__ = ["SECTION"]

_NEAREST = 12


def _context(report: ReportData) -> Mapping[str, Any] | None:
    """Return the summary, and the values nearest to overflow: of the verification, else those that were stored."""
    fp16 = report.verification.fp16 if report.verification else None
    if fp16 is None and not report.ranges:
        return None
    plain = fp16.to_json() if fp16 else ranges_json(report.ranges, report.statistics.images)
    sides = sides_of(plain)
    rows = sorted(plain["values"], key=lambda row: -max(row.get(side, 0.0) for side in sides))[:_NEAREST]
    reasons = dict.fromkeys(plain[side]["not_run"] for side in sides)
    return {
        "images": None if plain["images"] is None else f"{plain['images']:,}",
        "sides": sides,
        "bounds": any(plain[side]["at_most"] for side in sides),
        "plots": [Markup(_plot(plain))],  # noqa: S704 - drawn by this package
        "summary": summary_rows(plain),
        "nearest": [(clean(row["name"]), [_cell(plain, row, side) for side in sides]) for row in rows],
        "reasons": [clean(text) for text in reasons if text],
    }


def _cell(plain: Mapping[str, Any], row: Mapping[str, Any], side: str) -> tuple[str, bool]:
    """The largest magnitude of a value in one model, and whether it overflows."""
    most = "at most " if row["name"] in plain[side]["at_most"] else ""
    return most + number(row.get(side)), row.get(side, 0.0) > plain["largest"]


def _plot(plain: Mapping[str, Any]) -> str:
    sides = {
        side: np.asarray([row.get(side, np.nan) for row in plain["values"]], np.float64) for side in sides_of(plain)
    }
    return headroom_plot(sides, plain["largest"], plain["smallest_normal"], DATA_MAX)


SECTION = Section(template_text("fp16"), _context)
