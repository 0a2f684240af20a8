"""How large every value of a network becomes, before and after a rewrite, from what `calibrate --measure range` stored.

Every channel of the rewritten network is `scale * channel` of the original, so its largest magnitude is that of the
original times its scale. That is exact, but for rounding, where all channels that were measured as one have one scale;
powers of two do not even round. Where they have several scales, the largest of these gives a bound: the value is at
most that large, and at least as large as with the smallest. Which of the two it is, is told for every value.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from onnxnorm.model.files import Model
from onnxnorm.model.graph import Graph
from onnxnorm.model.shapes import read_graph
from onnxnorm.rewriting.ceiling.peaks import INFINITE, measured_peaks, peaks_behind
from onnxnorm.rewriting.read_back import ReadBack, read_back
from onnxnorm.scaling import Ids, trace
from onnxnorm.scaling.slots import ZERO
from onnxnorm.statistics import Statistics

__all__ = ["StoredRanges", "stored_ranges"]

Floats = NDArray[np.float64]
_ASKED = "--fp16 from statistics"


@dataclass(frozen=True)
class StoredRanges:
    """The largest magnitudes of a network's values on the images of a calibration.

    Attributes:
        graph: the graph of the network.
        values: the largest magnitude of every value for which it is known, by its name.
        at_most: names of the values that are only known to be at most that large.
    """

    graph: Graph = field(repr=False)
    values: dict[str, float] = field(repr=False)
    at_most: frozenset[str] = frozenset()


def stored_ranges(
    model: Model, statistics: Statistics, rewritten: Model | None = None, read: ReadBack | None = None
) -> list[StoredRanges]:
    """The largest magnitudes that were measured on a model, and then those in its rewritten version if there is one.

    Args:
        model: the original.
        statistics: what was measured on it.
        rewritten: the rewritten model.
        read: what its record says, where that was read already.

    Raises:
        StatisticsError: if the ranges were not measured, or on another model.
        ModelError: if `rewritten` is not a rewrite of `model`, or its record is missing or damaged.
    """
    statistics.check_model(model.digest())
    graph = read_graph(model, statistics.shapes)
    measured = measured_peaks(trace(graph), statistics, _ASKED)
    before = StoredRanges(graph, {name: _largest(array, array) for name, array in measured.items()})
    if rewritten is None:
        return [before]
    read = read or read_back(model, rewritten, statistics.shapes)
    return [before, _after(measured, read, read_graph(rewritten, statistics.shapes))]


def _after(measured: Mapping[str, Floats], read: ReadBack, graph: Graph) -> StoredRanges:
    """The largest magnitudes in a rewritten model with this graph, from those of every channel in the original."""
    values, at_most = {}, set()
    for name, peaks in peaks_behind(measured, read.trace.graph, read.insertion).items():
        ids = read.trace.ids.get(name)
        if ids is None:
            continue
        least, values[name] = _bounds(peaks, ids, read.of_slot)
        if least < values[name]:
            at_most.add(name)
    return StoredRanges(graph, values, frozenset(at_most))


def _bounds(peaks: Floats, ids: Ids, of_slot: Floats) -> tuple[float, float]:
    """How large a value is at least and at most: equal where every number that was measured has one scale."""
    rank = max(peaks.ndim, ids.ndim)
    peaks = peaks.reshape((1,) * (rank - peaks.ndim) + peaks.shape)
    ids = ids.reshape((1,) * (rank - ids.ndim) + ids.shape)
    within = tuple(axis for axis in range(rank) if peaks.shape[axis] == 1 and ids.shape[axis] > 1)
    scales, padding = of_slot[ids], ids == ZERO  # zeros of a padding have any scale
    high = np.where(padding, 0.0, scales).max(axis=within, keepdims=True, initial=0.0)
    low = np.where(padding, np.inf, scales).min(axis=within, keepdims=True, initial=np.inf)
    low = np.where(np.isinf(low), high, low)
    return _largest(peaks, peaks * low), _largest(peaks, peaks * high)


def _largest(peaks: Floats, after: Floats) -> float:
    """The largest of some magnitudes; infinity if what was measured is."""
    return math.inf if (peaks >= INFINITE).any() else float(after.max(initial=0.0))
