"""A model as the walk reads it: nodes in order, the readers of each value, constants, and concrete shapes.

Shapes come from ONNX shape inference for concrete input shapes. Where a target shape is computed by nodes
(`Shape` → `Gather` → `Concat` → `Reshape`), those are evaluated with ONNX's reference implementation.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from typing import Any, NamedTuple

import onnx

from onnxnorm.errors import ModelError
from onnxnorm.model.boundary import model_errors
from onnxnorm.model.constants import Constant
from onnxnorm.model.containers import subgraphs
from onnxnorm.model.files import Model
from onnxnorm.model.inputs import InputSpec, settled, with_batch_axes
from onnxnorm.model.tensors import FLOATS, tensor_dtype

__all__ = [
    "KEEPS_ATTRIBUTES",
    "Graph",
    "Node",
    "Reader",
    "Resized",
    "all_names",
    "input_specs",
    "ordered_nodes",
    "readers_of",
]


KEEPS_ATTRIBUTES = "onnxnorm.keeps_attributes"
"""An entry in the metadata of a node whose attributes must keep their values at every level of freedom."""


class Reader(NamedTuple):
    """One place where a value is read: the index of the node, and the position among its inputs."""

    node: int
    input: int


@dataclass(frozen=True)
class Node:
    """A node of the main graph; `index` is its position in the ModelProto, which stays as it is.

    What a walk asks every node for is read once, since reading it from protobuf takes longer than anything else here.
    """

    index: int
    proto: onnx.NodeProto = field(repr=False)
    opset: int

    @cached_property
    def op(self) -> str:
        """Name of the operator, with its domain in front unless that is ONNX's own."""
        return f"{self.domain}::{self.proto.op_type}" if self.domain else self.proto.op_type

    @cached_property
    def domain(self) -> str:
        """The operator's domain; empty for ONNX's own."""
        return "" if self.proto.domain == "ai.onnx" else self.proto.domain

    @cached_property
    def label(self) -> str:
        """Name of the node in messages: its own, or that of its first output if it has none."""
        return self.proto.name or next((name for name in self.proto.output if name), f"#{self.index}")

    @cached_property
    def inputs(self) -> tuple[str, ...]:
        """Names of the inputs; empty for an optional input that is left out."""
        return tuple(self.proto.input)

    @cached_property
    def outputs(self) -> tuple[str, ...]:
        """Names of the outputs; empty for an optional output that is left out."""
        return tuple(self.proto.output)

    def attribute(self, name: str, default: Any = None) -> Any:
        """The value of an attribute, text decoded, or `default` if the node does not have it."""
        for attribute in self.proto.attribute:
            if attribute.name == name:
                value = onnx.helper.get_attribute_value(attribute)
                return value.decode(errors="replace") if isinstance(value, bytes) else value
        return default

    @property
    def keeps_attributes(self) -> bool:
        """Whether the attributes must keep their values, whatever may change else."""
        return any(entry.key == KEEPS_ATTRIBUTES for entry in self.proto.metadata_props)

    def captured(self) -> frozenset[str]:
        """Every name that the node's subgraphs read: all values that they capture, and some of their own."""
        return self._captured

    @cached_property
    def _captured(self) -> frozenset[str]:
        return frozenset(name for attribute in self.proto.attribute for name in _mentioned(attribute))


@dataclass(frozen=True)
class Resized:
    """What differs of a graph for inputs of another size: the shapes of its values, and its constants."""

    shapes: Mapping[str, tuple[int, ...]]
    constants: Mapping[str, Constant]


