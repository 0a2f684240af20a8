"""Filters, and where the activation of each is measured.

From a filter's own output a breadth-first search passes through operators that keep its channel (BatchNormalization,
addition of or multiplication by constants, the Add of a residual block, pooling, ...) to the first non-linearity; the
filter is measured by the mean of that one's output. Several nodes that are one activation together, such as
`x * Sigmoid(x)`, count as one non-linearity (`composites`). If the search first meets a mixing operator, an operator
that rearranges channels or a graph output, the filter is measured by the mean absolute value of its own output, after
its BatchNormalization and constants.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import onnx

from onnxnorm.model.graph import Graph, Node
from onnxnorm.model.inputs import fixed_batch
from onnxnorm.model.tensors import FLOATS
from onnxnorm.scaling.composites import rejoined
from onnxnorm.scaling.laws import LAWS, Role
from onnxnorm.scaling.slots import Ids, at_rank
from onnxnorm.scaling.walk import Trace

__all__ = ["FilterKind", "Layer", "Measure", "Site", "find_layers", "has_rows_of_samples", "slots_at", "why_no_layers"]

FilterKind = Literal["conv", "all"]
Measure = Literal["mean", "mean_abs"]

_CONVOLUTIONS = {"Conv", "ConvTranspose"}
_DENSE = {"Gemm", "MatMul"}
_WITH_CONSTANT = {"Add", "Sub", "Sum", "Mul", "Div"}
_READS_SHAPES = {"Shape", "Size"}
_STRAIGHT_ON = {"BatchNormalization", "Identity", "Dropout", "Cast"}


@dataclass(frozen=True)
class Site:
    """Where channels are measured.

    Attributes:
        value: name of the value.
        axis: its channel axis.
        measure: what is averaged over all other axes: "mean" the activation, "mean_abs" its absolute value.
        batch: its batch axis.
    """

    value: str
    axis: int
    measure: str
    batch: int = 0


@dataclass(frozen=True)
class Layer:
    """The filters of one node.

    Attributes:
        node: name of the node.
        op: its operator.
        output: the value that it writes.
        channels: number of filters.
        site: where they are measured.
        slots: the slot of each filter at that site, shape `(channels,)`.
        computed: whether the weights are not constant.
    """

    node: str
    op: str
    output: str
    channels: int
    site: Site
    slots: Ids = field(repr=False)
    computed: bool = False


def find_layers(trace: Trace, kind: FilterKind = "conv") -> tuple[Layer, ...]:
    """Find every layer of filters, in the order of the nodes.

    Args:
        trace: a walk over the graph.
        kind: "conv" for convolutions; "all" for dense layers (Gemm, MatMul) with constant weights too.
    """
    graph = trace.graph
    consumers = _consumers(graph)
    place = {node.index: index for index, node in enumerate(graph.nodes)}
    layers = []
    for node in graph.nodes:
        axis = _channel_axis(node, graph, kind) if node.outputs else None
        if axis is None or node.outputs[0] not in trace.ids:
            continue
        own = node.outputs[0]
        channels = _channel_count(trace, own, axis)
        if channels is None:
            continue
        sites = (_activated(graph, consumers, place, own, axis, channels), _own_output(graph, consumers, own, axis))
        for site in (*sites, Site(own, axis, "mean_abs")):
            slots = None if site is None else slots_at(trace.ids, graph, site, channels)
            if site is not None and slots is not None:
                computed = not any(name in graph.constants for name in node.inputs[:2])
                layers.append(Layer(node.label, node.op, own, channels, site, slots, computed))
                break
    return tuple(layers)


def has_rows_of_samples(graph: Graph, site: Site) -> bool:
    """Whether the batch axis of a site holds samples, as far as is known."""
    shape, fixed = graph.shapes.get(site.value), fixed_batch(graph.inputs)
    if shape is None:
        return True
    if fixed is not None:
        return not shape[site.batch] % fixed
    axes = graph.batched.get(site.value, ())  # none also where they are not known
    return not axes or site.batch in axes


def why_no_layers(proto: onnx.ModelProto, kind: FilterKind) -> str:
    """A sentence on why a model without layers of filters has none, and what to do."""
    inside = sum(node.op_type in _CONVOLUTIONS for function in proto.functions for node in function.node)
    dense = sum(node.op_type in _DENSE for node in proto.graph.node)
    nothing = "the model has no convolutions to normalize"
    if inside:
        return f"{nothing} outside of functions of its own, which hold {inside}; inline these, with onnx.inliner"
    if kind == "conv" and dense:
        return f"{nothing}; with --filters all, dense layers count too (it has {dense})"
    return nothing if kind == "conv" else f"{nothing}, and no dense layers with constant weights"


def _channel_axis(node: Node, graph: Graph, kind: FilterKind) -> int | None:
    if node.op in _CONVOLUTIONS:
        return 1
    weight = graph.constants.get(node.inputs[1]) if kind == "all" and node.op in _DENSE else None
    if weight is not None and len(weight.shape) > 1:
        axis = len(graph.shapes.get(node.outputs[0], ())) - 1
        return axis if axis >= 1 and axis not in graph.varying.get(node.outputs[0], ()) else None
    return None


def _channel_count(trace: Trace, value: str, axis: int) -> int | None:
    """Number of channels, if known: a convolution that reads an unknown operator may have slots but no shape."""
    shape = trace.graph.shapes.get(value) or trace.ids[value].shape
    return shape[axis] if len(shape) > axis else None


def _consumers(graph: Graph) -> dict[str, list[Node]]:
    consumers = {name: [graph.by_index[reader.node] for reader in readers] for name, readers in graph.readers.items()}
    for node in graph.nodes:
        for name in node.captured():
            consumers.setdefault(name, []).append(node)
    return consumers


def _activated(
    graph: Graph, consumers: dict[str, list[Node]], place: dict[int, int], value: str, axis: int, channels: int
) -> Site | None:
    """The output of the first non-linearity, if the search meets only operators that keep the channel before it."""
    frontier, seen = [(value, axis, 0)], {value}
    while frontier:
        reached: list[tuple[str, int, int]] = []
        ended = False
        for name, along, batch in frontier:
            ended |= name in graph.outputs or not consumers.get(name)
            joined = rejoined(graph, consumers, place, name)
            if joined is not None and _has_channels(graph, joined, along, channels):
                return Site(joined, along, "mean", batch)
            for node in consumers.get(name, []):
                if node.op in _READS_SHAPES:
                    continue
                there_and_back = _reshaped_back(graph, consumers, node, name)
                if there_and_back is not None:
                    if there_and_back not in seen:
                        reached.append((there_and_back, along, batch))
                        seen.add(there_and_back)
                    continue
                role = _role(node, graph)
                target = node.outputs[0] if node.outputs else ""
                behind, batch_behind = (_axis_behind(node, graph, old) for old in (along, batch))
                fits = _has_channels(graph, target, behind, channels) and _may_be_float(graph, target)
                if role == "nonlinearity" and fits:
                    return Site(target, behind, "mean", batch_behind)
                if role == "transparent" and fits and target not in seen:
                    reached.append((target, behind, batch_behind))
                    seen.add(target)
                ended |= role not in {"transparent", "nonlinearity"} or not _may_be_float(graph, target)
        if ended:
            return None
        frontier = reached
    return None


def _has_channels(graph: Graph, value: str, axis: int, channels: int) -> bool:
    shape = graph.shapes.get(value, ())
    return len(shape) > axis and shape[axis] == channels


def _may_be_float(graph: Graph, value: str) -> bool:
    """Whether a value may be floating point; what a Cast makes integers of is measured before that."""
    return graph.types.get(value) in {None, *FLOATS}


def _reshaped_back(graph: Graph, consumers: dict[str, list[Node]], node: Node, value: str) -> str | None:
    """The value in which a Reshape is undone, where only operators that keep the shape stand between the two.

    An exporter writes a GroupNormalization like this: elements lie in the same order, so the channels are the same.
    """
    if node.op != "Reshape" or value not in graph.shapes:
        return None
    name, inner = node.outputs[0], graph.shapes.get(node.outputs[0])
    while inner is not None and name not in graph.outputs:
        behind = [reader for reader in consumers.get(name, []) if reader.op not in _READS_SHAPES]
        if len(behind) != 1 or not behind[0].outputs:
            return None
        name = behind[0].outputs[0]
        if behind[0].op == "Reshape":
            return name if graph.shapes.get(name) == graph.shapes[value] else None
        if _role(behind[0], graph) != "transparent" or graph.shapes.get(name) != inner:
            return None
    return None


def _own_output(graph: Graph, consumers: dict[str, list[Node]], value: str, axis: int) -> Site:
    """The filter's own output, or that of the BatchNormalizations and constants behind it that are its only readers."""
    while value not in graph.outputs and len(consumers.get(value, [])) == 1:
        (node,) = consumers[value]
        constant = node.op in _WITH_CONSTANT and all(name in graph.constants or name == value for name in node.inputs)
        if not node.outputs or (not constant and node.op not in _STRAIGHT_ON):
            break
        if not _may_be_float(graph, node.outputs[0]):
            break
        if not graph.shapes.get(value) or len(graph.shapes.get(node.outputs[0], ())) != len(graph.shapes[value]):
            break
        value = node.outputs[0]
    return Site(value, axis, "mean_abs")


