"""Opens the batch of a model that was exported for one sample, where each sample stays by itself (`rows`).

Exporters write the batch of the example that they were shown, which is 1 as a rule: into the inputs, into the targets
of Reshapes, or both. The copy differs in these, and takes any number of samples.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import onnx
from onnx import numpy_helper

from onnxnorm.model.files import Model
from onnxnorm.model.graph import Graph, Node, all_names
from onnxnorm.model.rows import mixing_node

__all__ = ["with_open_batch"]

_LEAST_OPSET = 9  # since which all operators broadcast in one way, and sizes and scales are inputs


def with_open_batch(model: Model, graph: Graph) -> Model | None:
    """The model with its batch open, and the same digest; None if samples may mix, or if its opset is below 9.

    Args:
        model: a model whose inputs are fixed at one sample, or open.
        graph: the same model, read for one sample of any size that it allows.
    """
    single = all(spec.value is None and spec.batch == 0 and spec.samples in {1, None} for spec in graph.inputs)
    if not single or _opset(model.proto) < _LEAST_OPSET or mixing_node(graph) is not None:
        return None
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    fed = {spec.name for spec in graph.inputs}
    inputs = [value for value in proto.graph.input if value.name in fed]
    _open(proto, [*inputs, *(value for value in proto.graph.output if value.name not in graph.constants)])
    del proto.graph.value_info[:]
    proto.ir_version = max(4, proto.ir_version)  # since which an initializer need not be an input
    names = all_names(proto.graph)
    for node in graph.nodes:
        if node.op == "Reshape" and node.inputs[0] not in graph.constants and not _reopen(proto, graph, node, names):
            return None
    return replace(model, proto=proto, source_digest=model.digest())


def _opset(proto: onnx.ModelProto) -> int:
    return next((entry.version for entry in proto.opset_import if entry.domain in {"", "ai.onnx"}), 0)


def _open(proto: onnx.ModelProto, values: Iterable[onnx.ValueInfoProto]) -> None:
    """Give the first axis of each value one name that no other axis has."""
    sizes = {dim.dim_param for value in proto.graph.input for dim in value.type.tensor_type.shape.dim}
    name = "samples"
    while name in sizes:
        name += "_"
    for value in values:
        if value.type.tensor_type.shape.dim:
            value.type.tensor_type.shape.dim[0].dim_param = name


def _reopen(proto: onnx.ModelProto, graph: Graph, node: Node, names: set[str]) -> bool:
    """Let a Reshape keep as many rows as it is given, by a target of its own; returns whether that can be said."""
    constant = graph.constants[node.inputs[1]]
    target = np.array(constant.values(), np.int64)
    if target[0] != 1 or constant.by_shape:
        return True
    copies = not node.attribute("allowzero", 0)  # a size of 0 is that of the input then
    if not copies and -1 in target:
        return False
    target[0] = 0 if copies else -1
    name = f"{node.inputs[1]}_open"
    while name in names:
        name += "_"
    names.add(name)
    proto.graph.initializer.append(numpy_helper.from_array(target, name))
    proto.graph.node[node.index].input[1] = name
    return True
