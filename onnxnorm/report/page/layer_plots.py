"""Plots with one row for each layer, in which every filter is a dot. A plot of many layers has several pieces."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from matplotlib.axes import Axes
from matplotlib.transforms import blended_transform_factory
from numpy.typing import NDArray

from onnxnorm.report.page.plots import COLOURS, NAME_LENGTH, Drawing, log_axis

__all__ = ["Panel", "Row", "row_plots"]

Floats = NDArray[np.float64]

_WIDTH, _GAP = 1080, 30
_LETTER = 6.9
_QUANTILES = (0.5, 0.95, 1.0)
_TOP, _BOTTOM = 46, 30
_PIECE = 40
_ROOMY, _HIGH, _LOW = 20, 30, 20


@dataclass(frozen=True)
class Row:
    """A layer: its name, a note at the end of the row, and for each panel the numbers of its filters `(filters,)`."""

    name: str
    note: str
    dots: tuple[Floats, ...] = field(repr=False)


@dataclass(frozen=True)
class Panel:
    """A column of the plot.

    Attributes:
        title: text above the column.
        colour: name of the colour in `COLOURS`.
        lines: numbers to mark with a line, each with its label.
        share: whether numbers are per cents.
        spread: whether quantiles are drawn instead of dots.
        group: panels of the same group have the same axis; empty for an axis of its own.
    """

    title: str
    colour: str
    lines: tuple[tuple[float, str], ...] = ()
    share: bool = False
    spread: bool = False
    group: str = ""


def row_plots(prefix: str, label: str, rows: Sequence[Row], panels: Sequence[Panel]) -> list[str]:
    """Draw the plot, in pieces of at most `_PIECE` rows.

    Args:
        prefix: start of the ids of the SVG elements.
        label: what the plot shows, for screen readers.
        rows: the layers.
        panels: the columns.

    Returns:
        SVG elements, one for each piece.
    """
    if not rows:
        return []
    limits = [_limits(rows, panels, panel) for panel in panels]
    layout = _Layout.of(rows)
    count = -(-len(rows) // _PIECE)
    per_piece = -(-len(rows) // count)
    pieces = []
    for start in range(0, len(rows), per_piece):
        part = rows[start : start + per_piece]
        which = f"{label}, layers {start + 1} to {start + len(part)}" if count > 1 else label
        pieces.append(_piece(part, panels, limits, layout).svg(f"{prefix}{start}", which))
    return pieces


@dataclass(frozen=True)
class _Layout:
    """Sizes in pixels: the height of a row, and the space for names on the left and for notes on the right."""

    height: int
    left: float
    right: float

    @classmethod
    def of(cls, rows: Sequence[Row]) -> _Layout:
        name = max((len(row.name) for row in rows), default=0)
        note = max((len(row.note) for row in rows), default=0)
        height = _HIGH if len(rows) <= _ROOMY else _LOW
        return cls(height, 24 + _LETTER * min(NAME_LENGTH, max(5, name)), 20 + _LETTER * note)


def _limits(rows: Sequence[Row], panels: Sequence[Panel], panel: Panel) -> tuple[float, float]:
    same = [
        index for index, other in enumerate(panels) if other is panel or (panel.group and other.group == panel.group)
    ]
    arrays = [_shown(panel, row.dots[index]) for row in rows for index in same]
    arrays += [np.asarray([at for at, _ in panels[index].lines]) for index in same]
    numbers = np.concatenate([np.empty(0), *arrays])
    return (float(numbers.min()), float(numbers.max())) if numbers.size else (1.0, 1.0)


def _shown(panel: Panel, values: Floats) -> Floats:
    """Return the numbers that are drawn on a logarithmic axis: the positive ones, or their quantiles."""
    positive = values[values > 0]
    return np.quantile(positive, _QUANTILES) if panel.spread and positive.size else positive


def _piece(
    rows: Sequence[Row], panels: Sequence[Panel], limits: Sequence[tuple[float, float]], layout: _Layout
) -> Drawing:
    height = layout.height
    drawing = Drawing(_WIDTH, _TOP + height * len(rows) + _BOTTOM)
    room = (_WIDTH - layout.left - layout.right - _GAP * (len(panels) - 1)) / len(panels)
    for index, (panel, (low, high)) in enumerate(zip(panels, limits, strict=True)):
        axes = drawing.axes(layout.left + index * (room + _GAP), _TOP, room, height * len(rows))
        log_axis(axes, low, high, share=panel.share)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_yticks(range(len(rows)), [drawing.name(row.name) if index == 0 else "" for row in rows])
        axes.tick_params(axis="y", labelcolor=COLOURS["ink"], pad=10)
        axes.hlines(np.arange(len(rows) + 1) - 0.5, *axes.get_xlim(), color=COLOURS["grid"], linewidth=0.5)
        _title(axes, panel, height * len(rows))
        draw: Callable[[Axes, Panel, int, Floats, int], None] = _quantiles if panel.spread else _sina
        for place, row in enumerate(rows):
            draw(axes, panel, place, _shown(panel, row.dots[index]), height)
    _notes(axes, rows)
    return drawing


def _title(axes: Axes, panel: Panel, height: int) -> None:
    above = 1 + 26 / height
    axes.text(0, above, panel.title, transform=axes.transAxes, fontsize=12.5, fontweight="bold", color=COLOURS["ink"])
    across = blended_transform_factory(axes.transData, axes.transAxes)
    for at, label in panel.lines:
        axes.axvline(at, color=COLOURS["warn"], linewidth=1.1, linestyle=(0, (4, 3)), zorder=1.5)
        axes.text(at, 1 + 6 / height, label, transform=across, ha="center", fontsize=10.5, color=COLOURS["warn"])


def _notes(axes: Axes, rows: Sequence[Row]) -> None:
    beside = blended_transform_factory(axes.transAxes, axes.transData)
    for place, row in enumerate(rows):
        if row.note:
            axes.text(1.015, place, row.note, transform=beside, va="center", fontsize=10.5, color=COLOURS["bad"])


def _sina(axes: Axes, panel: Panel, place: int, values: Floats, height: int) -> None:
    """Draw every filter as a dot, spread wider where there are more, and above them the quartiles and the median."""
    if not values.size:
        return
    low, high = np.log(axes.get_xlim())
    values = np.sort(values)
    bins = np.clip(((np.log(values) - low) / (high - low) * 60).astype(np.int64), 0, 59)
    density = np.convolve(np.bincount(bins, minlength=60), [0.25, 0.5, 0.25], "same")
    width = density[bins] / density.max() * min(0.78, 0.2 + values.size / 80)
    y = place + (_spaced(values.size) - 0.5) * width
    x, y = _distinct(axes, values, y, height)
    _dots(
        axes, x, y, COLOURS[panel.colour], 4.4 if height == _HIGH and len(x) <= 128 else 2.8 if len(x) <= 300 else 2.0
    )
    first, median, last = np.quantile(values, [0.25, 0.5, 0.75])
    axes.plot([first, last], [place, place], color=COLOURS["ink"], linewidth=1.6, solid_capstyle="round", zorder=4)
    axes.plot(
        [median], [place], "o", markersize=5, markerfacecolor=COLOURS["surface"], markeredgecolor=COLOURS["ink"],
        markeredgewidth=1.4, zorder=5,
    )  # fmt: skip


def _quantiles(axes: Axes, panel: Panel, place: int, values: Floats, height: int) -> None:
    """Draw the median, the number that 95 % of the filters do not exceed, and the largest number."""
    if not values.size:
        return
    del height
    median, most, worst = values
    colour = COLOURS[panel.colour]
    axes.plot([median, worst], [place, place], color=colour, linewidth=1.2, alpha=0.55, zorder=2)
    axes.plot([median, most], [place, place], color=colour, linewidth=3.2, solid_capstyle="butt", zorder=3)
    axes.plot([worst], [place], "o", markersize=4, markerfacecolor=COLOURS["surface"], markeredgecolor=colour, zorder=4)
    axes.plot(
        [median], [place], "o", markersize=5.5, markerfacecolor=COLOURS["surface"], markeredgecolor=COLOURS["ink"],
        markeredgewidth=1.4, zorder=5,
    )  # fmt: skip


def _spaced(count: int) -> Floats:
    """Return numbers in [0, 1), each far from the ones before: fractional parts of multiples of the golden ratio."""
    return np.asarray((np.arange(1, count + 1) * 0.6180339887498949) % 1.0)


def _distinct(axes: Axes, x: Floats, y: Floats, height: int) -> tuple[Floats, Floats]:
    """Return the dots without those that would be drawn on top of another one."""
    low, high = np.log(axes.get_xlim())
    cells = np.stack([np.round((np.log(x) - low) / (high - low) * 450), np.round(y * height / 1.5)])
    kept = np.sort(np.unique(cells, axis=1, return_index=True)[1])
    return x[kept], y[kept]


def _dots(axes: Axes, x: Floats, y: Floats, colour: str, size: float) -> None:
    """Draw dots as one path of lines of length 0 with round ends, which takes a tenth of the bytes of markers."""
    gap = np.full_like(x, np.nan)
    line = axes.plot(
        np.stack([x, x, gap], axis=1).reshape(-1), np.stack([y, y, gap], axis=1).reshape(-1), color=colour,
        linewidth=size, solid_capstyle="round", alpha=0.65, zorder=3,
    )  # fmt: skip
    line[0].get_path().should_simplify = False
