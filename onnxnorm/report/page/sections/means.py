"""The section with the statistic of every filter before and after the rewrite, as dots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from onnxnorm.report.data import ReportData
from onnxnorm.report.page.layer_plots import Panel, Row, row_plots
from onnxnorm.report.page.section import Section, template_text
from onnxnorm.rewriting import LayerScales

__all__ = ["SECTION", "means_plots"]


def _context(report: ReportData) -> Mapping[str, Any] | None:
    if not report.layers:
        return None
    planned = report.rewrite is None
    same = float(report.settings["strength"]) == 1 and report.settings["statistic"] == report.statistic
    target = float(report.settings["target"]) if same else None
    plots = means_plots("means", report.layers, report.statistic, target, "after, as planned" if planned else "after")
    marked = [Markup(svg) for svg in plots]  # noqa: S704 - drawn by this package
    return {"statistic": report.statistic, "planned": planned, "plots": marked}


def means_plots(
    prefix: str, layers: Sequence[LayerScales], statistic: str, target: float | None, after: str = "after"
) -> list[str]:
    """Draw the statistic of every filter before and after, in pieces.

    Args:
        prefix: start of the ids of the SVG elements.
        layers: the layers of filters.
        statistic: name of the statistic.
        target: what it was brought to; None if there is no such number.
        after: word for what the statistic is after the rewrite.

    Returns:
        SVG elements, one for each piece.
    """
    lines = () if target is None else ((target, f"target {target:g}"),)
    rows = [Row(layer.layer.node, _note(layer.dead, layer.pinned), _magnitudes(layer)) for layer in layers]
    panels = (
        Panel(f"{statistic} before", "before", (), group="mean"),
        Panel(f"{statistic} {after}", "after", lines, group="mean"),
    )
    return row_plots(prefix, f"The {statistic} activation of every filter, before and after", rows, panels)


def _magnitudes(layer: LayerScales) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the magnitude of the statistic of live filters `(live,)`, before and after the rewrite."""
    return np.abs(layer.statistic[layer.live]), np.abs(layer.after[layer.live])


def _note(dead: NDArray[np.bool_], pinned: NDArray[np.bool_]) -> str:
    parts = [f"{int(flags.sum()):,} {word}" for flags, word in ((dead, "dead"), (pinned, "pinned")) if flags.any()]
    return ", ".join(parts)


SECTION = Section(template_text("means"), _context)
