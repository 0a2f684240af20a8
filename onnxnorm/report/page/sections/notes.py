"""The section with what a reader should know before looking at the numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from onnxnorm.report.data import ReportData
from onnxnorm.report.page.section import Section, template_text
from onnxnorm.report.page.verdict import notes

__all__ = ["SECTION"]


def _context(report: ReportData) -> Mapping[str, Any] | None:
    texts = notes(report, report.errors)
    return {"notes": texts} if texts else None


SECTION = Section(template_text("notes"), _context)
