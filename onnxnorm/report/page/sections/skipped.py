"""The section with the images that could not be used."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from onnxnorm.report.data import ReportData
from onnxnorm.report.page.section import Section, template_text
from onnxnorm.report.page.text import clean

__all__ = ["SECTION"]


def _context(report: ReportData) -> Mapping[str, Any] | None:
    skipped = [(clean(name), clean(reason)) for name, reason in report.statistics.skipped]
    return {"skipped": skipped} if skipped else None


SECTION = Section(template_text("skipped"), _context)
