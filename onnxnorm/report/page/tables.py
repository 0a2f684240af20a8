"""What the page says, as plain text in rows: made from a `ReportData`, shown by the template."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxnorm.data.images.preprocessing import Preprocessing
from onnxnorm.report.data import ReportData
from onnxnorm.report.page.text import clean, number, percent, ranges
from onnxnorm.rewriting import LayerScales
from onnxnorm.scaling.plan import PlannedBarrier, PlannedLayer
from onnxnorm.statistics import Value
from onnxnorm.statistics.precision import RelativeErrors

__all__ = ["BarrierRow", "DeadRow", "GroupRow", "LayerRow", "Tile", "barrier_rows", "dead_rows", "group_rows"]
__all__ += ["layer_errors", "layer_rows", "least_certain", "provenance", "tiles"]

Floats = NDArray[np.float64]
_EXAMPLES = 3
_GROUPS = 10
_WORST = 10
_DIGITS = 3


@dataclass(frozen=True)
class Tile:
    """A number that stands at the top of the page, what it counts, and a word about it."""

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
    """Barriers with the same operator and reason: how many, the filters that they pin, and some of them."""

    op: str
    reason: str
    places: str
    filters: str
    examples: tuple[tuple[str, str], ...]
    more: int


@dataclass(frozen=True)
class GroupRow:
    """Filters that share scales: how many, and the values that carry them."""

    filters: str
    values: tuple[str, ...]
    more: int


@dataclass(frozen=True)
class DeadRow:
    """The dead filters of a layer, and at most that many of its numbers."""

    node: str
    count: str
    numbers: str = field(repr=False)


def tiles(report: ReportData, errors: RelativeErrors) -> list[Tile]:
    """The page in six numbers."""
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
    """The table of layers."""
    together = zip(report.plan.layers, report.layers, layer_errors(report), strict=True)
    return [_layer_row(index, *found) for index, found in enumerate(together, start=1)]


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


def _count(found: int) -> str:
    return f"{found:,}" if found else ""


def _spread(values: Floats) -> tuple[str, str, str]:
    known = values[~np.isnan(values)]
    if not known.size:
        return "–", "–", "–"
    return number(known.min(), _DIGITS), number(float(np.median(known)), _DIGITS), number(known.max(), _DIGITS)


def _quantiles(errors: Floats) -> tuple[str, str]:
    return (percent(np.median(errors)), percent(np.quantile(errors, 0.95))) if errors.size else ("–", "–")


def layer_errors(report: ReportData) -> list[Floats]:
    """Per layer, the relative standard errors of the means of its live filters; none for a single image."""
    found = []
    for layer in report.layers:
        moments = report.statistics.values[Value(layer.layer.site.value, layer.layer.site.measure)]
        found.append(moments.relative_error[np.isfinite(moments.relative_error)])
    return found


def least_certain(report: ReportData, errors: RelativeErrors) -> list[tuple[str, str, str, str]]:
    """The filters whose means are least certain: layer, channel, mean, relative standard error."""
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
    """The dead filters, by layer."""
    return [
        DeadRow(clean(layer.layer.node), f"{int(layer.dead.sum()):,}", ranges(np.flatnonzero(layer.dead).tolist()))
        for layer in report.layers
        if layer.dead.any()
    ]


def barrier_rows(barriers: Iterable[PlannedBarrier]) -> list[BarrierRow]:
    """Barriers with the same operator and reason as one row, those that pin most first."""
    same: dict[tuple[str, str], list[PlannedBarrier]] = {}
    for barrier in barriers:
        same.setdefault((barrier.op, barrier.reason), []).append(barrier)
    ordered = sorted(same.items(), key=lambda item: -sum(barrier.channels for barrier in item[1]))
    return [
        BarrierRow(
            op=clean(op),
            reason=clean(reason),
            places=f"{len(found):,}",
            filters=f"{sum(barrier.channels for barrier in found):,}",
            examples=tuple((clean(barrier.node), clean(barrier.value)) for barrier in found[:_EXAMPLES]),
            more=max(0, len(found) - _EXAMPLES),
        )
        for (op, reason), found in ordered
    ]


def group_rows(report: ReportData) -> list[GroupRow]:
    """The largest sets of filters that share scales with others."""
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
    """Where everything comes from."""
    statistics = report.statistics
    found = [
        ("model", report.name),
        ("digest of the model", report.digest),
        ("input shapes of one sample", _shapes(statistics.shapes)),
        ("measured with", f"onnxnorm {statistics.version}, weighting by {statistics.weighting}"),
        ("preprocessing", preprocessing_text(statistics.inputs.get("preprocessing"))),
        *(("images", _source(source)) for source in statistics.inputs.get("sources", [])),
    ]
    if report.rewrite:
        entries = report.rewrite.entries
        found += [
            ("rewritten model", report.rewritten_name or ""),
            ("rewritten with", f"onnxnorm {entries.get('version', '?')}"),
            ("rewritten to", settings_text(report.settings)),
            ("digest of its statistics", entries.get("statistics", "none: no images were needed")),
        ]
    return [(label, clean(text)) for label, text in found]


def settings_text(settings: Mapping[str, str]) -> str:
    """How a model is rewritten, in a line."""
    strength = "" if float(settings["strength"]) == 1 else f", strength {float(settings['strength']):g}"
    power = ", scales rounded to powers of two" if settings["power_of_two"] == "true" else ""
    return f"{settings['statistic']} to {float(settings['target']):g}{strength}{power}"


def preprocessing_text(record: Mapping[str, Any] | None) -> str:
    """How images became inputs, in a line."""
    return Preprocessing.from_json(record).describe() if record else "arrays, taken as they are"


def _shapes(shapes: Mapping[str, Sequence[int]]) -> str:
    return ", ".join(f"{name} ({'×'.join(map(str, shape))})" for name, shape in shapes.items())


def _source(source: Mapping[str, Any]) -> str:
    shards = [shard for shard in source.get("shards", []) if shard != "0/1"]
    of = f", shards {', '.join(shards)}" if shards else ""
    size = float(source.get("bytes", 0)) / 1e6
    return f"{int(source.get('files', 0)):,} files, {size:,.1f} MB, digest {str(source.get('digest', '?'))[:16]}{of}"
