"""What was rewritten, as a plot and a table in a notebook."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from onnxnorm.display import Raw, html_table, min_median_max, number, percent
from onnxnorm.errors import OptionError
from onnxnorm.report.page.write import check_extra
from onnxnorm.rewriting import LayerScales, Rewriting

__all__ = ["layers_plot", "layers_table"]

# The colours of the plot, as the page of the report names them; they are told apart on white and on black.
_STYLE = (
    "--ink:currentColor;--muted:#8a95a1;--grid:rgba(128,128,128,0.3);--surface:transparent;--before:#a877bf;"
    "--after:#3b8fd4;--warn:#b9852b;--bad:#d9534f;max-width:1080px;max-height:48em;overflow:auto"
)
_PREFIX = "onnxnorm-plot-"


def layers_table(layers: Sequence[LayerScales], statistic: str) -> Raw:
    """Return an HTML table with, for each layer, the statistic of its filters before and after, and the scales."""
    columns = [
        "layer",
        "measured at",
        ">filters",
        f">{statistic} before: min",
        ">median",
        ">max",
        ">after: min",
        ">max",
    ]
    columns += [">scale: min", ">max", ">median s.e.", ">dead", ">pinned"]
    return html_table(columns, map(_row, layers))


def _row(layer: LayerScales) -> list[str]:
    before, site = layer.statistic[~np.isnan(layer.statistic)], layer.layer.site
    low, *_, high = _spread(layer.after[layer.live & ~layer.pinned])
    smallest, *_, largest = _spread(layer.moved)
    errors = layer.relative_errors
    return [
        layer.layer.node,
        f"abs({site.value})" if site.measure == "mean_abs" else site.value,
        f"{layer.layer.channels:,}",
        *_spread(before),
        low,
        high,
        smallest,
        largest,
        percent(float(np.median(errors)) if errors.size else None),
        *(f"{int(flags.sum()):,}" if flags.any() else "" for flags in (layer.dead, layer.pinned)),
    ]


def _spread(values: NDArray[np.float64]) -> tuple[str, str, str]:
    low, middle, high = min_median_max(values) or (None, None, None)
    return number(low, 3), number(middle, 3), number(high, 3)


def layers_plot(rewriting: Rewriting) -> Raw:
    """Return a plot with a dot per filter, before and after; empty if the extra `report` is not installed."""
    try:
        check_extra()
    except OptionError:
        return Raw("")
    from onnxnorm.report.page.plots import Drawing
    from onnxnorm.report.page.sections.means import means_plots

    target = rewriting.target if rewriting.strength == 1 else None
    with Drawing.settings():
        plots = "".join(means_plots(_PREFIX, rewriting.scales.layers, rewriting.statistic, target))
    # The ids of two plots in one notebook must differ, and be the same in every run.
    digest = hashlib.sha256(plots.encode()).hexdigest()[:8]
    return Raw(f'<div style="{_STYLE}">{plots.replace(_PREFIX, f"{_PREFIX}{digest}-")}</div>')
