"""Narrow VGGs with random weights: the structure of the real ones at a size that takes milliseconds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from onnxnorm.model.files import Model
from onnxnorm.runtime import Runtime

VGG16 = (2, 2, 3, 3, 3)
VGG19 = (2, 2, 4, 4, 4)
WIDTHS = (4, 5, 6, 7, 8)

Floats = NDArray[np.float32]


class Builder:
    """Nodes and constants, added one after the other."""

    def __init__(self, seed: int = 0) -> None:
        self.random = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.tensors: list[onnx.TensorProto] = []

    def add(self, op: str, name: str, inputs: Sequence[str], **attributes: Any) -> str:
        self.nodes.append(helper.make_node(op, inputs, [f"{name}_out"], name, **attributes))
        return f"{name}_out"

    def constant(self, name: str, values: NDArray[np.generic]) -> str:
        self.tensors.append(numpy_helper.from_array(values, name))
        return name

    def weights(self, name: str, shape: tuple[int, ...], inputs: int) -> str:
        return self.constant(name, (self.random.normal(size=shape) * math.sqrt(2 / inputs)).astype(np.float32))

    def bias(self, name: str, count: int) -> str:
        return self.constant(name, (self.random.normal(size=count) * 0.2).astype(np.float32))


def vgg(
    blocks: Sequence[int] = VGG16,
    dense: Sequence[int] = (),
    *,
    size: int = 32,
    channels_last: bool = False,
    opset: int = 17,
    ir_version: int = 8,
) -> onnx.ModelProto:
    """A VGG with these numbers of convolutions and these dense layers; its node `n7` gives the value `n7_out`.

    With `channels_last` it is as converters from TensorFlow write it: the input is NHWC, and so is what the dense
    layers read, by Transpose, Reshape, MatMul and Add.
    """
    made = Builder()
    value = made.add("Transpose", "to_nchw", ["image"], perm=[0, 3, 1, 2]) if channels_last else "image"
    channels, number = 3, 0
    for block, count in enumerate(blocks):
        for _ in range(count):
            filters = WIDTHS[block]
            w = made.weights(f"w{number}", (filters, channels, 3, 3), 9 * channels)
            value = made.add("Conv", f"n{number}", [value, w, made.bias(f"b{number}", filters)], pads=[1, 1, 1, 1])
            value = made.add("Relu", f"r{number}", [value])
            channels, number = filters, number + 1
        value = made.add("MaxPool", f"p{block}", [value], kernel_shape=[2, 2], strides=[2, 2])
    last: list[str | int] = ["n", channels, "h_last", "w_last"]
    if dense:
        last = ["n", dense[-1]]
        value = _dense(made, value, [channels * (size >> len(blocks)) ** 2, *dense], channels_last)
    shape = ["n", "h", "w"] if not dense else ["n", size, size]
    image = [*shape, 3] if channels_last else [shape[0], 3, *shape[1:]]
    graph = helper.make_graph(
        made.nodes,
        "vgg",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, image)],
        [helper.make_tensor_value_info(value, TensorProto.FLOAT, last)],
        made.tensors,
    )
    if ir_version < 4:
        graph.input.extend(helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in made.tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version)
    onnx.checker.check_model(model, full_check=True)
    return model


def _dense(made: Builder, value: str, sizes: Sequence[int], channels_last: bool) -> str:
    if channels_last:
        value = made.add("Transpose", "to_nhwc", [value], perm=[0, 2, 3, 1])
        value = made.add("Reshape", "flat", [value, made.constant("flat_shape", np.array([-1, sizes[0]]))])
    else:
        value = made.add("Flatten", "flat", [value])
    for number, (inputs, outputs) in enumerate(pairwise(sizes)):
        if channels_last:
            value = made.add("MatMul", f"m{number}", [value, made.weights(f"v{number}", (inputs, outputs), inputs)])
            value = made.add("Add", f"d{number}", [value, made.bias(f"c{number}", outputs)])
        else:
            parts = [made.weights(f"v{number}", (outputs, inputs), inputs), made.bias(f"c{number}", outputs)]
            value = made.add("Gemm", f"d{number}", [value, *parts], transB=1)
        if number + 2 < len(sizes):
            value = made.add("Relu", f"e{number}", [value])
    return value


def photo(size: int = 32, count: int = 2, seed: int = 1) -> Floats:
    """Images in NCHW order, RGB in [0, 1]."""
    return np.random.default_rng(seed).uniform(size=(count, 3, size, size)).astype(np.float32)


def run(model: onnx.ModelProto, images: Floats) -> dict[str, Floats]:
    """All outputs, by name."""
    name = model.graph.input[0].name
    session = Runtime("cpu", threads=1).session(Model.open(model), optimize=False)
    return {key: np.asarray(value) for key, value in session.run({name: images}).items()}


def with_outputs(model: onnx.ModelProto, values: Sequence[str]) -> onnx.ModelProto:
    """The whole model, with these values as its outputs."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.output[:]
    copy.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in values)
    return copy
