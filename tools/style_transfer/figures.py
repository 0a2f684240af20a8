"""The figures of the documentation. Colours are those of Okabe and Ito, which the colour-blind can tell apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

Floats = NDArray[np.float64]
ByLayer = Mapping[str, Floats]

BEFORE, AFTER = "#D55E00", "#0072B2"
LINES = ("#000000", "#D55E00", "#009E73", "#0072B2", "#CC79A7")
MARKERS = "osD^v"
matplotlib.rcParams.update({"font.size": 11, "axes.spines.top": False, "axes.spines.right": False})


def save(figure: Figure, path: Path) -> None:
    """Write a figure as PNG with few colours, which keeps it small."""
    figure.savefig(path, dpi=150, facecolor="white")
    Image.open(path).convert("RGB").quantize(128, dither=Image.Dither.NONE).save(path, optimize=True)


def means(before: ByLayer, after: ByLayer, other: ByLayer, photographs: tuple[int, int], path: Path) -> None:
    """The mean activation of every filter, before and after."""
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    count = sum(map(len, before.values()))
    filters(left, before, BEFORE, median=True)
    filters(right, other, AFTER)
    for place, values in enumerate(after.values()):
        right.plot(place + np.linspace(-0.42, 0.42, len(values)), values, "-", color="black", linewidth=2, zorder=3)
    left.set_title("original", loc="left", color=BEFORE, fontweight="bold")
    right.set_title("normalized", loc="left", color=AFTER, fontweight="bold")
    left.set_ylabel("mean activation of a filter")
    note = (
        f"black: every filter, on the {photographs[0]} photographs that it was calibrated on\n"
        f"dots: every filter, on {photographs[1]} other photographs"
    )
    right.text(0.99, 0.97, note, transform=right.transAxes, ha="right", va="top", fontsize=10, color="#333333")
    left.text(0.01, 0.03, "black: median of the layer", transform=left.transAxes, fontsize=10, color="#333333")
    figure.suptitle(f"VGG-16: mean activation of each of its {count:,} filters", x=0.01, ha="left")
    save(figure, path)


def filters(axes: Axes, layers: ByLayer, colour: str, *, median: bool = False) -> None:
    """A column of dots for each layer, if wanted with a short line at the median."""
    rng = np.random.default_rng(0)
    for place, values in enumerate(layers.values()):
        spread = rng.uniform(-0.32, 0.32, len(values))
        axes.plot(place + spread, values, ".", color=colour, markersize=3.5, alpha=0.5, markeredgewidth=0)
        if median:
            axes.hlines(np.median(values), place - 0.4, place + 0.4, color="black", linewidth=1.4, zorder=3)
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.set_xticks(range(len(layers)), list(layers), rotation=60, ha="right", rotation_mode="anchor", fontsize=9)
    axes.grid(axis="y", color="#dddddd", linewidth=0.7)
    axes.axhline(1, color="#888888", linewidth=0.8, zorder=0)


def grams(before: ByLayer, after: ByLayer, path: Path) -> None:
    """The entries of the Gram matrices of the style, layer by layer."""
    figure = Figure(figsize=(6.4, 3.9), layout="constrained")
    axes = figure.subplots()
    for layers, colour, marker, name, side in (
        (before, BEFORE, "o", "original", -0.08),
        (after, AFTER, "s", "normalized", 0.08),
    ):
        places = np.arange(len(layers)) + side
        low, middle, high = (np.array([np.quantile(v, q) for v in layers.values()]) for q in (0.25, 0.5, 0.75))
        axes.vlines(places, low, high, color=colour, linewidth=2)
        axes.plot(places, middle, marker + "-", color=colour, markersize=7, linewidth=1)
        axes.annotate(name, (places[-1], middle[-1]), (10, 0), textcoords="offset points", color=colour, va="center")
    axes.set_yscale("log")
    axes.set_xlim(-0.4, len(before) + 0.1)
    axes.set_ylim(0.1, None)
    axes.set_xticks(range(len(before)), list(before))
    axes.set_ylabel("entries of the Gram matrix")
    axes.grid(axis="y", color="#dddddd", linewidth=0.7)
    axes.set_title("Gram matrices of the style: median and quartiles", loc="left", fontsize=11)
    save(figure, path)


def losses(before: Mapping[str, Sequence[float]], after: Mapping[str, Sequence[float]], path: Path) -> None:
    """The loss of every style layer: as it is, and as a share of its first value."""
    figure = Figure(figsize=(11, 6.8), layout="constrained")
    panels = figure.subplots(2, 2, sharex=True)
    for column, (history, name, colour) in enumerate(((before, "original", BEFORE), (after, "normalized", AFTER))):
        curves(panels[0, column], {layer: np.array(values) for layer, values in history.items()})
        curves(panels[1, column], {layer: np.array(values) / values[0] for layer, values in history.items()})
        panels[0, column].set_title(name, loc="left", color=colour, fontweight="bold")
        panels[1, column].set_xlabel("iteration")
    panels[0, 0].set_ylabel("loss of a layer")
    panels[1, 0].set_ylabel("loss of a layer / its first value")
    decades = max(np.log10(np.divide(*axes.get_ylim()[::-1])) for axes in panels[0])
    for axes in panels[0]:  # as many decades on both sides, wherever they are
        axes.set_ylim(axes.get_ylim()[1] / 10**decades, None)
    limits = [limit for axes in panels[1] for limit in axes.get_ylim()]
    for axes in panels[1]:
        axes.set_ylim(min(limits), max(limits))
    for axes in panels.flat:
        name_curves(axes)
    save(figure, path)


def curves(axes: Axes, layers: ByLayer) -> None:
    """A line for each layer, named at its end."""
    for index, (name, values) in enumerate(layers.items()):
        every = max(1, len(values) // 6)
        places = (index * every // len(layers), every)
        axes.plot(values, color=LINES[index], marker=MARKERS[index], markevery=places, markersize=5, label=name)
    axes.set_yscale("log")
    last = len(next(iter(layers.values()))) - 1
    axes.set_xlim(0, last * 1.2)
    axes.set_xticks([tick for tick in axes.get_xticks() if 0 <= tick <= last])
    axes.grid(axis="y", color="#dddddd", linewidth=0.7)


def name_curves(axes: Axes) -> None:
    """Write the name of each line beside its end; names that would overlap are moved apart."""
    low, high = np.log10(axes.get_ylim())
    lines = sorted((line for line in axes.get_lines()), key=lambda line: float(np.asarray(line.get_ydata())[-1]))
    place = -np.inf
    for line in lines:
        values = np.asarray(line.get_ydata(), np.float64)
        place = max(float(np.log10(values[-1])), place + 0.06 * (high - low))
        axes.annotate(str(line.get_label()), (len(values) - 1, 10**place), (8, 0), textcoords="offset points",
                      color=str(line.get_color()), va="center", fontsize=10)  # fmt: skip


def images(pictures: Mapping[str, Image.Image], path: Path) -> None:
    """Pictures in a row, each with its name above."""
    figure = Figure(figsize=(2.75 * len(pictures), 3.05), layout="constrained")
    for axes, (name, picture) in zip(figure.subplots(1, len(pictures)), pictures.items(), strict=True):
        axes.imshow(picture, interpolation="lanczos")
        axes.set_title(name, fontsize=11)
        axes.set_axis_off()
    figure.savefig(path, dpi=130, facecolor="white", pil_kwargs={"quality": 88, "optimize": True})
