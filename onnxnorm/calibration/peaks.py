"""Measuring how large every value of a network becomes, inside the runtime: `calibrate --measure range`.

For each floating-point value, the largest and the smallest number of each sample leave the runtime, one of each for
every channel; the larger magnitude of the two is the *peak*. Two reductions read a value twice and write nothing, which
is cheaper than one reduction of its absolute value. Where the kernels keep a value in blocks (`layout`), both are
pools, the one of the value, the other of its negative. Where channels come last, rows are reduced first, one after the
other, which stay in the cache: all positions at once take up to six times as long. Many values are not measured,
because their extremes follow from those of others (`links`).

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

from onnxnorm.calibration.fused import by_channel, keep_fused
from onnxnorm.calibration.layout import BLOCK
from onnxnorm.calibration.links import Link
from onnxnorm.calibration.parts import Extremes
from onnxnorm.calibration.signs import never_negative_values
from onnxnorm.calibration.taps import append, pooled, reduced
from onnxnorm.errors import ModelError
from onnxnorm.model.graph import Graph
from onnxnorm.model.inputs import fixed_batch
from onnxnorm.statistics import Moments, Value
from onnxnorm.statistics.measures import PEAK

__all__ = ["PeakTap", "add_peaks", "peak_moments"]

Results: TypeAlias = Mapping[str, NDArray[Any]]

_INFINITE = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class PeakTap:
    """A value, and where the extremes of its channels come from.

    Attributes:
        value: name of the value.
        channels: number of channels.
        high: name of the output of the probe that holds the largest numbers; empty if the value is not measured.
        low: name of the one with the smallest numbers; empty where they are not negative. The same as `high` where each
            channel has one number.
        by_sample: whether the first axis of the outputs holds samples, or several rows of each.
        negated: whether the numbers of `low` are the largest of the value's negative.
        link: how its extremes follow from those of other values; None if it is measured.
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
    """The moments of the peaks of the first `count` samples of a batch, each of which counts the same.

    The channels of all values are put side by side, because there may be many small values.
    """
    if not taps:
        return {}
    known = {tap.value: tap.extremes(results, count, batch) for tap in taps if tap.link is None}
    links = {tap.value: tap.link for tap in taps if tap.link is not None}
    for value in links:
        _follow(value, known, links)
    highs, lows = zip(*(known[tap.value] for tap in taps), strict=True)
    peaks = np.concatenate(highs, axis=1)
    np.maximum(peaks, np.negative(np.concatenate(lows, axis=1)), out=peaks)
    peaks = np.minimum(np.maximum(np.nan_to_num(peaks, copy=False, nan=_INFINITE), 0.0), _INFINITE)
    widths = [high.shape[1] for high in highs]
    every = Moments.of_peaks(peaks).cut(widths)
    return {Value(tap.value, PEAK): moments for tap, moments in zip(taps, every, strict=True)}


def _follow(value: str, known: dict[str, Extremes], links: Mapping[str, Link]) -> None:
    """Make the extremes of a value known, which follow by links; all on the way become known."""
    waiting = [value]
    while waiting:
        link = links[waiting[-1]] if waiting[-1] not in known else None
        missing = [source for source in link.sources if source not in known] if link is not None else []
        if missing:
            waiting += missing
            continue
        name = waiting.pop()
        if link is not None:
            known[name] = link.extremes([known[source] for source in link.sources])


