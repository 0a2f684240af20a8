"""The section with the statistic of every filter before and after the rewrite, as dots."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from onnxnorm.report.data import ReportData
from onnxnorm.report.page.layer_plots import Panel, Row, row_plots
from onnxnorm.report.page.section import Section, template_text
from onnxnorm.rewriting import LayerScales

__all__ = ["SECTION"]


def _context(report: ReportData) -> Mapping[str, Any] | None:
    if not report.layers:
        return None
    plots = [Markup(svg) for svg in _plots(report)]  # noqa: S704 - drawn by this package
    return {"statistic": report.statistic, "planned": report.rewrite is None, "plots": plots}


def _plots(report: ReportData) -> list[str]:
    target = float(report.settings["target"])
    same = float(report.settings["strength"]) == 1 and report.settings["statistic"] == report.statistic
    lines = ((target, f"target {target:g}"),) if same else ()
    rows = [Row(layer.layer.node, _note(layer.dead, layer.pinned), _magnitudes(layer)) for layer in report.layers]
    after = "after, as planned" if report.rewrite is None else "after"
    panels = (
        Panel(f"{report.statistic} before", "before", (), group="mean"),
        Panel(f"{report.statistic} {after}", "after", lines, group="mean"),
    )
    return row_plots("means", f"The {report.statistic} activation of every filter, before and after", rows, panels)


def _magnitudes(layer: LayerScales) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the magnitude of the statistic of live filters `(live,)`, before and after the rewrite."""
    return np.abs(layer.statistic[layer.live]), np.abs(layer.after[layer.live])


def _note(dead: NDArray[np.bool_], pinned: NDArray[np.bool_]) -> str:
    parts = [f"{int(flags.sum()):,} {word}" for flags, word in ((dead, "dead"), (pinned, "pinned")) if flags.any()]
    return ", ".join(parts)


SECTION = Section(template_text("means"), _context)
