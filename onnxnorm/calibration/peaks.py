"""Measuring how large every value of a network becomes, inside the runtime: `calibrate --measure range`.

For each floating-point value, the largest and the smallest number of each sample leave the runtime, one of each for
every channel; the larger magnitude of the two is the *peak*. Two reductions read a value twice and write nothing, which
is cheaper than one reduction of its absolute value. A Relu and its like need no second one.

Infinity, as masks have it, counts as the largest number of float32.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

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

__all__ = ["PeakTap", "add_peaks"]

_INFINITE = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class PeakTap:
    """A value, and the outputs of the probe that hold the extremes of its channels.

    Attributes:
        value: name of the value.
        channels: number of channels.
        high: name of the output that holds the largest numbers.
        low: name of the one with the smallest numbers; empty where they are not negative.
        by_sample: whether the first axis of the outputs holds samples, or several rows of each.
    """

    value: str
    channels: int
    high: str
    low: str
    by_sample: bool

    def moments(self, results: Mapping[str, NDArray[Any]], count: int, batch: int) -> tuple[Value, Moments]:
        """The moments of the peaks of the first `count` samples of a batch, each of which counts the same."""
        high = np.asarray(results[self.high], np.float64)
        peaks = np.maximum(high, -np.asarray(results[self.low], np.float64)) if self.low else high
        peaks = np.minimum(np.where(np.isnan(peaks), _INFINITE, np.maximum(peaks, 0.0)), _INFINITE)
        rows = peaks.reshape(-1, self.channels)
        if self.by_sample and len(rows) % batch:
            raise ModelError(
                f"value {self.value!r} has {len(rows)} rows for {batch} samples: its first axis is not the batch"
            )
        if self.by_sample:
            peaks = rows.reshape(batch, -1, self.channels)[:count].max(axis=1, initial=0.0)
        else:
            peaks = np.broadcast_to(rows.max(axis=0, initial=0.0), (count, self.channels))
        return Value(self.value, PEAK), Moments.of_peaks(peaks)


def add_peaks(surgeon: gs.Graph, graph: Graph, axes: Mapping[str, Sequence[int]], prefix: str) -> tuple[PeakTap, ...]:
    """Append the operators that measure these values, and make what they measure outputs of the graph.

    Args:
        surgeon: the graph that is extended.
        graph: the same graph, as it was read.
        axes: the channel axes of every value that is measured, by its name.
        prefix: what new names begin with.
    """
    tensors, fixed = surgeon.tensors(), fixed_batch(graph.inputs)
    taps = []
    for index, (name, kept) in enumerate(axes.items()):
        value, shape = tensors[name], graph.shapes.get(name)
        dtype = graph.types[name]
        by_sample = _has_samples(graph, name, kept, fixed)
        rank = 0 if shape is None else len(shape)
        others = [axis for axis in range(rank) if axis not in kept and (axis or not by_sample)]
        if dtype not in {onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE}:
            value = append(surgeon, "Cast", value, f"{prefix}_float_{index}", {"to": onnx.TensorProto.FLOAT})
        channels = math.prod(shape[axis] for axis in kept) if shape is not None else 1
        high, low = f"{prefix}_high_{index}", f"{prefix}_low_{index}"
        names = {high: "ReduceMax"} if never_negative(tensors[name], graph) else {high: "ReduceMax", low: "ReduceMin"}
        for output, op in names.items():
            found = reduced(surgeon, op, value, output, others, whole=shape is None)
            found.dtype = np.dtype(np.float64 if dtype == onnx.TensorProto.DOUBLE else np.float32)
            surgeon.outputs.append(found)
        taps.append(PeakTap(name, channels, high, low if low in names else "", by_sample))
    return tuple(taps)


def _has_samples(graph: Graph, name: str, kept: Sequence[int], fixed: int | None) -> bool:
    """Whether the first axis of a value holds samples."""
    shape = graph.shapes.get(name)
    if not shape or 0 in kept:
        return False
    return shape[0] % fixed == 0 if fixed is not None else 0 in graph.batched.get(name, ())