def add_peaks(
    surgeon: gs.Graph,
    graph: Graph,
    axes: Mapping[str, Sequence[int]],
    links: Mapping[str, Link],
    blocked: frozenset[str] | None,
    means: Sequence[str],
    prefix: str,
) -> tuple[PeakTap, ...]:
    """Append the operators that measure these values, and make what they measure outputs of the graph.

    Args:
        surgeon: the graph that is extended.
        graph: the same graph, as it was read.
        axes: the channel axes of every value, by its name.
        links: how the extremes of some values follow from those of others.
        blocked: the values that the kernels keep in blocks; None if that is not known.
        means: the values that are averaged.
        prefix: what new names begin with.
    """
    fixed = fixed_batch(graph.inputs)
    samples = {name: _has_samples(graph, name, kept, fixed) for name, kept in axes.items()}
    links = {name: link for name, link in links.items() if _holds(link, samples, name)}
    small = {name for name, kept in axes.items() if _is_small(graph, name, kept, samples[name])}
    large = [name for name in axes if name not in links and name not in small]
    negated = keep_fused(surgeon, graph, large, means, blocked, f"{prefix}pass") if blocked is not None else {}
    tensors, positive, taps = surgeon.tensors(), never_negative_values(graph), []
    for index, (name, kept) in enumerate(axes.items()):
        shape, by_sample = graph.shapes.get(name), samples[name]
        channels = math.prod(shape[axis] for axis in kept) if shape is not None else 1
        if name in links:
            taps.append(PeakTap(name, channels, "", "", by_sample, link=links[name]))
            continue
        high, low = f"{prefix}_high_{index}", "" if name in positive else f"{prefix}_low_{index}"
        in_blocks = (
            blocked is not None and name in blocked and by_sample and tuple(kept) == (1,) and not channels % BLOCK
        )
        if name in small:
            tap = PeakTap(name, channels, high, high, by_sample)
            outputs = [append(surgeon, "Identity", _float(surgeon, tensors[name], graph, tap), high, {})]
        elif in_blocks:
            tap = PeakTap(name, channels, high, low, by_sample, negated=bool(low))
            outputs = list(_pooled(surgeon, tensors[name], tap, tensors.get(negated.get(name, ""))))
        else:
            tap = PeakTap(name, channels, high, low, by_sample)
            outputs = list(_reduced(surgeon, tensors[name], graph, tap, kept))
        for output in outputs:
            output.dtype = np.dtype(np.float64 if graph.types[name] == onnx.TensorProto.DOUBLE else np.float32)
            surgeon.outputs.append(output)
        taps.append(tap)
    return tuple(taps)


def _holds(link: Link, samples: Mapping[str, bool], name: str) -> bool:
    """Whether a link holds for each sample: all values have samples, or none has; a gate has one number for each."""
    return all(samples[source] == samples[name] for source in link.sources) and (samples[name] or not link.gate)


def _is_small(graph: Graph, name: str, kept: Sequence[int], by_sample: bool) -> bool:
    """Whether there is only one number for each channel, for inputs of any size."""
    shape = graph.shapes.get(name)
    if shape is None or name in graph.claimed:
        return False
    others = [axis for axis in range(len(shape)) if axis not in kept and (axis or not by_sample)]
    return all(shape[axis] == 1 and axis not in graph.varying.get(name, ()) for axis in others)


def _pooled(
    surgeon: gs.Graph, value: gs.Tensor, tap: PeakTap, positive_part: gs.Tensor | None
) -> Iterator[gs.Variable]:
    """Append pools of a value in blocks and of its negative, which a convolution makes without leaving the blocks.

    If there is a positive part, the value is its own negative already.
    """
    yield pooled(surgeon, "GlobalMaxPool", value if positive_part is None else positive_part, tap.high)
    if tap.low and positive_part is None:
        value = by_channel(surgeon, value, tap.channels, -1, f"{tap.low}_negative")
    if tap.low:
        yield pooled(surgeon, "GlobalMaxPool", value, tap.low)


def _reduced(
    surgeon: gs.Graph, value: gs.Tensor, graph: Graph, tap: PeakTap, kept: Sequence[int]
) -> Iterator[gs.Variable]:
    """Append reductions of a value over all axes but those of samples and channels."""
    shape = graph.shapes.get(tap.value)
    others = [axis for axis in range(len(shape or ())) if axis not in kept and (axis or not tap.by_sample)]
    value = _float(surgeon, value, graph, tap)
    last = len(others) > 1 and others[-1] < max(kept, default=0)  # channels stand behind all positions
    for op, name in (("ReduceMax", tap.high), ("ReduceMin", tap.low)):
        if name and last:
            rows = reduced(surgeon, op, value, f"{name}_rows", others[-1:])
            yield reduced(surgeon, op, rows, name, others[:-1])
        elif name:
            yield reduced(surgeon, op, value, name, others, whole=shape is None)


def _float(surgeon: gs.Graph, value: gs.Tensor, graph: Graph, tap: PeakTap) -> gs.Tensor:
    if graph.types[tap.value] in {onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE}:
        return value
    return append(surgeon, "Cast", value, f"{tap.high}_float", {"to": onnx.TensorProto.FLOAT})


def _has_samples(graph: Graph, name: str, kept: Sequence[int], fixed: int | None) -> bool:
    """Whether the first axis of a value holds samples."""
    shape = graph.shapes.get(name)
    if not shape or 0 in kept:
        return False
    return shape[0] % fixed == 0 if fixed is not None else 0 in graph.batched.get(name, ())
