"""The script that people write with PyTorch: forward hooks behind the activations, their means per channel summed up.

Runs alone, in an interpreter that has torch, onnx, numpy and Pillow:
`python -m tools.benchmarks.torch_hooks ARGUMENTS`. The network is built from the weights in the ONNX file, layer by
layer; it must be a chain. Photographs come through a DataLoader whose one worker decodes ahead (`feed` is `loader`) or
are decoded batch by batch (`inline`). Reports like the tasks in
`workers`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch.utils.data import DataLoader

from tools.benchmarks.clock import Clock
from tools.benchmarks.feeds import photograph_batches
from tools.benchmarks.recipe import listed, sample

ACTIVATIONS = (torch.nn.ReLU, torch.nn.LeakyReLU)


def network(path: str) -> Any:
    """The chain of layers in an ONNX file."""
    graph = onnx.load(path).graph
    held = {tensor.name: torch.from_numpy(numpy_helper.to_array(tensor).copy()) for tensor in graph.initializer}
    return torch.nn.Sequential(*(layer(node, held) for node in graph.node)).eval()


def layer(node: onnx.NodeProto, held: dict[str, Any]) -> Any:
    """One node as a module."""
    attributes = {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}
    weights = [held[name] for name in node.input if name in held]
    if node.op_type == "Conv":
        return conv(weights, attributes)
    if node.op_type == "BatchNormalization":
        return batch_norm(weights, attributes.get("epsilon", 1e-5))
    if node.op_type == "Gemm":
        return dense(weights, attributes.get("transB", 0))
    if node.op_type == "MaxPool":
        return torch.nn.MaxPool2d(attributes["kernel_shape"], attributes["strides"])
    simple = {"Relu": torch.nn.ReLU, "Flatten": torch.nn.Flatten}
    if node.op_type == "LeakyRelu":
        return torch.nn.LeakyReLU(attributes.get("alpha", 0.01))
    return simple[node.op_type]()


def conv(weights: list[Any], attributes: dict[str, Any]) -> Any:
    outputs, inputs, *kernel = weights[0].shape
    pads = attributes.get("pads", [0, 0, 0, 0])
    module = torch.nn.Conv2d(inputs, outputs, kernel, attributes.get("strides", 1), tuple(pads[:2]))
    return pad_batch(module, weight=weights[0], bias=weights[1])


def dense(weights: list[Any], transposed: int) -> Any:
    weight = weights[0] if transposed else weights[0].T.contiguous()
    return pad_batch(torch.nn.Linear(weight.shape[1], weight.shape[0]), weight=weight, bias=weights[1])


def batch_norm(weights: list[Any], epsilon: float) -> Any:
    names = ("weight", "bias", "running_mean", "running_var")
    return pad_batch(torch.nn.BatchNorm2d(len(weights[0]), epsilon), **dict(zip(names, weights, strict=True)))


def pad_batch(module: Any, **weights: Any) -> Any:
    module.load_state_dict(weights, strict=False)
    return module


class Photographs:
    """A folder of photographs as a dataset."""

    def __init__(self, folder: str, recipe: dict[str, Any]) -> None:
        self.paths: list[Path] = listed(folder)
        self.recipe = recipe

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Any:
        return torch.from_numpy(sample(self.paths[index], self.recipe))


def batches(given: dict[str, Any]) -> Iterator[Any]:
    """The inputs, from wherever they are to come."""
    if given["feed"] == "loader":
        return loaded(given)
    if given["feed"] == "inline":
        return map(torch.from_numpy, photograph_batches(given))
    rows = np.load(given["arrays"], mmap_mode="r")[: given["images"]].copy()
    return iter(torch.from_numpy(rows).split(given["batch"]))


def loaded(given: dict[str, Any]) -> Iterator[Any]:
    """Batches from a DataLoader that starts when the first one is asked for."""
    loader = DataLoader(Photographs(given["photos"], given["recipe"]), batch_size=given["batch"], num_workers=1)
    yield from islice(loader, given["images"] // given["batch"])


def main(given: dict[str, Any]) -> None:
    torch.set_num_threads(given["threads"])
    inputs = batches(given)
    clock = Clock()
    model = network(given["model"])
    sums: dict[int, Any] = {}

    def hook(module: Any, _: Any, output: Any) -> None:
        if output.dim() == 4:
            found = output.mean(dim=(2, 3)).double().sum(dim=0)
            sums[id(module)] = sums.get(id(module), 0) + found

    for module in model:
        if isinstance(module, ACTIVATIONS):
            module.register_forward_hook(hook)
    done = 0
    with torch.inference_mode():
        for batch in inputs:
            model(batch)
            done += len(batch)
            clock.batch()
    assert done == given["images"], f"{done} images measured, expected {given['images']}"
    report: dict[str, Any] = {**clock.report(given), "torch": str(torch.__version__)}
    if given["feed"] == "loader":
        del report["cpu"]  # of this process alone, but its worker decodes
    print(json.dumps(report))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
