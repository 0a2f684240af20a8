"""The figure of the benchmarks, drawn in a process of its own: what measures loads nothing large."""

from __future__ import annotations

from pathlib import Path

from tools.benchmarks.tasks import Given, Report, task

OURS, FLOOR, INK = "#0072B2", "#E69F00", "#222222"  # of Okabe and Ito, which the colour-blind can tell apart


@task
def draw_ratios(given: Given) -> Report:
    """One line a network: how many times bare inference ours takes, and from photographs how many times the floor."""
    import matplotlib
    from matplotlib.figure import Figure

    matplotlib.rcParams.update({"svg.hashsalt": "onnxnorm", "axes.spines.top": False, "axes.spines.right": False})
    shown = sorted(given["shown"].items(), key=lambda item: item[1][0], reverse=True)
    figure = Figure(figsize=(8, 1 + 0.22 * len(shown)), layout="constrained")
    axes = figure.subplots()
    places = range(len(shown))
    axes.scatter([ratios[0] for _, ratios in shown], places, color=OURS, label="arrays, to bare inference", zorder=3)
    floors = [float("nan") if ratios[1] is None else ratios[1] for _, ratios in shown]
    axes.scatter(floors, places, marker="D", s=18, color=FLOOR, label="photographs, to the floor")
    axes.axvline(1, color=INK, linewidth=0.8)
    axes.axvline(given["limit"], color=INK, linewidth=0.8, linestyle=":", label=f"{given['limit']}, as asked")
    axes.set_yticks(places, [name for name, _ in shown], fontsize=8)
    axes.grid(axis="x", color="#DDDDDD")
    axes.set_xlabel("times as long")
    axes.legend(loc="lower left", fontsize=8)
    Path(given["path"]).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(given["path"], facecolor="white", metadata={"Date": None, "Creator": None})
    return {}
