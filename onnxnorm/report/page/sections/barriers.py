"""The section that says why filters are pinned, and which filters share a scale."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from onnxnorm.report.data import ReportData
from onnxnorm.report.page.section import Section, template_text
from onnxnorm.report.page.tables import barrier_rows, group_rows

__all__ = ["SECTION"]


def _context(report: ReportData) -> Mapping[str, Any] | None:
    return {"barriers": barrier_rows(report.plan.barriers), "groups": group_rows(report)}


SECTION = Section(template_text("barriers"), _context)
