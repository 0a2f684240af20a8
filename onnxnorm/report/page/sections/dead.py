"""The section with the dead filters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from onnxnorm.report.data import ReportData
from onnxnorm.report.page.section import Section, template_text
from onnxnorm.report.page.tables import dead_rows

__all__ = ["SECTION"]


def _context(report: ReportData) -> Mapping[str, Any] | None:
    return {"dead": dead_rows(report)}


SECTION = Section(template_text("dead"), _context)