@dataclass(frozen=True)
class Graph:
    """The main graph, for one concrete shape of every input.

    Attributes:
        nodes: the nodes, each after those whose outputs it reads.
        constants: every constant, by name.
        shapes: the shape of every value whose shape is known.
        types: the ONNX element type of every value whose type is known.
        readers: where each value is read, by its name.
        batched: the axes of a value whose size depends on the number of samples, where the model leaves that open.
        varying: the axes of a value whose size depends on any size that the model leaves open.
        unsteady: values of which even the number of axes does.
        resized: the same graph for some other sizes.
        functions: domain and name of the model's own functions.
        claimed: values whose shape rests on what the file says, behind operators that shape inference does not know.
    """

    nodes: tuple[Node, ...]
    inputs: tuple[InputSpec, ...]
    outputs: tuple[str, ...]
    constants: Mapping[str, Constant]
    shapes: Mapping[str, tuple[int, ...]]
    types: Mapping[str, int]
    readers: Mapping[str, tuple[Reader, ...]]
    batched: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    varying: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    unsteady: frozenset[str] = frozenset()
    resized: tuple[Resized, ...] = field(repr=False, default=())
    functions: frozenset[tuple[str, str]] = frozenset()
    claimed: frozenset[str] = frozenset()

    @cached_property
    def by_index(self) -> Mapping[int, Node]:
        """The nodes by their index in the file."""
        return {node.index: node for node in self.nodes}

    def float_values(self) -> Iterator[str]:
        """Graph inputs and results of nodes that are floating point and not the same for every input."""
        names = [spec.name for spec in self.inputs] + [name for node in self.nodes for name in node.outputs if name]
        return (name for name in names if name not in self.constants and self.types.get(name) in FLOATS)


def ordered_nodes(model: Model) -> tuple[Node, ...]:
    """The nodes in topological order, which is the file's order if that is one already.

    Raises ModelError if the graph has a cycle.
    """
    opsets = {("" if o.domain == "ai.onnx" else o.domain): o.version for o in model.proto.opset_import}
    nodes = [Node(i, p, opsets.get(_domain(p), 1)) for i, p in enumerate(model.proto.graph.node)]
    producer = {name: node.index for node in nodes for name in node.outputs if name}
    needs = {
        node.index: [producer[name] for name in {*node.inputs, *node.captured()} if name in producer] for node in nodes
    }
    if all(source < index for index, sources in needs.items() for source in sources):
        return tuple(nodes)
    try:
        return tuple(nodes[index] for index in TopologicalSorter(needs).static_order())
    except CycleError as error:
        names = ", ".join(nodes[index].label for index in dict.fromkeys(error.args[1]))
        raise ModelError(f"the graph has a cycle through {names}; ONNX allows none, export the model again") from None


@model_errors("the model's inputs")
def input_specs(model: Model) -> tuple[InputSpec, ...]:
    """The inputs that a model must be fed: graph inputs without an initializer; its settings are applied.

    Raises:
        ModelError: if one is not a tensor or has no shape.
        OptionError: if its settings do not fit.
    """
    initialized = {tensor.name for tensor in model.proto.graph.initializer}
    specs: list[InputSpec] = []
    symbols: dict[str, list[str]] = {}
    for value in model.proto.graph.input:
        if value.name in initialized:
            continue
        if not value.type.HasField("tensor_type"):
            raise ModelError(f"graph input {value.name!r} is not a tensor; only tensor inputs can be fed")
        tensor = value.type.tensor_type
        if not tensor.HasField("shape"):
            raise ModelError(f"graph input {value.name!r} has no shape in the model; export it with one")
        shape = tuple(d.dim_value if d.dim_value > 0 else None for d in tensor.shape.dim)
        specs.append(InputSpec(value.name, shape, tensor_dtype(tensor.elem_type)))
        symbols[value.name] = [dim.dim_param for dim in tensor.shape.dim]
    return settled(with_batch_axes(specs, symbols), model.settings)


def readers_of(nodes: Sequence[Node]) -> dict[str, tuple[Reader, ...]]:
    """The places where each value is read, by its name, in the order of the nodes."""
    readers: dict[str, list[Reader]] = {}
    for node in nodes:
        for position, name in enumerate(node.inputs):
            if name:
                readers.setdefault(name, []).append(Reader(node.index, position))
    return {name: tuple(places) for name, places in readers.items()}


def _domain(proto: onnx.NodeProto) -> str:
    return "" if proto.domain == "ai.onnx" else proto.domain


def all_names(graph: onnx.GraphProto) -> set[str]:
    """Names of all values in a graph and in its subgraphs."""
    names = {tensor.name for tensor in graph.initializer}
    names |= {value.name for value in (*graph.input, *graph.output, *graph.value_info)}
    for node in graph.node:
        names |= {*node.input, *node.output}
        for attribute in node.attribute:
            for inner in subgraphs(attribute):
                names |= all_names(inner)
    return names


def _mentioned(attribute: onnx.AttributeProto) -> list[str]:
    names: list[str] = []
    for graph in subgraphs(attribute):
        names.extend(value.name for value in graph.output)
        for node in graph.node:
            names.extend(node.input)
            for inner in node.attribute:
                names.extend(_mentioned(inner))
    return names
