"""One walk along the nodes of a model, which ends with a VGG or with the reason why it is none."""

from __future__ import annotations

from collections.abc import Iterator

from onnxnorm.model.boundary import model_errors
from onnxnorm.model.constants import Constant
from onnxnorm.model.files import Model
from onnxnorm.model.graph import Node
from onnxnorm.vgg.chain import Chain, border_of, pads_itself, same_padding
from onnxnorm.vgg.structure import Dense, Layer, NoVgg, Vgg

__all__ = ["read_vgg"]

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
_TO_NCHW = [0, 3, 1, 2]


@model_errors("the graph")
def read_vgg(model: Model) -> Vgg | NoVgg:
    """Recognize a VGG, or say why the model is none. Raises ModelError if the graph is not legal."""
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
        if weight is not None and weight.shape == (3, 3, 1, 1) and _is_plain(first) and not pads_itself(first):
            front = (weight, chain.constant(first, 2))
            node = chain.following(first.outputs[0])
        value = ""
        while node is not None:
            if node.op == "Pad":
                padded = chain.following(node.outputs[0])
                if padded is not None and padded.op != "Conv":
                    break
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
        return self._ended(first, front, value, node)

    def _ended(
        self, first: Node, front: tuple[Constant, Constant | None] | None, value: str, node: Node | None
    ) -> Vgg | NoVgg:
        if not self.layers:
            return NoVgg("it does not begin with a 3x3 convolution")
        if node is None and len(self.chain.readers_at(value)) > 1:
            return NoVgg(f"several nodes read {value!r}")
        if node is not None and node.op not in _TAIL:
            return NoVgg(f"{node.op} node {node.label!r} follows its convolutions")
        if node is not None and _leads_to_convolution(self.chain, node):
            return NoVgg(f"{node.op} node {node.label!r} stands between its convolutions")
        channels_last, dense = _dense_layers(self.chain, value)
        before = _in_front(self.chain, first)
        return Vgg(front, tuple(self.layers), tuple(self.pools), dense, channels_last, before)

    def _convolution(self, node: Node) -> str:
        """Add a convolution and its Relu; why it is none of a VGG, or nothing."""
        chain, block = self.chain, len(self.pools) + 1
        weight, bias = chain.constant(node, 1), chain.constant(node, 2)
        what = f"convolution {node.label!r}"
        if weight is None or (len(node.inputs) > 2 and node.inputs[2] and bias is None):
            return f"the weights or bias of {what} are computed"
        if bias is not None and bias.shape != weight.shape[:1]:
            return f"the bias of {what} does not fit its weights"
        if len(weight.shape) != 4 or weight.shape[2:] != (3, 3):
            return f"{what} is not 3x3"
        if not self.layers and weight.shape[1] not in {1, 3}:
            return f"{what}, the first, does not read an image"
        padding = same_padding(chain, node)
        if not _is_plain(node) or node.attribute("group", 1) != 1 or padding is None:
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
        fits = fits and node.attribute("auto_pad", "NOTSET") != "SAME_LOWER" and not any(node.attribute("pads", []))
        fits = fits and {*node.attribute("dilations", [1])} == {1}
        return fits and bool(self.layers) and self.layers[-1].block == len(self.pools) + 1


def _is_plain(node: Node) -> bool:
    """Whether a convolution has neither strides nor dilations."""
    return all(step == 1 for name in ("strides", "dilations") for step in node.attribute(name, [1]))


def _leads_to_convolution(chain: Chain, node: Node | None) -> bool:
    while node is not None and node.op in _TAIL:
        node = chain.following(node.outputs[0])
    return node is not None and node.op == "Conv"


def _in_front(chain: Chain, first: Node) -> Node | None:
    """The node whose output the first convolution reads; None if that is the image as it was fed.

    The border of that convolution is part of it, and the order of the axes and the element type may change before.
    """
    node = chain.producers.get(first.inputs[0])
    if node is not None and node.op == "Pad" and not pads_itself(first) and border_of(chain, node) is not None:
        node = chain.producers.get(node.inputs[0])
    while node is not None:
        same = node.op in {"Identity", "Dropout", "Cast"}
        if not same and not (node.op == "Transpose" and list(node.attribute("perm", [])) == _TO_NCHW):
            return node
        node = chain.producers.get(node.inputs[0])
    return None


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
