"""Opens the batch of a model that was exported for one sample, where that gives the same numbers faster."""

from __future__ import annotations

from onnxnorm.calibration.options import CalibrationOptions
from onnxnorm.calibration.pace import is_light
from onnxnorm.errors import ModelError
from onnxnorm.model.files import Model
from onnxnorm.model.graph import Graph
from onnxnorm.model.open_batch import with_open_batch
from onnxnorm.model.shapes import assumed_shapes, read_graph

__all__ = ["opened_model"]


def opened_model(model: Model, options: CalibrationOptions) -> Model | None:
    """A model that takes one sample at a time with its batch open, to be measured in its place; None if it is not.

    On a CPU a network with large values is as fast with one sample at a time, and takes less memory.
    """
    if options.batch_size is not None:
        return None
    on_device = options.engine == "local" and not options.runtime.on_cpu
    try:
        graph = read_graph(model, assumed_shapes(model))
        opened = with_open_batch(model, graph) if on_device or is_light(graph) else None
        return opened if opened and _is_understood(opened, graph) else None
    except ModelError:  # for sizes that are only assumed: the first sample has the real ones
        return None


def _is_understood(opened: Model, graph: Graph) -> bool:
    """Whether shape inference says of every value of the copy that it has rows, on which measurements rely."""
    batched = read_graph(opened, assumed_shapes(opened)).batched
    values = [*(spec.name for spec in graph.inputs), *(name for node in graph.nodes for name in node.outputs if name)]
    return all(batched.get(name) == (0,) for name in values if name not in graph.constants)
