"""Measuring how large every value of a network becomes, inside the runtime: `calibrate --measure range`.

For each floating-point value, the largest and the smallest number of each sample leave the runtime, one of each for
every channel; the larger magnitude of the two is the *peak*. Two reductions read a value twice and write nothing, which
is cheaper than one reduction of its absolute value. Where the kernels keep a value in blocks (`layout`), both are
pools, the one of the value, the other of its negative. Many values are not measured, because their extremes follow from
those of others (`links`).

Infinity, as masks have it, counts as the largest number of float32.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from onnxnorm.calibration.layout import BLOCK
from onnxnorm.calibration.links import Link
from onnxnorm.calibration.taps import append, never_negative, pooled, reduced
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
        negated: whether the numbers of `low` are the largest of the value's negative.
        link: how its extremes follow from those of another value; None if it is measured.
    """

    value: str
    channels: int
    high: str
    low: str
    by_sample: bool
    negated: bool = False
    link: Link | None = None

    def extremes(self, results: Results, count: int, batch: int) -> Extremes:
        """The largest and the smallest numbers of the first `count` samples of a batch, each `(count, channels)`.

        Args:
            results: the outputs of the probe by name.
            count: number of samples that count; the others only pad the batch.
            batch: number of samples in the batch.
        """
        high = self._rows(results[self.high], batch).max(axis=1, initial=-_INFINITE)
        low = self._lowest(results, batch) if self.low else np.zeros_like(high)
        if not self.by_sample:
            high, low = (np.broadcast_to(part, (batch, self.channels)) for part in (high, low))
        return high[:count], low[:count]

    def _lowest(self, results: Results, batch: int) -> NDArray[np.float64]:
        rows = self._rows(results[self.low], batch)
        return np.asarray((-rows if self.negated else rows).min(axis=1, initial=_INFINITE))

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
    measured = {tap.value: tap.extremes(results, count, batch) for tap in taps if tap.link is None}
    links = {tap.value: tap.link for tap in taps if tap.link is not None}
    moments = {}
    for tap in taps:
        high, low = _followed(tap.value, measured, links)
        peaks = np.maximum(np.maximum(high, -low), 0.0)
        peaks = np.minimum(np.where(np.isnan(peaks), _INFINITE, peaks), _INFINITE)
        moments[Value(tap.value, PEAK)] = Moments.of_peaks(peaks)
    return moments


def _followed(value: str, known: dict[str, Extremes], links: Mapping[str, Link]) -> Extremes:
    """The extremes of a value, which follow from what is known by a chain of links; all on the way become known."""
    chain = [value]
    while chain[-1] not in known:
        chain.append(links[chain[-1]].source)
    for name, source in zip(chain[-2::-1], chain[:0:-1], strict=True):
        known[name] = links[name].extremes(*known[source])
    return known[value]


def add_peaks(
    surgeon: gs.Graph,
    graph: Graph,
    axes: Mapping[str, Sequence[int]],
    links: Mapping[str, Link],
    blocked: frozenset[str] | None,
    prefix: str,
) -> tuple[PeakTap, ...]:
    """Append the operators that measure these values, and make what they measure outputs of the graph.

    Args:
        surgeon: the graph that is extended.
        graph: the same graph, as it was read.
        axes: the channel axes of every value, by its name.
        links: how the extremes of some values follow from those of others.
        blocked: the values that the kernels keep in blocks; None if that is not known.
        prefix: what new names begin with.
    """
    fixed = fixed_batch(graph.inputs)
    samples = {name: _has_samples(graph, name, kept, fixed) for name, kept in axes.items()}
    tensors, taps = surgeon.tensors(), []
    for index, (name, kept) in enumerate(axes.items()):
        shape, by_sample = graph.shapes.get(name), samples[name]
        channels = math.prod(shape[axis] for axis in kept) if shape is not None else 1
        link = links.get(name)
        if link is not None and samples[link.source] == by_sample:
            taps.append(PeakTap(name, channels, "", "", by_sample, link=link))
            continue
        low = "" if never_negative(tensors[name], graph) else f"{prefix}_low_{index}"
        in_blocks = (
            blocked is not None and name in blocked and by_sample and tuple(kept) == (1,) and not channels % BLOCK
        )
        tap = PeakTap(name, channels, f"{prefix}_high_{index}", low, by_sample, negated=bool(low) and in_blocks)
        outputs = (
            _pooled(surgeon, tensors[name], tap) if in_blocks else _reduced(surgeon, tensors[name], graph, tap, kept)
        )
        for output in outputs:
            output.dtype = np.dtype(np.float64 if graph.types[name] == onnx.TensorProto.DOUBLE else np.float32)
            surgeon.outputs.append(output)
        taps.append(tap)
    return tuple(taps)


def _pooled(surgeon: gs.Graph, value: gs.Tensor, tap: PeakTap) -> Iterator[gs.Variable]:
    """Append pools of a value in blocks, and of its negative, which a convolution makes without leaving the blocks."""
    yield pooled(surgeon, "GlobalMaxPool", value, tap.high)
    if tap.low:
        weight = gs.Constant(f"{tap.low}_weight", np.full((tap.channels, 1, 1, 1), -1, np.float32))
        attributes = {"kernel_shape": [1, 1], "group": tap.channels}
        negative = append(surgeon, "Conv", value, f"{tap.low}_negative", attributes, weight)
        yield pooled(surgeon, "GlobalMaxPool", negative, tap.low)


def _reduced(
    surgeon: gs.Graph, value: gs.Tensor, graph: Graph, tap: PeakTap, kept: Sequence[int]
) -> Iterator[gs.Variable]:
    """Append reductions of a value over all axes but those of samples and channels."""
    shape = graph.shapes.get(tap.value)
    others = [axis for axis in range(len(shape or ())) if axis not in kept and (axis or not tap.by_sample)]
    if graph.types[tap.value] not in {onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE}:
        value = append(surgeon, "Cast", value, f"{tap.high}_float", {"to": onnx.TensorProto.FLOAT})
    for op, name in (("ReduceMax", tap.high), ("ReduceMin", tap.low)):
        if name:
            yield reduced(surgeon, op, value, name, others, whole=shape is None)


def _has_samples(graph: Graph, name: str, kept: Sequence[int], fixed: int | None) -> bool:
    """Whether the first axis of a value holds samples."""
    shape = graph.shapes.get(name)
    if not shape or 0 in kept:
        return False
    return shape[0] % fixed == 0 if fixed is not None else 0 in graph.batched.get(name, ())
