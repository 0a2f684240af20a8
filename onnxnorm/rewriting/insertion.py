"""Opening a graph: constants of 1 are multiplied on edges, which the ordinary rewrite then scales like any others.

The opened model computes the same, number by number, since every added constant is 1. Every value keeps its name where
its filter is measured, but for graph outputs: their names belong to what is given out, so the value behind them is
called `onnxnorm_NAME`.

Only constants of one element get more, so each new constant holds one number, as often as there are channels. All new
names begin with `onnxnorm_`. A node that changed (it reads, or writes, another name) is kept as it was in
`Insertion.replaced`, so that `removed` can undo all this, byte by byte.
"""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from onnxnorm.errors import ModelError
from onnxnorm.model.containers import subgraphs
from onnxnorm.model.files import Model
from onnxnorm.model.graph import Graph, all_names
from onnxnorm.scaling.openings import Opening

__all__ = ["NOTHING", "PREFIX", "Insertion", "inserted", "insertion_from_json", "insertion_to_json", "removed"]

PREFIX = "onnxnorm_"


@dataclass(frozen=True)
class Insertion:
    """What was added to a graph.

    Attributes:
        nodes: names of the new nodes.
        constants: the number that all elements of each new constant are before they are scaled.
        renamed: new names of values that are graph outputs too, by their own.
        replaced: nodes as they were before, serialized, by their index.
        of: the opening that each new constant belongs to, by its name.
    """

    nodes: tuple[str, ...] = ()
    constants: Mapping[str, float] = field(default_factory=dict)
    renamed: Mapping[str, str] = field(default_factory=dict)
    replaced: Mapping[int, bytes] = field(repr=False, default_factory=dict)
    of: Mapping[str, Opening] = field(repr=False, default_factory=dict)


NOTHING = Insertion()


def insertion_to_json(insertion: Insertion) -> dict[str, Any]:
    """What has to be known to undo an insertion, as plain data."""
    return {
        "nodes": list(insertion.nodes),
        "constants": dict(insertion.constants),
        "renamed": dict(insertion.renamed),
        "replaced": {str(index): base64.b64encode(node).decode() for index, node in insertion.replaced.items()},
    }


def insertion_from_json(data: Mapping[str, Any]) -> Insertion:
    """The insertion that `insertion_to_json` described. Raises ValueError if the data is damaged."""
    replaced = {int(index): base64.b64decode(text, validate=True) for index, text in data.get("replaced", {}).items()}
    if any(index < 0 for index in replaced):
        raise ValueError("a node has a negative index")
    return Insertion(
        tuple(map(str, data.get("nodes", ()))),
        {str(name): float(number) for name, number in data.get("constants", {}).items()},
        {str(name): str(new) for name, new in data.get("renamed", {}).items()},
        replaced,
    )


def inserted(model: Model, graph: Graph, openings: Sequence[Opening]) -> tuple[Model, Insertion]:
    """A copy of a model with these places opened."""
    if not openings:
        return model, NOTHING
    work = _Insertion(model, graph)
    order = ("computed", "constant", "behind", "output", "before")
    for place in order:
        for opening in openings:
            if opening.place == place:
                getattr(work, f"open_{place}")(opening)
    return work.finished()


def removed(model: Model, insertion: Insertion) -> Model:
    """The model without what was inserted; the constants that were there already stay as they are.

    Raises:
        ModelError: if the model does not hold what was inserted.
    """
    nodes, constants = set(insertion.nodes), set(insertion.constants)
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    kept = [node for node in proto.graph.node if node.name not in nodes]
    if len(proto.graph.node) - len(kept) != len(nodes) or any(index >= len(kept) for index in insertion.replaced):
        raise ModelError("the record of the added nodes does not fit the model; it cannot be undone")
    data = [node.SerializeToString() for node in kept]
    for index, content in insertion.replaced.items():
        data[index] = content
    del proto.graph.node[:]
    try:
        proto.graph.node.extend(onnx.NodeProto.FromString(content) for content in data)
    except DecodeError as error:
        raise ModelError(f"a node in the record is damaged ({error}); it cannot be undone") from error
    places = [index for index, tensor in enumerate(proto.graph.initializer) if tensor.name not in constants]
    tensors = [proto.graph.initializer[index].SerializeToString() for index in places]
    del proto.graph.initializer[:]
    proto.graph.initializer.extend(onnx.TensorProto.FromString(content) for content in tensors)
    inputs = [value.SerializeToString() for value in proto.graph.input if value.name not in constants]
    if len(inputs) != len(proto.graph.input):
        del proto.graph.input[:]
        proto.graph.input.extend(onnx.ValueInfoProto.FromString(content) for content in inputs)
    tensor_data = {new: model.tensor_data[old] for new, old in enumerate(places) if old in model.tensor_data}
    return Model(proto, tensor_data, model.path)