def _role(node: Node, graph: Graph) -> Role:
    entry = LAWS.get(node.op)
    activations = sum(name not in graph.constants for name in node.inputs if name)
    if entry is None or node.captured():
        return "other"
    if node.op in {"Max", "Min"}:
        return "nonlinearity"
    if node.op in {"Mul", "Div"} and activations > 1:
        return "other"
    return entry.role


def _axis_behind(node: Node, graph: Graph, axis: int) -> int:
    """Where an axis of the input of a node is in its output; without an order, a Transpose reverses the axes."""
    if node.op != "Transpose":
        return axis
    order: list[int] = node.attribute("perm") or list(range(len(graph.shapes.get(node.outputs[0], ()))))[::-1]
    return order.index(axis) if axis in order else axis


def slots_at(all_ids: Mapping[str, Ids], graph: Graph, site: Site, channels: int) -> Ids | None:
    """Slots of a value along its channel axis, shape `(channels,)`; None if they vary along another axis.

    Args:
        all_ids: the slots of every value.
        graph: the graph.
        site: the value, and its axis.
        channels: number of channels.
    """
    ids = all_ids.get(site.value)
    if ids is None:
        return None
    shape = graph.shapes.get(site.value)
    ids = at_rank(ids, ids.ndim if shape is None else len(shape))
    if ids.size == 1:
        return np.broadcast_to(ids.reshape(-1), (channels,))
    if ids.ndim <= site.axis or ids.size != ids.shape[site.axis] or ids.size != channels:
        return None
    return ids.reshape(-1)
