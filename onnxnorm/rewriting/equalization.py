"""Cross-layer range equalization to convergence, over groups of channels instead of pairs of layers.

A weight `W[o, i]` becomes `W[o, i] * s_out[o] / s_in[i]`. For all layers together, this turns a matrix A of channels by
channels into `D A D^-1`. To *balance* A in the maximum norm is to make the range of the weights that write a channel,
`max |A[c, :]|`, equal to the range of those that read it, `max |A[:, c]|`::

    s[c] = sqrt(max over o of |A[o, c]| * s[o]  /  max over i of |A[c, i]| / s[i])

For two layers alone this is the formula of Nagel et al., Data-Free Quantization Through Weight Equalization and Bias
Correction (ICCV 2019), which AIMET applies pair by pair. Balancing is due to Osborne (JACM 7, 1960); Schulman and
Sinclair proved that it converges in the maximum norm (Analysis of a Classical Matrix Preconditioning Algorithm, JACM
64, 2017). In logarithms the right side is nonexpansive in the maximum norm, so iterating it with steps of one half from
s = 1 converges (Ishikawa, Proc. AMS 59, 1976) for any graph: branches, Concat and depthwise layers need no special
cases.

A BatchNormalization between a layer and its channels counts as part of that layer, `scale / sqrt(variance + epsilon)`.
Biases do not count. A channel's statistic is its imbalance, 1 / s, which the scale s brings to 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnxnorm.model.files import Model
from onnxnorm.model.graph import Node
from onnxnorm.rewriting.constants import rows_of
from onnxnorm.scaling import Edit, Layer, Trace
from onnxnorm.scaling.slots import at_rank

__all__ = ["imbalances"]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

_CLOSE = 1e-6  # the iteration ends when no logarithm of a scale changes by more than this
_SWEEPS = 10_000


@dataclass(frozen=True)
class _Edges:
    """Logarithm of the largest weight from each `source` to each `target` channel, `(edges,)`; channel 0 is pinned."""

    target: Integers
    source: Integers
    weight: Floats


def imbalances(model: Model, trace: Trace, layers: Sequence[Layer]) -> list[Floats]:
    """The imbalance of the channels of every layer.

    Returns:
        Per layer, shape `(channels,)`; NaN for channels that are pinned, or that no weight writes or no weight reads.
    """
    of = trace.groups.of
    channel = np.zeros(trace.groups.count, np.int64)  # of each group; balanced groups are numbered from 1
    filters = np.unique(np.concatenate([np.empty(0, np.int64), *(of[layer.slots] for layer in layers)]))
    balanced = filters[trace.groups.pinned[filters] < 0]
    channel[balanced] = np.arange(1, len(balanced) + 1)
    edges = _edges(model, trace, channel)
    logs = _balanced(edges, len(balanced) + 1)
    logs[0] = np.nan
    return [np.exp(-logs[channel[of[layer.slots]]]) for layer in layers]


def _balanced(edges: _Edges, count: int) -> Floats:
    """The logarithm of every channel's scale, shape `(count,)`; NaN where no weight writes or no weight reads it."""
    written = _Maxima(edges.target, count)
    read = _Maxima(edges.source, count)
    fixed = ~(written.any & read.any)
    fixed[0] = True
    logs = np.zeros(count)
    for _ in range(_SWEEPS):
        range_written = written.of(edges.weight - logs[edges.source])
        range_read = read.of(edges.weight + logs[edges.target])
        step = np.where(fixed, 0.0, 0.5 * (0.5 * (range_read - range_written) - logs))
        logs += step
        if np.abs(step).max(initial=0.0) < _CLOSE:
            break
    return np.where(fixed, np.nan, logs)


class _Maxima:
    """The maximum of values per index; 0 for an index without values."""

    def __init__(self, indices: Integers, count: int) -> None:
        self.order = np.argsort(indices, kind="stable")
        self.any = np.bincount(indices, minlength=count) > 0
        self.starts = np.searchsorted(indices[self.order], np.flatnonzero(self.any))
        self.count = count

    def of(self, values: Floats) -> Floats:
        maxima = np.zeros(self.count)
        if self.starts.size:
            maxima[self.any] = np.maximum.reduceat(values[self.order], self.starts)
        return maxima


