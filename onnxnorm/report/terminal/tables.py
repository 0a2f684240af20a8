"""Tables of layers, barriers and dead filters for the terminal, as rich renderables."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from onnxnorm.display import min_median_max
from onnxnorm.rewriting import LayerScales, Scales
from onnxnorm.rewriting.additions import Additions, places
from onnxnorm.scaling import Plan

__all__ = ["added_table", "dead_lines", "layer_table", "plan_tables"]

_SHOWN_BARRIERS = 8
_SHOWN_NODES = 8
_SHOWN_LAYERS = 5
_SHOWN_FILTERS = 10


def layer_table(scales: Scales, statistic: str = "mean") -> Table:
    """Return a table with, for each layer, the statistic of its filters before and after, and dead and pinned filters.

    `statistic` is the name of the statistic.
    """
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("layer", "measured at"):
        table.add_column(name, overflow="fold")
    for name in ("filters", f"{statistic} before: min", "median", "max", "after: min", "max", "s.e.", "dead", "pinned"):
        table.add_column(name, justify="right", no_wrap=True)
    for layer in scales.layers:
        table.add_row(*_layer_row(layer))
    return table


def _layer_row(layer: LayerScales) -> list[str]:
    live = layer.live
    after = layer.after[live & ~layer.pinned]
    known = layer.relative_errors
    return [
        layer.layer.node,
        layer.layer.site.value + (" (abs)" if layer.layer.site.measure == "mean_abs" else ""),
        f"{layer.layer.channels:,}",
        *_spread(layer.statistic),
        *((_number(float(after.min())), _number(float(after.max()))) if after.size else ("-", "-")),
        f"{np.median(known):.0%}" if known.size else "-",
        str(int(layer.dead.sum())) if layer.dead.any() else "",
        str(int(layer.pinned.sum())) if layer.pinned.any() else "",
    ]


def _spread(values: NDArray[np.float64]) -> list[str]:
    found = min_median_max(values)
    return [_number(value) for value in found] if found else ["-"] * 3


def _number(value: float) -> str:
    return f"{value:.4g}"


def added_table(found: Additions) -> Sequence[Table | str]:
    """Return a table of the nodes that were added, and of the many that are left out their number; none for none."""
    if not found.nodes:
        return []
    table = Table(box=None, header_style="bold", pad_edge=False, title="Nodes added", title_justify="left")
    for name in ("node", "multiplies", "behind", "before"):
        table.add_column(name, overflow="fold")
    for name in ("factors", "elements"):
        table.add_column(name, justify="right", no_wrap=True)
    rows = places(found)
    for row in rows[:_SHOWN_NODES]:
        table.add_row(*row)
    more = len(rows) - _SHOWN_NODES
    return [table, *([f"... and {more:,} more; onnxnorm report lists all"] if more > 0 else []), ""]


def dead_lines(layers: Sequence[LayerScales]) -> list[str]:
    """Return one line for each layer with dead filters; if there are many, the first ones and their number."""
    dead = [layer for layer in layers if layer.dead.any()]
    lines = []
    for layer in dead[:_SHOWN_LAYERS]:
        numbers = np.flatnonzero(layer.dead).tolist()
        shown = ", ".join(map(str, numbers[:_SHOWN_FILTERS]))
        more = f", ... ({len(numbers):,} filters)" if len(numbers) > _SHOWN_FILTERS else ""
        lines.append(f"dead in {layer.layer.node}, their scale stays 1: {shown}{more}")
    if len(dead) > _SHOWN_LAYERS:
        count = sum(int(layer.dead.sum()) for layer in dead[_SHOWN_LAYERS:])
        lines.append(f"... and {count:,} dead filters in {len(dead) - _SHOWN_LAYERS} more layers")
    if len(dead) > _SHOWN_LAYERS or any(int(layer.dead.sum()) > _SHOWN_FILTERS for layer in dead):
        lines.append("all dead filters are listed by --json, and by onnxnorm report")
    return lines


def plan_tables(plan: Plan) -> Sequence[Table | str]:
    """Return a table of the layers, a table of the barriers that pin most filters, and a summary."""
    if plan.nothing:
        return [plan.nothing]
    layers = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("layer", "operator", "measured at"):
        layers.add_column(name, overflow="fold")
    for name in ("filters", "free", "tied", "pinned"):
        layers.add_column(name, justify="right")
    layers.add_column("why not free", overflow="fold")
    for layer in plan.layers:
        counts = [f"{count:,}" if count else "" for count in (layer.free, layer.tied, layer.pinned)]
        value = layer.value + (" (abs)" if layer.measure == "mean_abs" else "")
        layers.add_row(layer.node, layer.op, value, f"{layer.filters:,}", *counts, "; ".join(layer.reasons))
    shown: list[Table | str] = [layers, ""]
    if plan.barriers:
        barriers = Table(box=None, header_style="bold", pad_edge=False, title="What pins most", title_justify="left")
        for name in ("node", "operator", "value"):
            barriers.add_column(name, overflow="fold")
        barriers.add_column("filters", justify="right")
        barriers.add_column("reason", overflow="fold")
        for barrier in plan.barriers[:_SHOWN_BARRIERS]:
            barriers.add_row(barrier.node, barrier.op, barrier.value, f"{barrier.channels:,}", barrier.reason)
        shown += [barriers, ""]
    if plan.levels:
        shown += [_level_table(plan), ""]
    return [*shown, str(plan)]


def _level_table(plan: Plan) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False, title="What may change", title_justify="left")
    table.add_column("--allow")
    for name in ("can reach the target", "tied", "pinned", "attributes", "nodes added", "elements they touch"):
        table.add_column(name, justify="right")
    for level, given in plan.levels.items():
        counts = (given.tied, given.pinned, given.attributes_changed, given.nodes_added)
        touched = f"{given.elements_touched:.1%}" if given.nodes_added else ""
        own = f"{given.exact:,} ({given.exact / plan.filters:.0%})"
        table.add_row(level, own, *(f"{count:,}" if count else "" for count in counts), touched)
    return table
