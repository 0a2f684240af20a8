"""What a VGG consists of, and what its values are called in the literature."""

from __future__ import annotations

from dataclasses import dataclass

from onnxnorm.model.constants import Constant
from onnxnorm.model.graph import Node
from onnxnorm.vgg.chain import Padding

__all__ = ["Dense", "Layer", "NoVgg", "Vgg"]


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
        before: the node in front of the first convolution, which prepares the image; None if there is none.
    """

    front: tuple[Constant, Constant | None] | None
    layers: tuple[Layer, ...]
    pools: tuple[Node, ...]
    dense: tuple[Dense, ...] = ()
    channels_last: bool = False
    before: Node | None = None

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