def _edges(model: Model, trace: Trace, channel: Integers) -> _Edges:
    nodes = trace.graph.by_index
    gain = np.ones(trace.groups.count)
    target = channel.copy()
    edits = [edit.as_read for edit in trace.edits]
    weights = [edit for edit in edits if edit.times is not None and edit.over is not None]
    reads = np.zeros(trace.groups.count, np.int64)
    for edit in weights:
        assert edit.over is not None
        np.add.at(reads, np.unique(trace.groups.of[edit.over]), 1)
    mixing = []
    for edit in weights:
        node = nodes[edit.reader.node]
        if node.op != "BatchNormalization":
            mixing.append(edit)
            continue
        _normalize(edit, node, trace, channel, reads, gain, target)
    parts = [_pairs(model, edit, trace.groups.of, channel, target, gain) for edit in mixing]
    keys, weight = _largest(
        np.concatenate([np.empty(0, np.int64), *(keys for keys, _ in parts)]),
        np.concatenate([np.empty(0), *(largest for _, largest in parts)]),
    )
    targets, sources = np.divmod(keys, int(channel.max(initial=0)) + 1)
    return _Edges(targets, sources, np.log(weight))


def _normalize(
    edit: Edit, node: Node, trace: Trace, channel: Integers, reads: Integers, gain: Floats, target: Integers
) -> None:
    """Let weights that write the input of a BatchNormalization, its only reader, count as writing its output.

    `gain` and `target`, both `(groups,)`, are changed in place.
    """
    assert edit.times is not None
    assert edit.over is not None
    variance = trace.graph.constants[node.inputs[4]].values().astype(np.float64)
    deviation = np.sqrt(variance + node.attribute("epsilon", 1e-5))
    of = trace.groups.of
    out, into = of[edit.times].reshape(-1), of[edit.over].reshape(-1)
    out, into = (np.broadcast_to(groups, deviation.shape) for groups in (out, into))
    idle = (channel[into] == 0) & (reads[into] == 1)
    gain[into[idle]] = np.abs(edit.constant.values().astype(np.float64).reshape(-1) / deviation)[idle]
    target[into[idle]] = channel[out[idle]]


def _pairs(
    model: Model, edit: Edit, of: Integers, channel: Integers, target: Integers, gain: Floats
) -> tuple[Integers, Floats]:
    """Keys `target * channels + source` of the channels that a weight connects, and the largest magnitude of each."""
    assert edit.times is not None
    assert edit.over is not None
    times, over = (at_rank(of[ids], max(1, len(edit.constant.shape))) for ids in (edit.times, edit.over))
    inner = tuple(axis for axis in range(times.ndim) if times.shape[axis] == 1 and over.shape[axis] == 1)
    all_keys, largest = np.empty(0, np.int64), np.empty(0)
    for start, values in rows_of(model, edit.constant):
        size = np.abs(values.astype(np.float64))
        t, o = (groups[start : start + len(values)] if groups.shape[0] > 1 else groups for groups in (times, over))
        size = (size.max(axis=inner, keepdims=True) if inner else size) * gain[t]
        keys = np.broadcast_to(target[t] * (int(channel.max(initial=0)) + 1) + channel[o], size.shape)
        apart = (size > 0) & np.isfinite(size) & np.broadcast_to(target[t] != channel[o], size.shape)
        all_keys, largest = _largest(np.concatenate([all_keys, keys[apart]]), np.concatenate([largest, size[apart]]))
    return all_keys, largest


def _largest(keys: Integers, values: Floats) -> tuple[Integers, Floats]:
    """The distinct keys, and the largest value of each."""
    if not keys.size:
        return keys, values
    order = np.argsort(keys, kind="stable")
    keys, values = keys[order], values[order]
    starts = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]]))
    return keys[starts], np.maximum.reduceat(values, starts)
