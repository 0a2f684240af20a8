"""Finds why a model has to be run on one sample at a time, although it leaves the number of samples open.

An exporter that was shown one sample may write the batch 1 into the target of a Reshape. Such a model fails, with a
message of the runtime that does not say why, on two samples. And where a layer reads as many rows as an operator finds
in the samples, only a run of a single sample tells which rows are its own.
"""

from __future__ import annotations

import math

import numpy as np
import onnx

from onnxnorm.model.constants import stored_constants
from onnxnorm.model.files import Model
from onnxnorm.model.graph import Node, input_specs, ordered_nodes
from onnxnorm.model.inference import counted_values
from onnxnorm.model.inputs import fixed_batch
from onnxnorm.model.shapes import read_graph, sample_shapes

__all__ = ["why_single"]

_LAYERS = {"Conv", "ConvTranspose", "Gemm", "MatMul"}


def why_single(model: Model) -> str | None:
    """Return why a model must be run on one sample at a time; None if it need not, or if its batch is fixed."""
    if fixed_batch(input_specs(model)) is not None:
        return None
    reshape = _single_reshape(model)
    if reshape is not None:
        return (
            f"Reshape node {reshape.label!r} was exported for a batch of 1, so samples are run one at a time; export "
            "it with an open batch to run faster"
        )
    counting = _counting_node(model)
    if counting is not None:
        return (
            f"layers read as many rows as {counting.op} node {counting.label!r} finds in all samples together, so "
            "samples are run one at a time"
        )
    return None


def _counting_node(model: Model) -> Node | None:
    """The first node that finds a number of rows which a layer behind it reads; None if there is none."""
    source: dict[str, Node] = {}
    counted = counted_values(model.proto)
    for node in ordered_nodes(model) if counted else ():
        found = next((source[name] for name in node.inputs if name in source), None)
        if found is None and not counted.isdisjoint(node.outputs):
            found = node
        if found is not None and node.op in _LAYERS:
            return found
        if found is not None and node.op not in {"Shape", "Size"}:
            source.update((name, found) for name in node.outputs if name)
    return None


def _single_reshape(model: Model) -> Node | None:
    """The first Reshape whose target has room for one sample only; None if there is none, or if it is said."""
    targets = {node.input[1] for node in model.proto.graph.node if _is_reshape(node)}
    constants = stored_constants(model)
    whole = {name for name in targets & constants.keys() if (np.asarray(constants[name].values(), np.int64) > 0).all()}
    specs = input_specs(model)
    if not whole:
        return None
    shapes = sample_shapes(specs)
    for spec in specs:
        if spec.value is not None:
            shapes[spec.name] = spec.repeated(2).shape
        elif spec.batch is not None:
            shapes[spec.name] = tuple(2 if axis == spec.batch else s for axis, s in enumerate(shapes[spec.name]))
    graph = read_graph(model, shapes)
    for node in graph.nodes:
        if _is_reshape(node.proto) and node.inputs[1] in whole and node.inputs[0] in graph.shapes:
            room = math.prod(constants[node.inputs[1]].values().tolist())
            if math.prod(graph.shapes[node.inputs[0]]) == 2 * room:
                return node
    return None


def _is_reshape(node: onnx.NodeProto) -> bool:
    return node.op_type == "Reshape" and node.domain in {"", "ai.onnx"} and len(node.input) == 2
