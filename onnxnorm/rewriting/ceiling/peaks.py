"""The largest magnitude of every channel of every value, as it was measured, and as it is where nodes were added.

What was measured belongs to the original graph. Added nodes multiply by 1 until the scales are known, so what they read
and what they write is as large as each other; a Clip whose bound was taken away passes on what it reads.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from onnxnorm.errors import StatisticsError
from onnxnorm.model.graph import Graph
from onnxnorm.rewriting.insertion import Insertion
from onnxnorm.scaling import Trace
from onnxnorm.scaling.channels import channel_axes
from onnxnorm.scaling.filters import Site
from onnxnorm.scaling.slots import ZERO
from onnxnorm.statistics import Moments, Statistics

__all__ = ["INFINITE", "ValuePeaks", "at_site", "measured_peaks", "peaks_behind", "value_peaks"]

INFINITE = float(np.finfo(np.float32).max)
"""A magnitude of this size stands for infinity, as masks have it."""

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


def measured_peaks(traced: Trace, statistics: Statistics | None, asked: str = "--ceiling") -> dict[str, Floats]:
    """The largest magnitudes of every value, by its name; each array broadcasts against the value.

    Args:
        traced: a walk over the graph as it is, at the level `constants`, with outputs that keep their scales.
        statistics: what was measured.
        asked: what needs it, for the message.

    Raises:
        StatisticsError: if there are none, or they are of a graph that was walked differently.
    """
    if statistics is None or not statistics.peaks:
        raise StatisticsError(
            f"{asked} needs to know how large every value becomes: calibrate this model with --measure range, and "
            "give what that writes as --stats"
        )
    found = {}
    peaks = statistics.peaks
    for name, axes in channel_axes(traced).items():
        moments, shape = peaks.get(name), traced.graph.shapes.get(name, ())
        if moments is None or moments.channels != math.prod(shape[axis] for axis in axes):
            raise StatisticsError(
                f"the statistics do not fit value {name!r}: they are of another version; calibrate this model again, "
                "with --measure range"
            )
        found[name] = _placed(moments, shape, axes)
    return found


def _placed(moments: Moments, shape: tuple[int, ...], axes: tuple[int, ...]) -> Floats:
    sizes = [size if axis in axes else 1 for axis, size in enumerate(shape)]
    assert moments.largest is not None, "peaks are largest magnitudes"
    return moments.largest.reshape(sizes)


def peaks_behind(peaks: Mapping[str, Floats], graph: Graph, insertion: Insertion) -> dict[str, Floats]:
    """The same for all values of the graph that a rewrite works on; those of values that are new follow."""
    known = dict(peaks)
    added = set(insertion.nodes)
    if not added:
        return known
    for node in reversed(graph.nodes):
        if node.proto.name in added and node.outputs[0] in known:
            known.setdefault(node.inputs[0], known[node.outputs[0]])
    for node in graph.nodes:
        if node.proto.name in added and node.inputs[0] in known:
            known.setdefault(node.outputs[0], known[node.inputs[0]])
    return known


def at_site(peaks: Mapping[str, Floats], site: Site, channels: int) -> Floats:
    """The largest magnitudes at a site, shape `(channels,)`; NaN where they are not known."""
    array = peaks.get(site.value)
    if array is None:
        return np.full(channels, np.nan)
    if array.ndim <= site.axis:
        return np.full(channels, float(array.max(initial=0.0)))
    others = tuple(axis for axis in range(array.ndim) if axis != site.axis)
    return np.broadcast_to(array.max(axis=others), (channels,)).astype(np.float64)


@dataclass(frozen=True)
class ValuePeaks:
    """The largest magnitude of each group of slots that a value has; arrays have shape `(groups of the value,)`."""

    value: str
    groups: Integers = field(repr=False)
    peaks: Floats = field(repr=False)

    def after(self, exponents: Integers) -> Floats:
        """The largest magnitudes after a rewrite by these exponents `(groups,)`."""
        return np.ldexp(self.peaks, exponents[self.groups])


def value_peaks(traced: Trace, peaks: Mapping[str, Floats]) -> list[ValuePeaks]:
    """The largest magnitudes of all values by group; infinite ones are left out."""
    found = []
    for name, array in peaks.items():
        ids = traced.ids.get(name)
        if ids is None:
            continue
        rank = max(ids.ndim, array.ndim)
        slots, largest = np.broadcast_arrays(
            ids.reshape((1,) * (rank - ids.ndim) + ids.shape), array.reshape((1,) * (rank - array.ndim) + array.shape)
        )
        counts = (slots != ZERO) & (largest < INFINITE)
        groups, places = np.unique(traced.groups.of[slots[counts]], return_inverse=True)
        most = np.zeros(len(groups))
        np.maximum.at(most, places, largest[counts])
        found.append(ValuePeaks(name, groups, most))
    return found
