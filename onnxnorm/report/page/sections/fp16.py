"""The section that shows how near both models come to the limits of float16."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from markupsafe import Markup

from onnxnorm.report.data import ReportData
from onnxnorm.report.headroom import SIDES, summary_rows
from onnxnorm.report.page.curves import headroom_plot
from onnxnorm.report.page.section import Section, template_text
from onnxnorm.report.page.text import clean, number
from onnxnorm.verification import Fp16

__all__ = ["SECTION"]

_NEAREST = 12


def _context(report: ReportData) -> Mapping[str, Any] | None:
    """Return the summary, and the values nearest to overflow."""
    fp16 = report.verification.fp16 if report.verification else None
    if fp16 is None:
        return None
    plain = fp16.to_json()
    rows = sorted(plain["values"], key=lambda row: -max(row.get(side, 0.0) for side in SIDES))[:_NEAREST]
    reasons = dict.fromkeys(plain[side]["not_run"] for side in SIDES)
    return {
        "plots": [Markup(_plot(fp16, plain))],  # noqa: S704 - drawn by this package
        "summary": summary_rows(plain),
        "nearest": [(clean(row["name"]), *(number(row.get(side)) for side in SIDES)) for row in rows],
        "over": [tuple(row.get(side, 0.0) > plain["largest"] for side in SIDES) for row in rows],
        "reasons": [clean(text) for text in reasons if text],
    }


def _plot(fp16: Fp16, plain: Mapping[str, Any]) -> str:
    names = dict.fromkeys([*fp16.original.values, *fp16.rewritten.values])
    sides = {
        side: np.asarray([getattr(fp16, side).values.get(name, np.nan) for name in names], np.float64) for side in SIDES
    }
    return headroom_plot(sides, plain["largest"], plain["smallest_normal"])


SECTION = Section(template_text("fp16"), _context)
