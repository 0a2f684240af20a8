"""The section with the scales of every layer, and the precision of its means."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from onnxnorm.report.data import ReportData
from onnxnorm.report.page.layer_plots import Panel, Row, row_plots
from onnxnorm.report.page.section import Section, template_text
from onnxnorm.report.page.tables import layer_errors

__all__ = ["SECTION"]

_TOLERANCES = ((1.0, "1%"), (5.0, "5%"))


def _context(report: ReportData) -> Mapping[str, Any] | None:
    if not report.layers:
        return None
    plots = [Markup(svg) for svg in _plots(report)]  # noqa: S704 - drawn by this package
    return {"planned": report.rewrite is None, "plots": plots}


def _plots(report: ReportData) -> list[str]:
    layers = zip(report.layers, layer_errors(report), strict=True)
    rows = [Row(layer.layer.node, "", (layer.moved, 100 * errors)) for layer, errors in layers]
    panels = (
        Panel("scale", "after", ((1.0, "as it was"),)),
        Panel("relative standard error of the mean", "before", _TOLERANCES, share=True, spread=True),
    )
    return row_plots("scales", "The scales of every layer, and how precise its means are", rows, panels)


SECTION = Section(template_text("scales"), _context)