class _Insertion:
    """A copy of a model that is being opened. Nodes are found by their index in the original."""

    def __init__(self, model: Model, graph: Graph) -> None:
        self.model, self.graph = model, graph
        self.proto = onnx.ModelProto()
        self.proto.CopyFrom(model.proto)
        self.before: dict[int, bytes] = {}
        self.behind: dict[int, list[onnx.NodeProto]] = {}
        self.renamed: dict[str, str] = {}
        self.of: dict[str, Opening] = {}
        self.numbers: dict[str, float] = {}
        self.nodes: list[str] = []
        self._used = all_names(self.proto.graph) | {node.name for node in self.proto.graph.node}
        self._numbers: Counter[str] = Counter()
        self._written = {name: k for k, node in enumerate(self.proto.graph.node) for name in node.output}

    def finished(self) -> tuple[Model, Insertion]:
        old = [node.SerializeToString() for node in self.proto.graph.node]
        del self.proto.graph.node[:]
        self.proto.graph.node.extend(self.behind.get(-1, ()))
        for index, content in enumerate(old):
            self.proto.graph.node.append(onnx.NodeProto.FromString(content))
            self.proto.graph.node.extend(self.behind.get(index, ()))
        done = Insertion(tuple(self.nodes), self.numbers, self.renamed, self.before, self.of)
        return replace(self.model, proto=self.proto), done

    def open_computed(self, opening: Opening) -> None:
        """What a node computes from constants is multiplied before it is read."""
        outer = self._fresh(opening.value)
        self._node(opening.node).input[opening.position] = outer
        self._add(self._written.get(opening.value, -1), "Mul", [opening.value, self._ones(opening)], outer)

    def open_constant(self, opening: Opening) -> None:
        """One element of a constant becomes as many as there are channels."""
        constant = self.graph.constants[opening.value]
        values = np.broadcast_to(constant.values().reshape((1,) * len(opening.shape)), opening.shape)
        self._node(opening.node).input[opening.position] = self._constant("constant", values, opening)

    def open_behind(self, opening: Opening) -> None:
        """The node writes another name, and a product its own."""
        at = self._written[opening.value]
        inner = self._fresh(opening.value)
        for node in (self._node(at), *self.behind.get(at, ())):
            for position, name in enumerate(node.output):
                if name == opening.value:
                    node.output[position] = inner
        self._add(at, "Mul", [inner, self._ones(opening)], opening.value)

    def open_output(self, opening: Opening) -> None:
        """The value gets another name, wherever it is read or written, and the output is a product."""
        name, at = opening.value, self._written[opening.value]
        inner = self.renamed[name] = self._fresh(name)
        readers = {reader.node for reader in self.graph.readers.get(name, ())}
        for node in (*map(self._node, sorted({at, *readers})), *(n for added in self.behind.values() for n in added)):
            for names in (node.input, node.output):
                for position, found in enumerate(names):
                    if found == name:
                        names[position] = inner
        self._add(at, "Mul", [inner, self._ones(opening)], name)

    def open_before(self, opening: Opening) -> None:
        """One reader reads a product."""
        name = self.renamed.get(opening.value, opening.value)
        outer = self._fresh(opening.value)
        _rename_reads(self._node(opening.node), name, outer)
        self._add(self._written.get(opening.value, -1), "Mul", [name, self._ones(opening)], outer)

    def _node(self, index: int) -> onnx.NodeProto:
        """A node that is about to change."""
        node = self.proto.graph.node[index]
        self.before.setdefault(index, node.SerializeToString())
        return node

    def _ones(self, opening: Opening) -> str:
        dtype = helper.tensor_dtype_to_np_dtype(self.graph.types[opening.value])
        return self._constant("factor", np.ones(opening.shape, dtype), opening)

    def _constant(self, stem: str, values: NDArray[np.generic], opening: Opening) -> str:
        name = self._fresh(stem)
        tensor = numpy_helper.from_array(np.ascontiguousarray(values), name)
        self.proto.graph.initializer.append(tensor)
        if self.proto.ir_version < 4:  # every initializer has to be listed as an input
            self.proto.graph.input.append(helper.make_tensor_value_info(name, tensor.data_type, tensor.dims))
        self.of[name] = opening
        self.numbers[name] = float(values.flat[0])
        return name

    def _add(self, index: int, op: str, inputs: list[str], output: str) -> None:
        name = self._fresh(op.lower())
        self.nodes.append(name)
        self.behind.setdefault(index, []).append(helper.make_node(op, inputs, [output], name=name))

    def _fresh(self, stem: str) -> str:
        stem = PREFIX + stem.removeprefix(PREFIX)
        name = stem
        while name in self._used:
            self._numbers[stem] += 1
            name = f"{stem}_{self._numbers[stem]}"
        self._used.add(name)
        return name


def _rename_reads(node: onnx.NodeProto, old: str, new: str) -> None:
    """Let a node read another value, in its subgraphs too."""
    for position, name in enumerate(node.input):
        if name == old:
            node.input[position] = new
    for attribute in node.attribute:
        for graph in subgraphs(attribute):
            for inner in graph.node:
                _rename_reads(inner, old, new)
            for value in graph.output:
                if value.name == old:
                    value.name = new
