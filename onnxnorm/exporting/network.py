"""The network that weights of a VGG belong to, as an ONNX model.

3x3 convolutions with their Relus, and a 2x2 MaxPool or AveragePool between blocks. Borders are padded with zeros, or
reflected; with a 1x1 convolution in front they are reflected, as AdaIN's network does.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from onnxnorm.exporting.recognition import Convolution, VggWeights

__all__ = ["vgg_model"]


def vgg_model(found: VggWeights, *, average: bool = False, reflect: bool = False) -> onnx.ModelProto:
    """The network of some weights; the value behind the Relu of a convolution is called `relu1_1` and so on.

    Args:
        found: the weights.
        average: whether it pools by averages instead of maxima.
        reflect: whether borders are reflected even without a convolution in front.
    """
    reflects = reflect or found.front is not None
    made = _Nodes()
    value = "input" if found.front is None else made.convolve("front", found.front, "input", 0)
    if reflects:
        made.constant("borders", np.array([0, 0, 1, 1, 0, 0, 1, 1], np.int64))
    block, index = 1, 0
    for layer in found.layers:
        if layer.block > block:
            value = made.add(
                "AveragePool" if average else "MaxPool", f"pool{block}", value, kernel_shape=[2, 2], strides=[2, 2]
            )
            block, index = layer.block, 0
        index += 1
        place = f"{block}_{index}"
        if reflects:
            value = made.add("Pad", f"pad{place}", value, "borders", mode="reflect")
        value = made.convolve(f"conv{place}", layer, value, 0 if reflects else 1)
        value = made.add("Relu", f"relu{place}", value)
    image = helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", 3, "H", "W"])
    output = helper.make_tensor_value_info(value, TensorProto.FLOAT, ["N", len(found.layers[-1].weight), "h", "w"])
    graph = helper.make_graph(made.nodes, "vgg", [image], [output], made.constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


class _Nodes:
    """Nodes and constants, added one after the other."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def add(self, op: str, name: str, *inputs: str, **attributes: Any) -> str:
        """Add a node that gives the value `name`, and return that."""
        self.nodes.append(helper.make_node(op, inputs, [name], f"{name}_node", **attributes))
        return name

    def constant(self, name: str, values: Any) -> str:
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def convolve(self, name: str, layer: Convolution, value: str, pad: int) -> str:
        weight, bias = self.constant(f"{name}.weight", layer.weight), self.constant(f"{name}.bias", layer.bias)
        return self.add("Conv", name, value, weight, bias, pads=[pad] * 4)
