"""The section with the next steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from onnxnorm.report.data import ReportData
from onnxnorm.report.page.section import Section, template_text
from onnxnorm.report.page.verdict import next_steps

__all__ = ["SECTION"]


def _context(report: ReportData) -> Mapping[str, Any] | None:
    return {"steps": next_steps(report, report.errors)}


SECTION = Section(template_text("next"), _context)
