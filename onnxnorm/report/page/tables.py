"""The tables of the page as rows of plain text: made from a `ReportData`, and shown by the templates."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxnorm.data.images.preprocessing import recipe_from_json
from onnxnorm.display import min_median_max
from onnxnorm.model.input_records import described
from onnxnorm.report.data import ReportData
from onnxnorm.report.page.text import clean, number, percent, ranges
from onnxnorm.rewriting import LayerScales
from onnxnorm.scaling.plan import PlannedBarrier, PlannedLayer
from onnxnorm.statistics import GIVEN, Value
from onnxnorm.statistics.precision import RelativeErrors

__all__ = ["BarrierRow", "DeadRow", "GroupRow", "LayerRow", "Tile", "barrier_rows", "dead_rows", "group_rows"]
__all__ += ["layer_errors", "layer_rows", "least_certain", "preprocessing_text", "provenance", "settings_text", "tiles"]

Floats = NDArray[np.float64]
_EXAMPLES = 3
_GROUPS = 10
_WORST = 10
_DIGITS = 3


@dataclass(frozen=True)
class Tile:
    """A number at the top of the page, what it counts, and a short note."""

    value: str
    label: str
    note: str = ""


@dataclass(frozen=True)
class LayerRow:
    """A row of the table of layers: smallest, median and largest mean, range of scales, median and 95 % of errors."""

    index: int
    node: str
    op: str
    value: str
    filters: str
    before: tuple[str, str, str]
    after: tuple[str, str, str]
    scale: tuple[str, str]
    error: tuple[str, str]
    tied: str
    pinned: str
    dead: str
    reasons: str


@dataclass(frozen=True)
class BarrierRow:
    """Barriers with the same operator and reason: their number, the filters that they pin, and some examples.

    Each example is the name of a node and of a value; `more` is the number of barriers that are not shown.
    """

    op: str
    reason: str
    places: str
    filters: str
    examples: tuple[tuple[str, str], ...]
    more: int


@dataclass(frozen=True)
class GroupRow:
    """Filters that share scales: their number, and the values that they are in; `more` values are not shown."""

    filters: str
    values: tuple[str, ...]
    more: int


@dataclass(frozen=True)
class DeadRow:
    """The dead filters of a layer: the node, how many there are, and their numbers."""

    node: str
    count: str
    numbers: str = field(repr=False)


def tiles(report: ReportData, errors: RelativeErrors) -> list[Tile]:
    """Return the numbers at the top of the page."""
    plan, statistics = report.plan, report.statistics
    skipped = f"{len(statistics.skipped):,} skipped" if statistics.skipped else "none skipped"
    return [
        Tile(f"{statistics.images:,}", "images", skipped),
        Tile(f"{plan.filters:,}", "filters", f"in {len(plan.layers):,} layers"),
        Tile(f"{plan.free:,}", "free", "own scale"),
        Tile(f"{plan.tied:,}", "tied", "share a scale"),
        Tile(f"{plan.pinned:,}", "pinned", "keep scale 1"),
        Tile(f"{plan.dead:,}", "dead", "keep scale 1"),
        Tile(percent(errors.quantile(0.5)), "standard error", f"median; {percent(errors.quantile(0.95))} at 95%"),
    ]


def layer_rows(report: ReportData) -> list[LayerRow]:
    """Return the table of layers."""
    layers = zip(report.plan.layers, report.layers, layer_errors(report), strict=True)
    return [_layer_row(index, *layer) for index, layer in enumerate(layers, start=1)]


def _layer_row(index: int, planned: PlannedLayer, layer: LayerScales, errors: Floats) -> LayerRow:
    live, moved = layer.live, layer.moved
    return LayerRow(
        index=index,
        node=clean(planned.node),
        op=clean(planned.op),
        value=f"abs({clean(planned.value)})" if planned.measure == "mean_abs" else clean(planned.value),
        filters=f"{planned.filters:,}",
        before=_spread(layer.statistic),
        after=_spread(layer.after[live]),
        scale=(number(moved.min(), _DIGITS), number(moved.max(), _DIGITS)) if moved.size else ("–", "–"),
        error=_quantiles(errors),
        tied=_count(planned.tied),
        pinned=_count(planned.pinned),
        dead=_count(int(layer.dead.sum())),
        reasons=clean("; ".join(planned.reasons)),
    )


def _count(count: int) -> str:
    return f"{count:,}" if count else ""


def _spread(values: Floats) -> tuple[str, str, str]:
    low, middle, high = min_median_max(values) or (None, None, None)
    return number(low, _DIGITS), number(middle, _DIGITS), number(high, _DIGITS)


def _quantiles(errors: Floats) -> tuple[str, str]:
    return (percent(np.median(errors)), percent(np.quantile(errors, 0.95))) if errors.size else ("–", "–")


def layer_errors(report: ReportData) -> list[Floats]:
    """Return for each layer the relative standard errors of its live filters, `(live,)`; none for a single image."""
    errors = []
    for layer in report.layers:
        moments = report.statistics.values[Value(layer.layer.site.value, layer.layer.site.measure)]
        errors.append(moments.relative_error[np.isfinite(moments.relative_error)])
    return errors


def least_certain(report: ReportData, errors: RelativeErrors) -> list[tuple[str, str, str, str]]:
    """Return the filters whose means are least certain: layer, channel, mean, relative standard error."""
    layers: dict[str, str] = {}
    for layer in report.layers:
        layers.setdefault(layer.layer.site.value, layer.layer.node)
    return [
        (
            clean(layers.get(value.name, value.name)),
            str(channel),
            number(report.statistics.values[value].mean[channel]),
            percent(error),
        )
        for value, channel, error in errors.worst(_WORST)
    ]


def dead_rows(report: ReportData) -> list[DeadRow]:
    """Return the dead filters, by layer."""
    return [
        DeadRow(clean(layer.layer.node), f"{int(layer.dead.sum()):,}", ranges(np.flatnonzero(layer.dead).tolist()))
        for layer in report.layers
        if layer.dead.any()
    ]


def barrier_rows(barriers: Iterable[PlannedBarrier]) -> list[BarrierRow]:
    """Return barriers with the same operator and reason as one row; the rows that pin most filters come first."""
    same: dict[tuple[str, str], list[PlannedBarrier]] = {}
    for barrier in barriers:
        same.setdefault((barrier.op, barrier.reason), []).append(barrier)
    ordered = sorted(same.items(), key=lambda item: -sum(barrier.channels for barrier in item[1]))
    return [
        BarrierRow(
            op=clean(op),
            reason=clean(reason),
            places=f"{len(alike):,}",
            filters=f"{sum(barrier.channels for barrier in alike):,}",
            examples=tuple((clean(barrier.node), clean(barrier.value)) for barrier in alike[:_EXAMPLES]),
            more=max(0, len(alike) - _EXAMPLES),
        )
        for (op, reason), alike in ordered
    ]


def group_rows(report: ReportData) -> list[GroupRow]:
    """Return the largest groups of filters that share scales with other filters and are not pinned."""
    tied = sorted((g for g in report.plan.groups if g.tied and not g.pinned), key=lambda group: -group.channels)
    return [
        GroupRow(
            f"{group.channels:,}",
            tuple(clean(name) for name in group.values[:_EXAMPLES]),
            max(0, len(group.values) - _EXAMPLES),
        )
        for group in tied[:_GROUPS]
    ]


def provenance(report: ReportData) -> list[tuple[str, str]]:
    """Return labels and texts that say where the models and the statistics come from."""
    statistics = report.statistics
    facts = [
        ("model", report.name),
        ("digest of the model", report.digest),
        ("input shapes of one sample", _shapes(statistics.shapes)),
        ("measured with", f"onnxnorm {statistics.version}, weighting by {statistics.weighting}"),
        ("preprocessing", preprocessing_text(statistics.inputs.get("preprocessing"))),
        *([("inputs", given)] if (given := described(statistics.inputs.get(GIVEN))) else []),
        *(("images", _source(source)) for source in statistics.inputs.get("sources", [])),
    ]
    if report.rewrite:
        entries = report.rewrite.entries
        facts += [
            ("rewritten model", report.rewritten_name or ""),
            ("rewritten with", f"onnxnorm {entries.get('version', '?')}"),
            ("rewritten to", settings_text(report.settings)),
            ("what could change", entries.get("level", "constants")),
            ("digest of its statistics", entries.get("statistics", "none: no images were needed")),
        ]
    return [(label, clean(text)) for label, text in facts]


def settings_text(settings: Mapping[str, str]) -> str:
    """Return in one line how a model is rewritten."""
    strength = "" if float(settings["strength"]) == 1 else f", strength {float(settings['strength']):g}"
    power = ", scales rounded to powers of two" if settings["power_of_two"] == "true" else ""
    return f"{settings['statistic']} to {float(settings['target']):g}{strength}{power}"


def preprocessing_text(record: Mapping[str, Any] | None) -> str:
    """Return in one line how images became inputs."""
    return recipe_from_json(record).describe() if record else "arrays, taken as they are"


def _shapes(shapes: Mapping[str, Sequence[int]]) -> str:
    return ", ".join(f"{name} ({'×'.join(map(str, shape))})" for name, shape in shapes.items())


def _source(source: Mapping[str, Any]) -> str:
    shards = [shard for shard in source.get("shards", []) if shard != "0/1"]
    of = f", shards {', '.join(shards)}" if shards else ""
    size = float(source.get("bytes", 0)) / 1e6
    return f"{int(source.get('files', 0)):,} files, {size:,.1f} MB, digest {str(source.get('digest', '?'))[:16]}{of}"
