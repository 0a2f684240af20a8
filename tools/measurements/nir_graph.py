"""A chain of convolutions as a NIR graph of integrate-and-fire neurons, and a small simulator that runs such graphs.

NIR (the neuromorphic intermediate representation, package `nir`) has convolutions, average pooling, dense layers and
neurons as nodes, but no max pooling. An `IF` node with `v_threshold` takes the place of every Relu. Its definition sets
the membrane potential to `v_reset` after a spike. That the threshold is subtracted instead, as rate coding wants it, is
up to whoever runs the graph, so the simulator can do both.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import nir
import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch.nn import functional

__all__ = ["simulate", "write_nir"]

Array = NDArray[Any]


def write_nir(model: onnx.ModelProto, thresholds: Mapping[str, float], path: Path) -> None:
    """Write the NIR graph of a chain of Conv, Relu, AveragePool, Flatten and Gemm.

    Args:
        model: the network, with constants as initializers.
        thresholds: the threshold of the neurons behind each layer, by the layer's output.
        path: the file to write.

    Raises:
        ValueError: if the network has another operator, which NIR has no node for.
    """
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    inferred = onnx.shape_inference.infer_shapes(model).graph
    shapes = {
        value.name: np.asarray([dim.dim_value for dim in value.type.tensor_type.shape.dim[1:]])
        for value in (*inferred.input, *inferred.value_info, *inferred.output)
    }
    first, last = model.graph.input[0].name, model.graph.output[0].name
    # A NIR file is an HDF5 file, in whose names a slash opens a folder.
    nodes: dict[str, Any] = {"input": nir.Input({"input": shapes[first]})}
    for node in model.graph.node:
        nodes[node.output[0].replace("/", ".")] = _node(node, constants, shapes, thresholds)
    nodes["output"] = nir.Output({"output": shapes[last]})
    names = list(nodes)
    nir.write(path, nir.NIRGraph(nodes, list(pairwise(names))))


def _node(
    node: onnx.NodeProto, constants: Mapping[str, Array], shapes: Mapping[str, Array], thresholds: Mapping[str, float]
) -> Any:
    given = {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}
    source = shapes.get(node.input[0], np.asarray([]))
    if node.op_type == "Conv":
        return nir.Conv2d(
            input_shape=(int(source[1]), int(source[2])),
            weight=constants[node.input[1]],
            stride=tuple(given.get("strides", (1, 1))),
            padding=tuple(given.get("pads", (0, 0, 0, 0))[:2]),
            dilation=tuple(given.get("dilations", (1, 1))),
            groups=given.get("group", 1),
            bias=constants[node.input[2]],
        )
    if node.op_type == "Relu":
        ones = np.ones(shapes[node.output[0]], np.float32)
        return nir.IF(r=ones, v_threshold=np.float32(thresholds[node.input[0]]) * ones, v_reset=0 * ones)
    if node.op_type == "AveragePool":
        size = np.asarray(given["kernel_shape"])
        return nir.AvgPool2d(size, np.asarray(given.get("strides", size)), np.zeros(2, np.int64))
    if node.op_type == "Flatten":
        return nir.Flatten({"input": source}, start_dim=0)
    if node.op_type == "Gemm" and given.get("transB") == 1:
        return nir.Affine(weight=constants[node.input[1]], bias=constants[node.input[2]])
    raise ValueError(f"NIR has no node for {node.op_type} {node.output[0]!r}")


def simulate(path: Path, inputs: Array, steps: int, *, subtract: bool) -> Array:
    """What leaves the graph in a NIR file, summed over time, for inputs that are fed as a constant current.

    Args:
        path: the file.
        inputs: one input a sample.
        steps: number of time steps.
        subtract: whether a spike subtracts the threshold; else it resets to `v_reset`, as NIR defines it.
    """
    graph = nir.read(path)
    following = dict(graph.edges)
    potentials: dict[str, Any] = {}
    current, total = torch.from_numpy(inputs), None
    for _ in range(steps):
        name, value = following["input"], current
        while name != "output":
            value = _step(graph.nodes[name], value, potentials, name, subtract)
            name = following[name]
        total = value if total is None else total + value
    assert total is not None
    return np.asarray(total.numpy())


def _step(node: Any, value: Any, potentials: dict[str, Any], name: str, subtract: bool) -> Any:
    """What a node gives out in one time step."""
    if isinstance(node, nir.Conv2d):
        weight, bias = torch.as_tensor(node.weight), torch.as_tensor(node.bias)
        stride, padding, dilation = (np.asarray(pair).tolist() for pair in (node.stride, node.padding, node.dilation))
        return functional.conv2d(value, weight, bias, stride, padding, dilation, int(node.groups))
    if isinstance(node, nir.AvgPool2d):
        return functional.avg_pool2d(value, node.kernel_size.tolist(), node.stride.tolist())
    if isinstance(node, nir.Flatten):
        return value.flatten(1)
    if isinstance(node, nir.Affine):
        return functional.linear(value, torch.as_tensor(node.weight), torch.as_tensor(node.bias))
    threshold, reset = torch.as_tensor(node.v_threshold), torch.as_tensor(node.v_reset)
    charged = potentials.get(name, 0) + torch.as_tensor(node.r) * value
    spikes = charged > threshold
    potentials[name] = torch.where(spikes, charged - threshold if subtract else reset, charged)
    return spikes.to(value.dtype)
