"""How many filters a rewrite brings to the target, and what keeps the others from it.

Under a ceiling, those that end there or below it are counted. Which levels of freedom would bring more filters to the
target is found on request: that takes as long as a plan.

A filter is *normalized* if its scale is its ideal one, `target / statistic ** strength`, up to rounding; with powers of
two, up to half a power. Tied filters have different ideal scales and share one, so few of them are normalized; pinned
filters keep scale 1. Dead filters have no ideal scale and do not count.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onnxnorm.errors import ModelError
from onnxnorm.model.shapes import read_graph
from onnxnorm.rewriting.ceiling import Ceiling
from onnxnorm.rewriting.opened import subjects_of
from onnxnorm.rewriting.rewrite import Rewriting
from onnxnorm.scaling.levels import LEVELS

__all__ = ["Reach", "reach_of"]

_CLOSE = 1e-3  # the largest difference of logarithms of scales that counts as equal


@dataclass(frozen=True)
class Reach:
    """How many filters a rewrite brings to the target.

    Attributes:
        normalized: number of filters that end at the target.
        live: number of filters that are not dead.
        obstacle: what keeps most of the others from it.
        advice: what to do about it.
        bound: how many of the others are pinned or tied.
    """

    normalized: int
    live: int
    obstacle: str
    advice: str
    bound: int = 0

    @property
    def share(self) -> float:
        """The share of live filters that end at the target; 1 if there are no live filters."""
        return self.normalized / self.live if self.live else 1.0

    def __str__(self) -> str:
        who = "nothing is normalized: none" if not self.normalized else f"only {self.normalized:,} ({self.share:.0%})"
        return f"{who} of {self.live:,} live filters end at the target: {self.obstacle}; {self.advice}"


def reach_of(rewriting: Rewriting, *, levels: bool = False) -> Reach:
    """Count the filters that a rewrite brings to the target.

    Args:
        rewriting: the rewrite.
        levels: whether the advice names the levels of freedom that would bring more filters to the target.
    """
    if rewriting.ceiling is not None:
        return _under_ceiling(rewriting, rewriting.ceiling)
    normalized = live = pinned = tied = 0
    slack = (0.5 if rewriting.power_of_two else 0.0) * np.log(2) + _CLOSE
    for layer in rewriting.scales.layers:
        ideal = rewriting.target / np.abs(layer.statistic[layer.live]) ** rewriting.strength
        close = np.abs(np.log(layer.scale[layer.live] / ideal)) <= slack
        normalized += int(close.sum())
        live += int(layer.live.sum())
        tied += int((~close & ~layer.pinned[layer.live]).sum())
        pinned += int((~close & layer.pinned[layer.live]).sum())
    return Reach(normalized, live, *_obstacle(rewriting, tied, levels), bound=pinned + tied)


def _under_ceiling(rewriting: Rewriting, found: Ceiling) -> Reach:
    live = [layer for layer in rewriting.scales.layers if layer.live.any()]
    low = sum(int((layer.after[layer.live] <= found.ceiling).sum()) for layer in live)
    levels = " or ".join(f"--allow {level}" for level in found.higher) or "onnxnorm verify --fp16"
    reason = found.above[0].reason if found.above else "the others are below the ceiling"
    return Reach(low, sum(int(layer.live.sum()) for layer in live), reason, f"{levels} may tell more")


def _obstacle(rewriting: Rewriting, tied: int, levels: bool) -> tuple[str, str]:
    """What keeps most filters from the target, and what to do about it."""
    first = rewriting.plan.barriers[0] if rewriting.plan.barriers else None
    if first is not None and tied <= first.channels:
        held = f"{first.channels:,} are held by {first.op} {first.node!r}: {first.reason}"
        outputs = first.op == "output"
        return held, "--outputs scale normalizes outputs too" if outputs else _look(rewriting, levels)
    shared = f"{tied:,} share a scale with others, where branches join or a bound holds for all channels"
    return shared if tied else "the others have no statistic", _look(rewriting, levels)


def _look(rewriting: Rewriting, levels: bool) -> str:
    look = "onnxnorm plan MODEL says why, layer by layer"
    gains = _gains(rewriting) if levels else []
    return f"{', '.join(gains)} of {rewriting.plan.filters:,} can reach it; {look}" if gains else look


def _gains(rewriting: Rewriting) -> list[str]:
    """The levels above that of a rewrite at which more filters can reach the target than below, each with how many."""
    higher = LEVELS[LEVELS.index(rewriting.level) + 1 :]
    if not higher:
        return []
    graph = rewriting.trace.graph
    shapes = {spec.name: graph.shapes[spec.name] for spec in graph.inputs}
    entries, model = rewriting.entries, rewriting.model  # what was rewritten can be rewritten as the original can
    outputs = "keep" if entries["keep_outputs"] == "true" else "scale"
    kind, per = entries["filters"], entries.get("per", "channel")
    try:
        subjects = subjects_of(read_graph(model, shapes), model, shapes, kind, outputs, per)  # type: ignore[arg-type]
    except ModelError:  # too large to be opened, say; the rewrite itself is done
        return []
    gains, most = [], subjects[rewriting.level].exact
    for level in higher:
        if subjects[level].exact > most:
            most = subjects[level].exact
            gains.append(f"with --allow {level} {most:,}")
    return gains
