"""How many samples are run through the network at once, and how many are counted together.

A value that is read while it is still in the cache costs next to nothing, so a run should be small: its largest value
should fit into the small cache, or that of the first few samples into the large one. But each run also reads all
weights once, so it should be so large that its activations outweigh them. What remains is chosen by size alone, for the
same samples must give the same statistics, however busy the machine is.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import onnx

from onnxnorm.data.options import DEFAULT_BATCH
from onnxnorm.model.graph import Graph
from onnxnorm.model.inputs import fixed_batch, whole_batches
from onnxnorm.scaling import Layer

__all__ = ["is_light", "samples_a_run", "samples_together"]

_SMALL_CACHE = 2 << 20  # bytes; about a core's second cache
_CACHE = 12 << 20  # bytes; a core's share of the last cache, as machines have it,
_FEW = 4  # and the samples that are reason enough to use it
_FLOAT = 4
_SMALL = 2 << 20  # bytes of samples, below which more of them are read at a time
_MOST = 256
_LEAST_BATCHES = 32  # so that threads end together, and the standard error of a forecast has blocks to compare


def samples_a_run(
    graph: Graph, layers: Iterable[Layer], probe: onnx.GraphProto, threads: int, ranged: Iterable[str] = ()
) -> int:
    """Return how many samples to run at once on a CPU; at least one for each of the `threads` of a run.

    Args:
        graph: the model, read for the shapes of a sample.
        layers: the layers that are measured.
        probe: the graph that is run.
        threads: number of threads that share a run.
        ranged: the values whose range is measured, each of which is read as well.
    """
    sizes = _sizes(graph)
    largest = _largest(graph, sizes)
    activations = sum(sizes.get(name, 0) for name in (*(layer.output for layer in layers), *ranged))
    weights = sum(math.prod(tensor.dims) for tensor in probe.initializer) * _FLOAT
    fits = max(_SMALL_CACHE / max(largest, 1), min(_CACHE / max(largest, 1), _FEW))
    outweighs = weights / max(activations, 1)
    return max(1, threads, int(fits), math.ceil(outweighs))


def is_light(graph: Graph) -> bool:
    """Whether each value of a sample fits into the cache. Its speed depends on how memory is taken."""
    return _largest(graph, _sizes(graph)) <= _CACHE


def _largest(graph: Graph, sizes: Mapping[str, float]) -> float:
    """Bytes of the largest value of a sample; `sizes` are those of all values."""
    return max((sizes[name] for name in graph.float_values() if name in sizes), default=0)


def _sizes(graph: Graph) -> dict[str, float]:
    """Bytes of each value of a sample, as float32."""
    samples = fixed_batch(graph.inputs) or 1
    return {name: math.prod(shape) * _FLOAT / samples for name, shape in graph.shapes.items()}


def samples_together(sample_bytes: int | None, total: int | None, fixed: int | None) -> int:
    """Return how many samples to read and count together: more if they are small, and if there are many.

    Args:
        sample_bytes: size of one sample; None if it is not known before reading.
        total: number of samples; None if it is not known.
        fixed: the batch size of the model, of which the result is a multiple; None if it is free.
    """
    fit = DEFAULT_BATCH
    if sample_bytes is not None and total is not None:
        fit = max(fit, min(_SMALL // max(sample_bytes, 1), _MOST, total // _LEAST_BATCHES))
    return whole_batches(fit, fixed)
