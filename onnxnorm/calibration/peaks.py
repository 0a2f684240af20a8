"""Measuring how large every value of a network becomes, inside the runtime: `calibrate --measure range`.

For each floating-point value, the largest and the smallest number of each sample leave the runtime, one of each for
every channel; the larger magnitude of the two is the *peak*. Two reductions read a value twice and write nothing, which
is cheaper than one reduction of its absolute value. What only moves numbers, and a Relu, is not measured: its extremes
follow from those of what it reads.

Infinity, as masks have it, counts as the largest number of float32.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from onnxnorm.calibration.taps import append, never_negative, reduced
from onnxnorm.errors import ModelError
from onnxnorm.model.graph import Graph
from onnxnorm.model.inputs import fixed_batch
from onnxnorm.statistics import Moments, Value
from onnxnorm.statistics.measures import PEAK

__all__ = ["PeakTap", "add_peaks", "peak_moments"]

Results: TypeAlias = Mapping[str, NDArray[Any]]
Extremes: TypeAlias = tuple[NDArray[np.float64], NDArray[np.float64]]

_INFINITE = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class PeakTap:
    """A value, and where the extremes of its channels come from.

    Attributes:
        value: name of the value.
        channels: number of channels.
        high: name of the output of the probe that holds the largest numbers; empty if the value is not measured.
        low: name of the one with the smallest numbers; empty where they are not negative.
        by_sample: whether the first axis of the outputs holds samples, or several rows of each.
        copied: name of the value whose extremes it has; empty if it is measured.
        positive: whether negative numbers of that value are 0 here.
    """

    value: str
    channels: int
    high: str
    low: str
    by_sample: bool
    copied: str = ""
    positive: bool = False

    def extremes(self, results: Results, known: Mapping[str, Extremes], count: int, batch: int) -> Extremes:
        """The largest and the smallest numbers of the first `count` samples of a batch, each `(count, channels)`.

        Args:
            results: the outputs of the probe by name.
            known: the extremes of values before this one.
            count: number of samples that count; the others only pad the batch.
            batch: number of samples in the batch.
        """
        if self.copied:
            high, low = known[self.copied]
            return (np.maximum(high, 0.0), np.maximum(low, 0.0)) if self.positive else (high, low)
        high = self._rows(results[self.high], batch).max(axis=1, initial=-_INFINITE)
        low = self._rows(results[self.low], batch).min(axis=1, initial=_INFINITE) if self.low else np.zeros_like(high)
        if not self.by_sample:
            high, low = (np.broadcast_to(part, (batch, self.channels)) for part in (high, low))
        return high[:count], low[:count]

    def _rows(self, result: NDArray[Any], batch: int) -> NDArray[np.float64]:
        """An output as `(samples, rows, channels)`, of one sample if it has none."""
        rows = np.asarray(result, np.float64).reshape(-1, self.channels)
        if self.by_sample and len(rows) % batch:
            raise ModelError(
                f"value {self.value!r} has {len(rows)} rows for {batch} samples: its first axis is not the batch"
            )
        return rows.reshape(batch if self.by_sample else 1, -1, self.channels)


def peak_moments(taps: Sequence[PeakTap], results: Results, count: int, batch: int) -> dict[Value, Moments]:
    """The moments of the peaks of the first `count` samples of a batch, each of which counts the same."""
    known: dict[str, Extremes] = {}
    moments = {}
    for tap in taps:
        high, low = known[tap.value] = tap.extremes(results, known, count, batch)
        peaks = np.maximum(np.maximum(high, -low), 0.0)
        peaks = np.minimum(np.where(np.isnan(peaks), _INFINITE, peaks), _INFINITE)
        moments[Value(tap.value, PEAK)] = Moments.of_peaks(peaks)
    return moments


def add_peaks(
    surgeon: gs.Graph,
    graph: Graph,
    axes: Mapping[str, Sequence[int]],
    copied: Mapping[str, tuple[str, bool]],
    prefix: str,
) -> tuple[PeakTap, ...]:
    """Append the operators that measure these values, and make what they measure outputs of the graph.

    Args:
        surgeon: the graph that is extended.
        graph: the same graph, as it was read.
        axes: the channel axes of every value, by its name.
        copied: values that have the extremes of others (`scaling.channels`).
        prefix: what new names begin with.
    """
    tensors, fixed = surgeon.tensors(), fixed_batch(graph.inputs)
    taps: dict[str, PeakTap] = {}
    for index, (name, kept) in enumerate(axes.items()):
        value, shape = tensors[name], graph.shapes.get(name)
        dtype = graph.types[name]
        by_sample = _has_samples(graph, name, kept, fixed)
        channels = math.prod(shape[axis] for axis in kept) if shape is not None else 1
        source, positive = copied.get(name, ("", False))
        if source and taps[source].by_sample == by_sample:
            taps[name] = PeakTap(name, channels, "", "", by_sample, source, positive)
            continue
        rank = 0 if shape is None else len(shape)
        others = [axis for axis in range(rank) if axis not in kept and (axis or not by_sample)]
        if dtype not in {onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE}:
            value = append(surgeon, "Cast", value, f"{prefix}_float_{index}", {"to": onnx.TensorProto.FLOAT})
        high, low = f"{prefix}_high_{index}", f"{prefix}_low_{index}"
        names = {high: "ReduceMax"} if never_negative(tensors[name], graph) else {high: "ReduceMax", low: "ReduceMin"}
        for output, op in names.items():
            found = reduced(surgeon, op, value, output, others, whole=shape is None)
            found.dtype = np.dtype(np.float64 if dtype == onnx.TensorProto.DOUBLE else np.float32)
            surgeon.outputs.append(found)
        taps[name] = PeakTap(name, channels, high, low if low in names else "", by_sample)
    return tuple(taps.values())


def _has_samples(graph: Graph, name: str, kept: Sequence[int], fixed: int | None) -> bool:
    """Whether the first axis of a value holds samples."""
    shape = graph.shapes.get(name)
    if not shape or 0 in kept:
        return False
    return shape[0] % fixed == 0 if fixed is not None else 0 in graph.batched.get(name, ())
