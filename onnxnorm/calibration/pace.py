"""How many samples are run through the network at once.

A value that is read while it is still in the cache costs next to nothing, so a run should be small: its largest value
should fit. But each run also reads all weights once, so it should be so large that its activations outweigh them. What
remains is chosen by size alone, for the same samples must give the same statistics, however busy the machine is.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import onnx

from onnxnorm.model.graph import Graph
from onnxnorm.model.inputs import fixed_batch
from onnxnorm.scaling import Layer

__all__ = ["samples_a_run"]

_CACHE = 12 << 20  # bytes; a core's share of the last cache, as machines have it
_FLOAT = 4


def samples_a_run(graph: Graph, layers: Iterable[Layer], probe: onnx.GraphProto, threads: int) -> int:
    """Return how many samples to run at once on a CPU; at least one for each of the `threads` of a run.

    Args:
        graph: the model, read for the shapes of a sample.
        layers: the layers that are measured.
        probe: the graph that is run.
        threads: number of threads that share a run.
    """
    samples = fixed_batch(graph.inputs) or 1
    sizes = {name: math.prod(shape) * _FLOAT / samples for name, shape in graph.shapes.items()}
    largest = max((sizes[name] for name in graph.float_values() if name in sizes), default=0)
    activations = sum(sizes.get(layer.output, 0) for layer in layers)
    weights = sum(math.prod(tensor.dims) for tensor in probe.initializer) * _FLOAT
    fits = _CACHE / max(largest, 1)
    outweighs = weights / max(activations, 1)
    return max(1, threads, int(fits), math.ceil(outweighs))
