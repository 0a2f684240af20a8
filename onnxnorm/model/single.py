"""Finds what is made for one sample at a time, although the model leaves the number of samples open.

An exporter that was shown one sample may write the batch 1 into the target of a Reshape. Such a model fails, with a
message of the runtime that does not say why, on two samples.
"""

from __future__ import annotations

import math

import numpy as np
import onnx

from onnxnorm.model.constants import stored_constants
from onnxnorm.model.files import Model
from onnxnorm.model.graph import Node, input_specs
from onnxnorm.model.inputs import fixed_batch
from onnxnorm.model.shapes import read_graph, sample_shapes

__all__ = ["single_sample_node"]


def single_sample_node(model: Model) -> Node | None:
    """Return the first Reshape whose target has room for one sample only; None if there is none, or if it is said."""
    targets = {node.input[1] for node in model.proto.graph.node if _is_reshape(node)}
    constants = stored_constants(model)
    whole = {name for name in targets & constants.keys() if (np.asarray(constants[name].values(), np.int64) > 0).all()}
    specs = input_specs(model)
    if not whole or fixed_batch(specs) is not None:
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
