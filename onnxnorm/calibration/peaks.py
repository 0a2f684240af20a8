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

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from onnxnorm.calibration.extremes import PeakTap
from onnxnorm.calibration.fused import by_channel, keep_fused
from onnxnorm.calibration.layout import BLOCK
from onnxnorm.calibration.links import Link
from onnxnorm.calibration.taps import append, pooled, reduced
from onnxnorm.model.graph import Graph
from onnxnorm.model.inputs import fixed_batch

__all__ = ["add_peaks"]


def add_peaks(
    surgeon: gs.Graph,
    graph: Graph,
    axes: Mapping[str, Sequence[int]],
    links: Mapping[str, Link],
    blocked: frozenset[str] | None,
    positive: frozenset[str],
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
        positive: the values that cannot be negative.
        means: the values that are averaged.
        prefix: what new names begin with.
    """
    fixed = fixed_batch(graph.inputs)
    samples = {name: _has_samples(graph, name, kept, fixed) for name, kept in axes.items()}
    links = {name: link for name, link in links.items() if _holds(link, samples, name)}
    small = {name for name, kept in axes.items() if _is_small(graph, name, kept, samples[name])}
    large = [name for name in axes if name not in links and name not in small]
    negated = keep_fused(surgeon, graph, large, means, blocked, f"{prefix}pass") if blocked is not None else {}
    tensors, taps = surgeon.tensors(), []
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
            value = _float(surgeon, tensors[name], graph, tap)
            outputs = [_flat(surgeon, value, high) if by_sample else append(surgeon, "Identity", value, high, {})]
        elif in_blocks:
            tap = PeakTap(name, channels, high, high if low else "", by_sample, negated=bool(low))
            outputs = [_pooled(surgeon, tensors[name], tap, tensors.get(negated.get(name, "")))]
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


def _pooled(surgeon: gs.Graph, value: gs.Tensor, tap: PeakTap, positive_part: gs.Tensor | None) -> gs.Variable:
    """Append pools of a value in blocks and of its negative, which a convolution makes without leaving the blocks.

    If there is a positive part, the value is its own negative already. The pools become one output, channels behind
    channels, because every node and every output has a price, which a small network notices.
    """
    if not tap.low:
        return pooled(surgeon, "GlobalMaxPool", value, tap.high)
    largest = append(
        surgeon, "GlobalMaxPool", value if positive_part is None else positive_part, f"{tap.high}_pool", {}
    )
    if positive_part is None:
        value = by_channel(surgeon, value, tap.channels, -1, f"{tap.high}_negative")
    smallest = append(surgeon, "GlobalMaxPool", value, f"{tap.high}_negative_pool", {})
    return _flat(surgeon, append(surgeon, "Concat", largest, f"{tap.high}_both", {"axis": 1}, smallest), tap.high)


def _reduced(
    surgeon: gs.Graph, value: gs.Tensor, graph: Graph, tap: PeakTap, kept: Sequence[int]
) -> Iterator[gs.Variable]:
    """Append reductions of a value over all axes but those of samples and channels; samples have one row."""
    shape = graph.shapes.get(tap.value)
    others = [axis for axis in range(len(shape or ())) if axis not in kept and (axis or not tap.by_sample)]
    value = _float(surgeon, value, graph, tap)
    last = len(others) > 1 and others[-1] < max(kept, default=0)  # channels stand behind all positions
    for op, name in (("ReduceMax", tap.high), ("ReduceMin", tap.low)):
        if not name:
            continue
        flat = not tap.by_sample or len(kept) == 1
        rows = reduced(surgeon, op, value, f"{name}_rows", others[-1:]) if last else value
        remaining = others[:-1] if last else others
        least = reduced(surgeon, op, rows, name if flat else f"{name}_channels", remaining, whole=shape is None)
        yield least if flat else _flat(surgeon, least, name)


def _flat(surgeon: gs.Graph, value: gs.Tensor, name: str) -> gs.Variable:
    """Append a node that makes one row of all that a sample has."""
    return append(surgeon, "Flatten", value, name, {"axis": 1})


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
