"""The section that says where the models and the statistics come from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from onnxnorm.report.data import ReportData
from onnxnorm.report.page.section import Section, template_text
from onnxnorm.report.page.tables import provenance

__all__ = ["SECTION"]


def _context(report: ReportData) -> Mapping[str, Any] | None:
    return {"provenance": provenance(report)}


SECTION = Section(template_text("provenance"), _context)
