"""The convolutions of a VGG in PyTorch, with the constants that `onnxnorm export` writes."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch.nn import functional

import onnxnorm

Features = dict[str, torch.Tensor]

BLOCKS = (2, 2, 3, 3, 3)
STYLE = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")
CONTENT = "relu4_2"


def load(model: Path) -> Features:
    """The weights and biases of a VGG by Caffe's names: `conv1_1.weight`, `conv1_1.bias`, ..."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "constants.safetensors"
        onnxnorm.export(model, file, layout="caffe")
        return load_file(file)


def activations(constants: Features, image: torch.Tensor) -> Features:
    """The layers that style and content are compared at, each (channels, positions), for one image (1, 3, H, W)."""
    found: Features = {}
    value = image
    for block, layers in enumerate(BLOCKS, 1):
        for layer in range(1, layers + 1):
            name = f"{block}_{layer}"
            weight, bias = constants[f"conv{name}.weight"], constants[f"conv{name}.bias"]
            value = functional.relu(functional.conv2d(value, weight, bias, padding=1))
            if f"relu{name}" in (*STYLE, CONTENT):
                found[f"relu{name}"] = value[0].flatten(1)
            if f"relu{name}" == STYLE[-1]:
                return found
        value = functional.max_pool2d(value, 2)
    return found


def gram(features: torch.Tensor) -> torch.Tensor:
    """The mean product of every two channels, over all positions."""
    return features @ features.T / features.shape[1]
