"""Draws the plots of the page as SVG with the colours of the page, so that they follow its light and dark themes.

Matplotlib draws with placeholders for colours, which are then replaced by CSS variables, and with placeholders for
names, which are replaced by the names: so Matplotlib neither parses a name as mathematics nor looks up its letters in a
font. The same numbers give the same bytes.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from html import escape
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from onnxnorm.report.page.text import clean, shortened

__all__ = ["COLOURS", "NAME_LENGTH", "Drawing", "log_axis", "power_text"]

COLOURS = {
    "ink": "#010101",
    "muted": "#020202",
    "grid": "#030303",
    "surface": "#040404",
    "before": "#050505",
    "after": "#060606",
    "warn": "#070707",
    "bad": "#080808",
}
NAME_LENGTH = 30
_NAMES = re.compile(r"§(\d+)§")
_PLACES = re.compile(r"\b(?:d|x|y|width|height|transform)=\"[^\"]*\"")


class Drawing:
    """A figure; sizes and places are in pixels, measured from the top left corner."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self.figure = Figure(figsize=(width / 72, height / 72), dpi=72)
        FigureCanvasSVG(self.figure)
        self._names: list[str] = []

    @classmethod
    @contextmanager
    def settings(cls) -> Iterator[None]:
        """Use Matplotlib's own defaults for the duration of a context, whatever the user or the program has set."""
        with matplotlib.rc_context():
            matplotlib.rcdefaults()
            matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "onnxnorm", "font.size": 12})
            yield

    def axes(self, left: float, top: float, width: float, height: float, **words: Any) -> Axes:
        """Add axes without a frame, at this place and with this size in pixels; `words` are passed to Matplotlib."""
        bottom = self.height - top - height
        place = (left / self.width, bottom / self.height, width / self.width, height / self.height)
        axes = self.figure.add_axes(place, **words)
        axes.patch.set_visible(False)
        for spine in axes.spines.values():
            spine.set_visible(False)
        axes.tick_params(length=0, labelsize=11, labelcolor=COLOURS["muted"], pad=6)
        axes.grid(visible=True, axis="x", color=COLOURS["grid"], linewidth=0.8)
        axes.set_axisbelow(True)
        return axes

    def name(self, text: str) -> str:
        """Return a placeholder for a name, to be given to Matplotlib in its place."""
        self._names.append(clean(text))
        return f"§{len(self._names) - 1}§"

    def svg(self, prefix: str, label: str) -> str:
        """Return the drawing as an SVG element, with ids that start with `prefix`; `label` says what it shows."""
        self.figure.patch.set_visible(False)
        stream = io.StringIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        self.figure.savefig(stream, format="svg", metadata=nothing)
        text = stream.getvalue()
        body = text[text.index("<svg") :]
        body = body[body.index(">") + 1 :]
        body = re.sub(r"<!--.*?-->|<defs>\s*<style.*?</style>\s*</defs>", "", body, flags=re.DOTALL)
        body = re.sub(r"\bid=\"", f'id="{prefix}-', body)
        body = re.sub(r"(href=\"#|url\(#)", rf"\1{prefix}-", body)
        body = re.sub(r"font-family: [^;\"]+;? ?", "", body)
        body = _PLACES.sub(lambda match: re.sub(r"(\.\d\d)\d+", r"\1", match[0]), body)
        body = re.sub(r"\s*\n\s*", " ", body)
        for name, colour in COLOURS.items():
            body = body.replace(colour, f"var(--{name})")
        body = _NAMES.sub(lambda match: self._shown(int(match[1])), body)
        head = (
            '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
            f'viewBox="0 0 {self.width} {self.height}" role="img" aria-label="{escape(clean(label))}">'
        )
        return head + body

    def _shown(self, index: int) -> str:
        name = self._names[index]
        short = shortened(name, NAME_LENGTH)
        return escape(short) if short == name else f"<title>{escape(name)}</title>{escape(short)}"


def log_axis(axes: Axes, low: float, high: float, *, along: str = "x", share: bool = False) -> None:
    """Make an axis logarithmic, with limits beyond `low` and `high`.

    Args:
        axes: the axes.
        low: the smallest number to show, greater than 0.
        high: the largest number to show.
        along: "x" or "y".
        share: whether the numbers are per cents.
    """
    axis = axes.xaxis if along == "x" else axes.yaxis
    low, high = low / 1.4, high * 1.4
    if high / low < 20:
        middle = (low * high) ** 0.5
        low, high = min(low, middle / 4.5), max(high, middle * 4.5)
    (axes.set_xscale if along == "x" else axes.set_yscale)("log")
    (axes.set_xlim if along == "x" else axes.set_ylim)(low, high)
    axis.set_major_locator(FixedLocator(_ticks(low, high)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.6g}%" if share else power_text(value)))


def _ticks(low: float, high: float) -> Sequence[float]:
    powers = [10.0**k for k in range(-60, 61) if low <= 10.0**k <= high]
    if len(powers) > 1:
        return powers[:: -(-len(powers) // 7)]
    return [step * 10.0**k for k in range(-60, 61) for step in (1, 3) if low <= step * 10.0**k <= high]


def power_text(value: float) -> str:
    """Return the text of a number at an axis."""
    if 1e-3 <= value < 1e6:
        return f"{value:,.6g}"
    mantissa, exponent = f"{value:.0e}".split("e")
    power = "10" + str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return power if mantissa == "1" else f"{mantissa}·{power}"
