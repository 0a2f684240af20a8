"""The section that says how many images a given precision needs, and which filters are least certain."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from onnxnorm.report.data import ReportData
from onnxnorm.report.page.curves import forecast_plot
from onnxnorm.report.page.section import Section, template_text
from onnxnorm.report.page.tables import least_certain
from onnxnorm.report.page.text import counted
from onnxnorm.statistics.precision import forecast

__all__ = ["SECTION"]


def _context(report: ReportData) -> Mapping[str, Any] | None:
    errors, statistics = report.errors, report.statistics
    plain = forecast(errors)
    drawn = [forecast_plot(errors, plain)] if plain and errors.quantile(0.5) > 0 else []
    return {
        "images": counted(statistics.images, "image"),
        "errors": errors,
        "certain": least_certain(report, errors),
        "forecasts": forecast(errors, log_standard_errors=statistics.log_standard_errors),
        "plots": [Markup(svg) for svg in drawn],  # noqa: S704 - drawn by this package
    }


SECTION = Section(template_text("certainty"), _context)
