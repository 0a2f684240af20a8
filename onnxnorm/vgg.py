"""Recognizing a VGG by its structure, whatever its nodes and values are called.

A VGG is a chain: 3x3 convolutions of stride 1 that keep the size, each followed by a Relu (with a BatchNormalization
before it or not), with 2x2 pools between its blocks. Dense layers may follow. VGG-16 and VGG-19 differ in the number of
convolutions in a block only, so the chain may have any, and may end anywhere. A 1x1 convolution of three channels in
front of the chain is the preprocessing that AdaIN's network begins with.

`Vgg.values` gives the values of the chain the names of the literature: `conv3_1` is the first convolution of the third
block, `relu3_1` its Relu, `pool3` the pool behind that block; `fc6`, `relu6`, `fc7`, `relu7` and `fc8` are the dense
layers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from onnxnorm.model.constants import Constant, stored_constants
from onnxnorm.model.files import Model
from onnxnorm.model.graph import Node, Reader, ordered_nodes, readers_of

__all__ = ["Chain", "Dense", "Layer", "NoVgg", "Vgg", "read_vgg", "same_padding"]

Padding = Literal["zero", "reflect", "edge", "wrap"]

_CHAIN = {"Conv", "Relu", "MaxPool", "AveragePool", "Pad", "BatchNormalization", "Identity", "Dropout"}
_PASSED = {"Identity", "Dropout"}
_SIZES = {"Shape", "Size"}
_TAIL = {
    "Flatten",
    "Reshape",
    "Transpose",
    "Squeeze",
    "AveragePool",
    "GlobalAveragePool",
    "GlobalMaxPool",
    "ReduceMean",
}
_DENSE = 3
_TO_NHWC = [0, 2, 3, 1]


@dataclass(frozen=True)
class Layer:
    """A convolution of the chain.

    Attributes:
        block: number of its block, from 1.
        index: its number in the block, from 1.
        conv: the node.
        weight: its weights, shape `(C_out, C_in, 3, 3)`.
        bias: its bias, shape `(C_out,)`; None if it has none.
        activation: the value behind its Relu; None if the chain ends before one.
        padding: how its input is padded.
        normalized: whether a BatchNormalization follows.
    """

    block: int
    index: int
    conv: Node
    weight: Constant
    bias: Constant | None
    activation: str | None
    padding: Padding
    normalized: bool


@dataclass(frozen=True)
class Dense:
    """A dense layer behind the chain.

    Attributes:
        value: its output, with the bias.
        activation: the value behind its Relu; None if it has none.
        weight: its weights, shape `(C_in, C_out)`, or `(C_out, C_in)` if `rows`.
        rows: whether a row of the weights belongs to one output.
        bias: its bias; None if it has none.
    """

    value: str
    activation: str | None
    weight: Constant
    rows: bool
    bias: Constant | None


@dataclass(frozen=True)
class Vgg:
    """A VGG.

    Attributes:
        front: weights and bias of a 1x1 convolution in front; None if there is none.
        layers: the convolutions, in order.
        pools: the pools; that of block b has index b - 1.
        dense: the three dense layers; empty if other nodes follow the chain, or none.
        channels_last: whether the dense layers read the pixels in NHWC order.
    """

    front: tuple[Constant, Constant | None] | None
    layers: tuple[Layer, ...]
    pools: tuple[Node, ...]
    dense: tuple[Dense, ...] = ()
    channels_last: bool = False

    @property
    def values(self) -> dict[str, str]:
        """The values of the network by their names in the literature, in order."""
        found: dict[str, str] = {}
        for layer in self.layers:
            found[f"conv{layer.block}_{layer.index}"] = layer.conv.outputs[0]
            if layer.activation is not None:
                found[f"relu{layer.block}_{layer.index}"] = layer.activation
            ends = layer is self.layers[-1] or self.layers[self.layers.index(layer) + 1].block > layer.block
            if ends and layer.block <= len(self.pools):
                found[f"pool{layer.block}"] = self.pools[layer.block - 1].outputs[0]
        for number, dense in enumerate(self.dense, 6):
            found[f"fc{number}"] = dense.value
            if dense.activation is not None:
                found[f"relu{number}"] = dense.activation
        return found


@dataclass(frozen=True)
class NoVgg:
    """A network that is not a VGG; `reason` says where it differs, as the end of a sentence."""

    reason: str


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


def read_vgg(model: Model) -> Vgg | NoVgg:
    """Recognize a VGG, or say why the model is none."""
    return _Reading(Chain.of(model)).run()


class _Reading:
    """One walk along a chain."""

    def __init__(self, chain: Chain) -> None:
        self.chain = chain
        self.layers: list[Layer] = []
        self.pools: list[Node] = []

    def run(self) -> Vgg | NoVgg:
        chain = self.chain
        first = next((node for node in chain.nodes if node.op == "Conv"), None)
        if first is None:
            return NoVgg("it has no convolution")
        front = None
        weight = chain.constant(first, 1)
        node: Node | None = first
        if weight is not None and weight.shape == (3, 3, 1, 1):
            front = (weight, chain.constant(first, 2))
            node = chain.following(first.outputs[0])
        value = ""
        while node is not None:
            if node.op == "Pad":
                value = node.outputs[0]
            elif node.op == "Conv":
                if problem := self._convolution(node):
                    return NoVgg(problem)
                value = self.layers[-1].activation or node.outputs[0]
            elif self._is_pool(node):
                self.pools.append(node)
                value = node.outputs[0]
            else:
                break
            node = chain.following(value)
        return self._ended(front, value, node)

    def _ended(self, front: tuple[Constant, Constant | None] | None, value: str, node: Node | None) -> Vgg | NoVgg:
        if not self.layers:
            return NoVgg("it does not begin with a 3x3 convolution")
        if node is None and len(self.chain.readers_at(value)) > 1:
            return NoVgg(f"several nodes read {value!r}")
        if node is not None and node.op not in _TAIL:
            return NoVgg(f"{node.op} node {node.label!r} follows its convolutions")
        channels_last, dense = _dense_layers(self.chain, value)
        return Vgg(front, tuple(self.layers), tuple(self.pools), dense, channels_last)

    def _convolution(self, node: Node) -> str:
        """Add a convolution and its Relu; why it is none of a VGG, or nothing."""
        chain, block = self.chain, len(self.pools) + 1
        weight, bias = chain.constant(node, 1), chain.constant(node, 2)
        what = f"convolution {node.label!r}"
        if weight is None or (len(node.inputs) > 2 and node.inputs[2] and bias is None):
            return f"the weights or bias of {what} are computed"
        if len(weight.shape) != 4 or weight.shape[2:] != (3, 3):
            return f"{what} is not 3x3"
        if not self.layers and weight.shape[1] not in {1, 3}:
            return f"{what}, the first, does not read an image"
        padding = same_padding(chain, node)
        plain = all(step == 1 for name in ("strides", "dilations") for step in node.attribute(name, [1]))
        if not plain or node.attribute("group", 1) != 1 or padding is None:
            return f"{what} has a stride, dilation, group or padding that a VGG has not"
        index = 1 + sum(layer.block == block for layer in self.layers)
        after = chain.following(node.outputs[0])
        normalized = after is not None and after.op == "BatchNormalization"
        if after is not None and normalized:
            after = chain.following(after.outputs[0])
        if after is not None and after.op != "Relu":
            return f"{after.op} node {after.label!r}, and no Relu, follows {what}"
        activation = None if after is None else after.outputs[0]
        self.layers.append(Layer(block, index, node, weight, bias, activation, padding, normalized))
        return ""

    def _is_pool(self, node: Node) -> bool:
        kernel, strides = (list(node.attribute(name, [])) for name in ("kernel_shape", "strides"))
        fits = node.op in {"MaxPool", "AveragePool"} and kernel == [2, 2] and strides == [2, 2]
        return fits and bool(self.layers) and self.layers[-1].block == len(self.pools) + 1


def _dense_layers(chain: Chain, value: str) -> tuple[bool, tuple[Dense, ...]]:
    """The dense layers behind a value if there are just three, and whether they read pixels in NHWC order."""
    channels_last, node = False, chain.following(value)
    while node is not None and node.op in {"AveragePool", "Transpose"}:
        kept = node.op == "AveragePool" and set(node.attribute("kernel_shape")) == {1}
        if not kept and list(node.attribute("perm", [])) != _TO_NHWC:
            return False, ()
        channels_last |= not kept
        node = chain.following(node.outputs[0])
    if node is None or node.op not in {"Flatten", "Reshape"}:
        return False, ()
    found = tuple(_dense_along(chain, node.outputs[0]))
    return (channels_last, found) if len(found) == _DENSE else (False, ())


def _dense_along(chain: Chain, value: str) -> Iterator[Dense]:
    node = chain.following(value)
    while node is not None and node.op in {"Gemm", "MatMul"}:
        weight = chain.constant(node, 1)
        value, rows, bias = node.outputs[0], False, None
        if weight is None or len(weight.shape) != 2:
            return
        if node.op == "Gemm":
            rows, bias = bool(node.attribute("transB", 0)), chain.constant(node, 2)
            if node.attribute("transA", 0) or {node.attribute("alpha", 1.0), node.attribute("beta", 1.0)} != {1.0}:
                return
        after = chain.following(value)
        if node.op == "MatMul" and after is not None and after.op == "Add":
            bias = chain.constant(after, 0) or chain.constant(after, 1)
            value = after.outputs[0]
            after = chain.following(value)
        if bias is not None and bias.size != weight.shape[0 if rows else 1]:
            return
        activation = after.outputs[0] if after is not None and after.op == "Relu" else None
        yield Dense(value, activation, weight, rows, bias)
        node = after if activation is None else chain.following(activation)
