"""The section with the table of layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from onnxnorm.report.data import ReportData
from onnxnorm.report.page.section import Section, template_text
from onnxnorm.report.page.tables import layer_rows

__all__ = ["SECTION"]


def _context(report: ReportData) -> Mapping[str, Any] | None:
    states = [state for state in ("tied", "pinned", "dead") if getattr(report.plan, state)]
    return {"layers": layer_rows(report), "states": states, "statistic": report.statistic}


SECTION = Section(template_text("layers"), _context)
