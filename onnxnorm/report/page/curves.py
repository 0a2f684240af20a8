"""Two plots: the number of images that a precision needs, and how near values come to the limits of float16."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.transforms import Transform, blended_transform_factory
from numpy.typing import NDArray

from onnxnorm.report.page.plots import COLOURS, Drawing, log_axis
from onnxnorm.statistics.precision import TOLERANCES, Forecast, RelativeErrors

__all__ = ["forecast_plot", "headroom_plot"]

Floats = NDArray[np.float64]
_LINES = ((0.95, "95% of filters", "before"), (0.5, "median filter", "after"))


def forecast_plot(errors: RelativeErrors, forecasts: Sequence[Forecast]) -> str:
    """Plot the relative standard error against the number of images: the measured error, and the forecasts.

    Returns an SVG element.
    """
    drawing = Drawing(520, 300)
    axes = drawing.axes(46, 16, 366, 234)
    now, most = errors.images, max(item.images for item in forecasts)
    lines = {share: errors.quantile(share) * 100 for share, _, _ in _LINES}
    start, end = min(now, *(item.images for item in forecasts)), max(most, 2 * now)
    axes.grid(visible=True, axis="y", color=COLOURS["grid"], linewidth=0.8)
    log_axis(axes, start, end)
    ends = [lines[0.95] * (now / start) ** 0.5, lines[0.5] * (now / end) ** 0.5, *(100 * t for t in TOLERANCES)]
    log_axis(axes, min(ends), max(ends), along="y", share=True)
    axes.set_xlabel("images", fontsize=11, color=COLOURS["muted"])
    for tolerance in TOLERANCES:
        _level(axes, 100 * tolerance)
    for share, label, colour in _LINES:
        _falling(axes, now, end, lines[share], COLOURS[colour])
        at = lines[share] * (now / end) ** 0.5
        axes.annotate(label, (end, at), xytext=(4, 7), textcoords="offset points", fontsize=11, color=COLOURS[colour])
        reached = [item for item in forecasts if item.share == share and item.images > now]
        for item in reached:
            axes.plot([item.images], [100 * item.tolerance], "o", markersize=6, color=COLOURS[colour], zorder=5)
    return drawing.svg("forecast", "Relative standard error against the number of images")


def _falling(axes: Axes, now: int, end: float, error: float, colour: str) -> None:
    images = np.asarray([now, end])
    axes.plot(images, error * np.sqrt(now / images), color=colour, linewidth=2, linestyle=(0, (5, 2.5)))
    axes.plot(
        [now], [error], "o", markersize=8, markerfacecolor=COLOURS["surface"], markeredgecolor=colour,
        markeredgewidth=2.2, zorder=5,
    )  # fmt: skip


def _level(axes: Axes, at: float, label: str = "", colour: str = "warn") -> None:
    axes.axhline(at, color=COLOURS[colour], linewidth=1.1, linestyle=(0, (4, 3)), zorder=1.5)
    axes.annotate(
        label, (1, at), xycoords=_across(axes), xytext=(-4, 3), textcoords="offset points", ha="right", fontsize=10.5,
        color=COLOURS[colour],
    )  # fmt: skip


def _across(axes: Axes) -> Transform:
    """Where x is a share of the width, and y a number."""
    return blended_transform_factory(axes.transAxes, axes.transData)


def headroom_plot(sides: Mapping[str, Floats], largest: float, smallest: float, mixed: float) -> str:
    """Plot the largest magnitude of every value, in the order of the graph, and the limits of float16.

    Args:
        sides: the magnitudes of each model, shape `(values,)`; NaN where a model does not have the value.
        largest: the largest finite number of float16.
        smallest: the smallest normal number of float16.
        mixed: above this, a converter to mixed precision leaves nodes in float32.

    Returns:
        An SVG element.
    """
    drawing = Drawing(1080, 340)
    axes = drawing.axes(64, 36, 980, 262)
    numbers = np.concatenate([values[np.isfinite(values) & (values > 0)] for values in sides.values()])
    low, high = min(smallest, *numbers), max(largest, *numbers)
    axes.grid(visible=False, axis="x")
    axes.grid(visible=True, axis="y", color=COLOURS["grid"], linewidth=0.8)
    log_axis(axes, low / 2, high * 4, along="y")
    bottom, top = axes.get_ylim()
    axes.axhspan(largest, top, color=COLOURS["bad"], alpha=0.12, linewidth=0)
    axes.axhspan(bottom, smallest, color=COLOURS["warn"], alpha=0.12, linewidth=0)
    _level(axes, largest, "65504: overflow", "bad")
    _level(axes, mixed)  # a label on the line would hide values, which are often near it
    axes.text(1.005, mixed, f"{mixed:g}", va="center", fontsize=10.5, color=COLOURS["warn"], transform=_across(axes))
    _level(axes, smallest, "6.1e-5: bits are lost below", "warn")
    for (side, values), marker, place in zip(sides.items(), ("s", "o"), (0.0, 0.1), strict=False):
        colour = COLOURS["before" if side == "original" else "after"]
        axes.plot([place], [1.05], marker, markersize=5.5, color=colour, transform=axes.transAxes, clip_on=False)
        axes.text(place + 0.012, 1.03, side, transform=axes.transAxes, fontsize=12, color=colour)
        shown = np.where(values > 0, np.minimum(values, top / 1.3), np.nan)
        axes.plot(shown, marker, linestyle="-", linewidth=1, markersize=4.5, color=colour, zorder=3)
    axes.set_xlim(-0.5, max(len(values) for values in sides.values()) - 0.5)
    axes.set_xticks([])
    axes.set_xlabel("values in the order of the graph →", fontsize=11, color=COLOURS["muted"])
    return drawing.svg("headroom", "Largest activation of every value")
