"""Following a chain of nodes from value to value, and how its convolutions are padded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from onnxnorm.model.constants import Constant, stored_constants
from onnxnorm.model.files import Model
from onnxnorm.model.graph import Node, Reader, ordered_nodes, readers_of

__all__ = ["Chain", "Padding", "same_padding"]

Padding = Literal["zero", "reflect", "edge", "wrap"]

_CHAIN = {"Conv", "Relu", "MaxPool", "AveragePool", "Pad", "BatchNormalization", "Identity", "Dropout"}
_PASSED = {"Identity", "Dropout"}
_SIZES = {"Shape", "Size"}


@dataclass(frozen=True)
class Chain:
    """Nodes and constants of a model, to be followed from value to value."""

    nodes: tuple[Node, ...]
    readers: Mapping[str, tuple[Reader, ...]]
    constants: Mapping[str, Constant]
    producers: Mapping[str, Node] = field(repr=False)
    by_index: Mapping[int, Node] = field(repr=False)

    @classmethod
    def of(cls, model: Model) -> Chain:
        """The nodes and constants of a model."""
        nodes = ordered_nodes(model)
        producers = {name: node for node in nodes for name in node.outputs if name}
        return cls(nodes, readers_of(nodes), stored_constants(model), producers, {node.index: node for node in nodes})

    def constant(self, node: Node, position: int) -> Constant | None:
        """The constant that a node reads at a position, also through Identity; None if there is none."""
        name = node.inputs[position] if position < len(node.inputs) else ""
        seen: set[str] = set()
        while name in self.producers and self.producers[name].op == "Identity" and name not in seen:
            seen.add(name)
            name = self.producers[name].inputs[0]
        return self.constants.get(name)

    def readers_at(self, value: str) -> list[Node]:
        """The nodes that read a value, except for those that read its size only."""
        nodes = {place.node: self.by_index[place.node] for place in self.readers.get(value, ())}
        return [node for node in nodes.values() if node.op not in _SIZES]

    def following(self, value: str) -> Node | None:
        """The one node of a chain that reads a value, Identity and Dropout left out; None if there is none, or several.

        Other readers count only if no node of a chain is among them.
        """
        while True:
            readers = self.readers_at(value)
            chain = [node for node in readers if node.op in _CHAIN] or readers
            if len(chain) != 1:
                return None
            if chain[0].op not in _PASSED:
                return chain[0]
            value = chain[0].outputs[0]


def same_padding(chain: Chain, node: Node) -> Padding | None:
    """How the input of a 3x3 convolution is padded by one pixel on each side; None if it is not, or otherwise."""
    auto = node.attribute("auto_pad", "NOTSET")
    own = list(node.attribute("pads", [0, 0, 0, 0]))
    if auto in {"SAME_UPPER", "SAME_LOWER"} or (auto == "NOTSET" and own == [1, 1, 1, 1]):
        return "zero"
    before = chain.producers.get(node.inputs[0])
    if before is None or before.op != "Pad" or any(own):
        return None
    if before.opset < 11:
        pads = list(before.attribute("pads", []))
    else:
        constant = chain.constant(before, 1)
        pads = [] if constant is None else constant.values().tolist()
    if pads != [0, 0, 1, 1, 0, 0, 1, 1]:
        return None
    mode = before.attribute("mode", "constant")
    return "zero" if mode == "constant" else mode
