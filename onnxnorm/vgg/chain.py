"""Following a chain of nodes from value to value, and how its convolutions are padded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from onnx import helper, numpy_helper

from onnxnorm.model.constants import Constant, stored_constants
from onnxnorm.model.files import Model
from onnxnorm.model.graph import Node, Reader, ordered_nodes, readers_of
from onnxnorm.model.shapes import read_graph

__all__ = ["Chain", "Padding", "adds_zeros", "border_of", "pads_itself", "pads_of", "same_padding"]

Padding = Literal["zero", "reflect", "edge", "wrap"]

_CHAIN = {"Conv", "Relu", "MaxPool", "AveragePool", "Pad", "BatchNormalization", "Identity", "Dropout"}
_PASSED = {"Identity", "Dropout"}
_SIZES = {"Shape", "Size"}
_FEW = 64  # nodes, and numbers, of a small computation


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

    def numbers(self, node: Node, position: int) -> list[Any] | None:
        """The few numbers that a node reads at a position, also if other nodes compute them from constants.

        None if they are not constant, or many. PyTorch's older exporter computes the pads of each Pad with ten nodes.
        """
        constant = self.constant(node, position)
        if constant is None and position < len(node.inputs):
            constant = self._computed(node.inputs[position])
        return None if constant is None or constant.size > _FEW else constant.values().reshape(-1).tolist()

    def _computed(self, name: str) -> Constant | None:
        """A constant that a few nodes compute from small constants; None if it is no such."""
        waiting = [name]
        needed: set[int] = set()
        stored: dict[str, Constant] = {}
        while waiting and len(needed) <= _FEW:
            value = waiting.pop()
            if value in self.constants:
                stored[value] = self.constants[value]
            elif value not in self.producers:
                return None
            elif (node := self.producers[value]).index not in needed:
                needed.add(node.index)
                waiting += [*filter(None, node.inputs)]
        nodes = [node for node in self.nodes if node.index in needed]
        if len(nodes) > _FEW or any(node.domain for node in nodes) or any(c.size > _FEW for c in stored.values()):
            return None
        tensors = [numpy_helper.from_array(constant.values(), key) for key, constant in stored.items()]
        graph = helper.make_graph([node.proto for node in nodes], "numbers", [], [], tensors)
        opset = helper.make_opsetid("", max(node.opset for node in nodes))
        return read_graph(Model(helper.make_model(graph, opset_imports=[opset]), {}), {}).constants.get(name)

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
    """How the input of a 3x3 convolution is padded by one pixel on each side; None if it is not, or otherwise.

    A Pad in front and the convolution may do it, but not both.
    """
    before = chain.producers.get(node.inputs[0])
    if before is not None and before.op == "Pad":
        return None if pads_itself(node) else border_of(chain, before)
    auto = node.attribute("auto_pad", "NOTSET")
    own = list(node.attribute("pads", [0, 0, 0, 0]))
    return "zero" if auto.startswith("SAME") or (auto == "NOTSET" and own == [1, 1, 1, 1]) else None


def pads_itself(node: Node) -> bool:
    """Whether a convolution pads its input with zeros by its own attributes."""
    return node.attribute("auto_pad", "NOTSET").startswith("SAME") or any(node.attribute("pads", [0]))


def border_of(chain: Chain, pad: Node) -> Padding | None:
    """What a Pad puts around images if that is one pixel on each side; None if it does something else."""
    if pads_of(chain, pad) != [0, 0, 1, 1, 0, 0, 1, 1]:
        return None
    mode = pad.attribute("mode", "constant")
    if mode == "constant":
        return "zero" if adds_zeros(chain, pad) else None
    return mode if mode in {"reflect", "edge", "wrap"} else None


def pads_of(chain: Chain, pad: Node) -> list[int] | None:
    """How much a Pad adds before each axis, and then behind each; None if that is not known or only some are named."""
    if pad.opset < 11:
        return list(pad.attribute("pads", [])) or None
    if len(pad.inputs) > 3 and pad.inputs[3]:
        return None
    return chain.numbers(pad, 1)


def adds_zeros(chain: Chain, pad: Node) -> bool:
    """Whether a Pad adds zeros."""
    if pad.attribute("mode", "constant") != "constant":
        return False
    if pad.opset < 11:
        return not pad.attribute("value", 0.0)
    return len(pad.inputs) < 3 or not pad.inputs[2] or chain.numbers(pad, 2) in ([0], [0.0])
