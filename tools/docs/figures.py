"""Draw the figures of docs/how-it-works.md, with the numbers of the embedded network on the embedded photographs.

python -m tools.docs.figures [--output docs/images]
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

import onnxnorm

ROOT = Path(__file__).resolve().parents[2]
OUTPUT = ROOT / "docs" / "images"
MODEL, IMAGES = ROOT / "models" / "demo_vgg.onnx", ROOT / "models" / "images"

# Colours of Okabe and Ito, which the colour-blind can tell apart.
BEFORE, AFTER, TIED, PINNED, INK = "#D55E00", "#0072B2", "#E69F00", "#666666", "#222222"
SHOWN = 8

matplotlib.rcParams.update(
    {"font.size": 11, "svg.hashsalt": "onnxnorm", "axes.spines.top": False, "axes.spines.right": False}
)


def save(figure: Figure, path: Path) -> None:
    figure.savefig(path, facecolor="white", metadata={"Date": None, "Creator": None})


# --- scales move into the neighbours ---------------------------------------------------------------------------------


def scales(path: Path) -> None:
    """Means of some filters before and after, and what their weights and those that read them are multiplied by."""
    statistics = onnxnorm.calibrate(MODEL, IMAGES, preset="unit")
    (measured,) = (moments for value, moments in statistics.values.items() if value.name == "relu3_1")
    means = measured.mean[:SHOWN]
    figure = Figure(figsize=(11, 3.2), layout="constrained")
    panels = figure.subplots(1, 4)
    bars(panels[0], means, BEFORE, "mean activation, before")
    bars(panels[1], 1 / means, INK, "weights of the filter, times")
    bars(panels[2], means, INK, "weights that read it, times")
    bars(panels[3], np.ones(SHOWN), AFTER, "mean activation, after")
    for axes in (panels[0], panels[3]):
        axes.set_ylim(0, max(1.2, 1.1 * means.max()))
        axes.axhline(1, color="#999999", linewidth=0.8, zorder=0)
    for axes in panels:
        axes.set_xlabel(f"filters 0 to {SHOWN - 1} of conv3_1", fontsize=9)
    save(figure, path)


def bars(axes: Axes, values: np.ndarray[Any, np.dtype[np.float64]], colour: str, title: str) -> None:
    axes.bar(range(len(values)), values, color=colour)
    axes.set_title(title, loc="left", fontsize=10)
    axes.set_xticks([])


# --- free, tied, pinned ----------------------------------------------------------------------------------------------


def groups(path: Path) -> None:
    """A small residual network, and which scales its filters may have."""
    figure = Figure(figsize=(11, 3.4), layout="constrained")
    axes = figure.subplots()
    axes.set_xlim(0, 22)
    axes.set_ylim(-0.4, 6)
    axes.set_axis_off()
    row = [("input", 1.2, PINNED), ("Conv a", 4.2, TIED), ("Conv b", 7.6, AFTER), ("Conv c", 10.9, TIED)]
    row += [("Add", 14.0, TIED), ("Conv d", 17.0, PINNED), ("output", 20.2, PINNED)]
    for (_, left, colour), (_, right, _) in pairwise(row):
        arrow(axes, [(left + 1.1, 2.5), (right - 1.1, 2.5)], colour)
    arrow(axes, [(5.9, 2.5), (5.9, 4.6), (14.0, 4.6), (14.0, 3.2)], TIED)
    for name, place, colour in row:
        box(axes, place, 2.5, name, colour)
    notes = [
        (1.2, "scale 1"),
        (4.2, "one scale for\neach pair of\nchannels"),
        (7.6, "free: each filter\nits own scale"),
        (10.9, "tied to\nConv a"),
        (17.0, "pinned: the\noutput stays"),
    ]
    for place, text in notes:
        axes.text(place, 1.5, text, ha="center", va="top", fontsize=10, color=INK)
    axes.text(9.9, 4.8, "what is added must have the same scale", ha="center", va="bottom", fontsize=10, color=INK)
    save(figure, path)


def box(axes: Axes, x: float, y: float, text: str, colour: str) -> None:
    axes.add_patch(
        FancyBboxPatch((x - 1.0, y - 0.6), 2.0, 1.2, boxstyle="round,pad=0.08", facecolor="white", edgecolor=colour,
                       linewidth=2)
    )  # fmt: skip
    axes.text(x, y, text, ha="center", va="center", color=INK)


def arrow(axes: Axes, corners: Sequence[tuple[float, float]], colour: str) -> None:
    xs, ys = zip(*corners[:-1], strict=True)
    axes.plot(xs, ys, color=colour, linewidth=2, solid_capstyle="butt")
    axes.annotate("", corners[-1], corners[-2], arrowprops={"arrowstyle": "->", "color": colour, "linewidth": 2})


FIGURES = {"scales.svg": scales, "groups.svg": groups}


def main() -> None:
    parser = argparse.ArgumentParser(description="Draw the figures of docs/how-it-works.md.")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="folder to write to")
    folder = parser.parse_args().output
    folder.mkdir(parents=True, exist_ok=True)
    for name, draw in FIGURES.items():
        draw(folder / name)


if __name__ == "__main__":
    main()
