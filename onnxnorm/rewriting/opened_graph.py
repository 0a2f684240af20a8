"""The graph of an opened model, from that of the model as it was.

What is added on an edge is a product with a constant of 1 for each channel, so the values on both sides of it have the
shape and the type of the one that was there, for inputs of every size: these are its *twins*. So nothing is inferred
again. Only where nodes are added behind constants, or where shapes rest on what the file says of its values, the
opened model is read as any other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

import onnx

from onnxnorm.model.constants import Constant, stored_constants
from onnxnorm.model.files import Model
from onnxnorm.model.graph import Graph, Node, Resized, ordered_nodes, readers_of
from onnxnorm.model.shapes import read_graph
from onnxnorm.rewriting.insertion import Insertion

__all__ = ["opened_graph"]

Known = TypeVar("Known")


def opened_graph(
    graph: Graph, changed: Model, insertion: Insertion, input_shapes: Mapping[str, tuple[int, ...]]
) -> Graph:
    """The graph of an opened model.

    Args:
        graph: the graph of the model as it was.
        changed: the opened model.
        insertion: what was added to it.
        input_shapes: input shapes of one sample, by name.
    """
    if graph.claimed or any(opening.place == "computed" for opening in insertion.of.values()):
        return read_graph(changed, input_shapes)
    nodes = ordered_nodes(changed)
    twins = _twins(nodes, insertion)
    stored = stored_constants(changed)
    new = {name: stored[name] for name in insertion.constants}
    places = _places(nodes, insertion)

    def constants(known: Mapping[str, Constant]) -> dict[str, Constant]:
        computed = {name: constant for name, constant in known.items() if name not in stored}
        return stored | {name: replace(one, index=places[one.index]) for name, one in computed.items()}

    def shapes(known: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
        return _with_twins(known, twins) | {name: constant.shape for name, constant in new.items()}

    types = {name: onnx.helper.np_dtype_to_tensor_dtype(constant.dtype) for name, constant in new.items()}
    return replace(
        graph,
        nodes=nodes,
        constants=constants(graph.constants),
        shapes=shapes(graph.shapes),
        types=_with_twins(graph.types, twins) | types,
        readers=readers_of(nodes),
        batched=_with_twins(graph.batched, twins),
        varying=_with_twins(graph.varying, twins),
        unsteady=graph.unsteady | {twin for twin, value in twins.items() if value in graph.unsteady},
        resized=tuple(Resized(shapes(size.shapes), constants(size.constants)) for size in graph.resized),
    )


def _twins(nodes: Sequence[Node], insertion: Insertion) -> dict[str, str]:
    """The values that there are more, each with the one that it is a twin of."""
    added = set(insertion.nodes)
    twins: dict[str, str] = {}
    for node in nodes:
        if node.proto.name in added:
            value = insertion.of[node.inputs[1]].value
            twins |= {name: value for name in (node.inputs[0], node.outputs[0]) if name != value}
    return twins


def _places(nodes: Sequence[Node], insertion: Insertion) -> dict[int, int]:
    """The index of each node of the original in the opened model."""
    added = set(insertion.nodes)
    return dict(enumerate(sorted(node.index for node in nodes if node.proto.name not in added)))


def _with_twins(known: Mapping[str, Known], twins: Mapping[str, str]) -> dict[str, Known]:
    """What is known of every value, that of the twins included."""
    return {**known, **{twin: known[value] for twin, value in twins.items() if value in known}}
