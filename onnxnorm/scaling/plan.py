"""The plan: which filters of a network a rewrite can scale and what prevents the others, as plain data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxnorm.display import Shown, html_block, html_table
from onnxnorm.scaling.filters import Layer
from onnxnorm.scaling.freedom import shared_groups
from onnxnorm.scaling.levels import Level
from onnxnorm.scaling.slots import distinct
from onnxnorm.scaling.tying import tie_reasons
from onnxnorm.scaling.walk import Trace

__all__ = ["LevelPlan", "Plan", "PlannedBarrier", "PlannedGroup", "PlannedLayer", "make_plan", "tied_filters"]

_MOST = 8  # barriers shown in a notebook


@dataclass(frozen=True)
class PlannedLayer:
    """How many filters of a layer are free, tied and pinned, where they are measured, and why some are not free."""

    node: str
    op: str
    filters: int
    free: int
    tied: int
    pinned: int
    value: str
    measure: str
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class PlannedGroup:
    """Values that share their scales; `channels` filters have them, each one of its own unless they are tied."""

    values: tuple[str, ...]
    channels: int
    tied: bool
    pinned: bool


@dataclass(frozen=True)
class PlannedBarrier:
    """What pins filters: a node and a value, the number of filters (`channels`) pinned there, and the reason."""

    node: str
    op: str
    value: str
    channels: int
    reason: str


@dataclass(frozen=True)
class LevelPlan:
    """What one level of freedom would give.

    Attributes:
        free: number of filters that are neither tied nor pinned.
        tied: number of filters that share a scale with others, or depend on theirs.
        pinned: number of filters that keep scale 1.
        exact: number of filters that have a scale of their own at the place where they are measured, where several
            filters may add up; with one scale per layer, of filters in layers that have one of their own.
        attributes_changed: number of attributes that may follow scales.
        nodes_added: number of nodes that would be added.
        elements_touched: elements that these touch for one sample, as a share of all elements that the graph computes.
    """

    free: int
    tied: int
    pinned: int
    exact: int
    attributes_changed: int
    nodes_added: int
    elements_touched: float


@dataclass(frozen=True, repr=False)
class Plan(Shown):
    """Summary of what a rewrite can do to a network.

    The counts satisfy `free + pinned + tied = filters`. Dead filters are known only with statistics; `dead` is else 0.
    `levels` says what each level of freedom would give, where that was asked for. `nothing` says why there are no
    filters at all, and what to do; it is empty if there are some. `functions_inlined` is the number of the model's own
    functions that were inlined, because one of them holds a layer.
    """

    filters: int
    free: int
    pinned: int
    tied: int
    dead: int
    layers: tuple[PlannedLayer, ...]
    groups: tuple[PlannedGroup, ...]
    barriers: tuple[PlannedBarrier, ...]
    nothing: str = ""
    levels: Mapping[Level, LevelPlan] = field(default_factory=dict)
    functions_inlined: int = 0

    def __str__(self) -> str:
        if self.nothing:
            return self.nothing
        dead = f", {self.dead:,} dead" if self.dead else ""
        return (
            f"{self.filters:,} filters in {len(self.layers)} layers: {self.free:,} free, {self.tied:,} tied, "
            f"{self.pinned:,} pinned{dead}{self._inlined}"
        )

    @property
    def _inlined(self) -> str:
        return f"; {self.functions_inlined} functions of the model's own inlined" if self.functions_inlined else ""

    def _repr_html_(self) -> str:
        """The layers, and the barriers that pin most filters, as tables."""
        if self.nothing:
            return html_block(self.nothing)
        columns = ("layer", "operator", "measured at", ">filters", ">free", ">tied", ">pinned", "why not free")
        rows = [
            (
                layer.node,
                layer.op,
                f"abs({layer.value})" if layer.measure == "mean_abs" else layer.value,
                *(f"{count:,}" if count else "" for count in (layer.filters, layer.free, layer.tied, layer.pinned)),
                "; ".join(layer.reasons),
            )
            for layer in self.layers
        ]
        pinning = [
            (item.node, item.op, item.value, f"{item.channels:,}", item.reason) for item in self.barriers[:_MOST]
        ]
        barriers = html_table(("what pins most: node", "operator", "value", ">filters", "reason"), pinning)
        return html_block(str(self), html_table(columns, rows), *([barriers] if pinning else []))

    def to_json(self) -> dict[str, Any]:
        """The plan as plain data, in the format that `onnxnorm plan --json` prints."""
        return {
            "filters": self.filters,
            "free": self.free,
            "pinned": self.pinned,
            "tied": self.tied,
            "dead": self.dead,
            "barriers": [vars(barrier) for barrier in self.barriers],
            **({"functions_inlined": self.functions_inlined} if self.functions_inlined else {}),
            "groups": [vars(group) | {"values": list(group.values)} for group in self.groups],
            **({"levels": {level: vars(given) for level, given in self.levels.items()}} if self.levels else {}),
            "layers": [vars(layer) | {"reasons": list(layer.reasons)} for layer in self.layers],
        }


def make_plan(trace: Trace, layers: Sequence[Layer], dead: int = 0) -> Plan:
    """Summarize a trace for these layers of filters, `dead` of which are dead."""
    tied = tied_filters(trace, layers)
    why = tie_reasons(trace, layers, tied)
    planned = tuple(_layer(trace, *found) for found in zip(layers, tied, why, strict=True))
    return Plan(
        filters=sum(layer.filters for layer in planned),
        free=sum(layer.free for layer in planned),
        pinned=sum(layer.pinned for layer in planned),
        tied=sum(layer.tied for layer in planned),
        dead=dead,
        layers=planned,
        groups=_groups(trace, layers),
        barriers=_barriers(trace, layers),
    )


def tied_filters(trace: Trace, layers: Sequence[Layer]) -> list[NDArray[np.bool_]]:
    """Per layer, which filters share a scale with other filters, or depend on theirs; arrays of shape `(channels,)`."""
    tied = shared_groups(trace, layers)[trace.groups.of]
    return [tied[layer.slots] for layer in layers]


def _layer(trace: Trace, layer: Layer, tied: NDArray[np.bool_], why_tied: str) -> PlannedLayer:
    pinned = trace.groups.is_pinned(layer.slots)
    reasons = tuple(barrier.reason for barrier in trace.groups.reasons(layer.slots))
    return PlannedLayer(
        node=layer.node,
        op=layer.op,
        filters=layer.channels,
        free=int((~pinned & ~tied).sum()),
        tied=int(tied.sum()),
        pinned=int(pinned.sum()),
        value=layer.site.value,
        measure=layer.site.measure,
        reasons=tuple(dict.fromkeys([*reasons, *([why_tied] if why_tied else [])])),
    )


def _groups(trace: Trace, layers: Sequence[Layer]) -> tuple[PlannedGroup, ...]:
    """Filters' groups of slots; those that occur in the same values are combined into one entry."""
    if not layers:
        return ()
    filters = np.concatenate([trace.groups.of[layer.slots] for layer in layers])
    members = np.bincount(filters, minlength=trace.groups.count)
    names = list(trace.ids)
    slots = [distinct(ids) for ids in trace.ids.values()]
    found = trace.groups.of[np.concatenate(slots)]
    places = np.repeat(np.arange(len(names)), [len(ids) for ids in slots])
    pairs = np.unique((places * trace.groups.count + found)[members[found] > 0])
    appears: dict[int, list[int]] = {group: [] for group in np.unique(filters).tolist()}
    for place, group in zip(*(part.tolist() for part in np.divmod(pairs, trace.groups.count)), strict=True):
        appears[group].append(place)
    bundles: dict[tuple[int, ...], list[int]] = {}
    for group, values in appears.items():
        bundles.setdefault(tuple(values), []).append(group)
    return tuple(
        PlannedGroup(
            values=tuple(names[index] for index in values),
            channels=int(members[groups].sum()),
            tied=bool((members[groups] > 1).any()),
            pinned=bool((trace.groups.pinned[groups] >= 0).any()),
        )
        for values, groups in sorted(bundles.items())
    )


def _barriers(trace: Trace, layers: Sequence[Layer]) -> tuple[PlannedBarrier, ...]:
    """The barriers that pin filters, those that pin most first."""
    if not layers:
        return ()
    of = trace.groups.of
    filters = np.bincount(np.concatenate([of[layer.slots] for layer in layers]), minlength=trace.groups.count)
    costs: dict[int, int] = {}
    for ids, index in trace.groups.pins:
        costs[index] = costs.get(index, 0) + int(filters[np.unique(of[ids])].sum())
    pinning = [(channels, trace.groups.barriers[index]) for index, channels in costs.items() if channels]
    return tuple(
        PlannedBarrier(barrier.node, barrier.op, barrier.value, channels, barrier.reason)
        for channels, barrier in sorted(pinning, key=lambda item: -item[0])
    )
