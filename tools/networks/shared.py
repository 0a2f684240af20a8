"""What every exported network needs: inputs like photographs, parameters like trained ones, statistics, the export."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["EXPORTERS", "SAMPLES", "Network", "export_network", "images", "prepare", "unit_images"]

Draw = Callable[[int, torch.Generator], dict[str, Tensor]]

EXPORTERS = ("torchscript", "dynamo")
OPSETS = {"torchscript": 17, "dynamo": 18}
SAMPLES = 4
_BATCHES = 4
_BATCH = 8


@dataclass(frozen=True)
class Network:
    """A network to export.

    Attributes:
        module: the network, with random weights.
        draw: draws a number of samples, as arguments by name, in the order in which the module takes them.
        free: names of the inputs whose height and width the network leaves free.
        outputs: names of the outputs.
        normalizers: what counts as batch normalization, beside PyTorch's own.
    """

    module: Any
    draw: Draw
    free: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ("output",)
    normalizers: tuple[type, ...] = field(default=(), repr=False)


def images(height: int, width: int = 0, channels: int = 3, name: str = "input") -> Draw:
    """Random images whose power falls with the frequency, as in photographs; mean 0 and deviation 1 for each."""

    def draw(count: int, generator: torch.Generator) -> dict[str, Tensor]:
        size = (height, width or height)
        total = torch.zeros(count, channels, *size)
        side = 2
        while side <= max(size):
            octave = torch.randn(count, channels, side, side, generator=generator)
            gray = octave.mean(1, keepdim=True)  # channels of photographs are alike
            total += functional.interpolate(0.5 * octave + gray, size, mode="bilinear", align_corners=False) / side
            side *= 2
        total += 0.02 * torch.randn(count, channels, *size, generator=generator)
        axes = (1, 2, 3)
        return {name: (total - total.mean(axes, keepdim=True)) / total.std(axes, keepdim=True)}

    return draw


def unit_images(height: int, width: int = 0, channels: int = 3, name: str = "input") -> Draw:
    """The same images, from 0 to 1."""

    def draw(count: int, generator: torch.Generator) -> dict[str, Tensor]:
        drawn = images(height, width, channels, name)(count, generator)
        return {key: (0.5 + 0.2 * value).clamp(0, 1) for key, value in drawn.items()}

    return draw


@torch.no_grad()
def prepare(network: Network, seed: int = 0) -> None:
    """Give a network parameters like those of a trained one, and batch normalization the statistics of some batches."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in network.module.parameters():
        if parameter.numel() > 1 and parameter.unique().numel() == 1:
            _draw_constant(parameter, generator)
    normalizers: list[Any] = [
        module
        for module in network.module.modules()
        if isinstance(module, (nn.modules.batchnorm._BatchNorm, *network.normalizers))
    ]
    network.module.eval()
    momenta = [module.momentum for module in normalizers]
    for module in normalizers:
        module.reset_running_stats()
        module.momentum = None  # the mean over all batches
        module.train()
    for _ in range(_BATCHES if normalizers else 0):
        network.module(*network.draw(_BATCH, generator).values())
    for module, momentum in zip(normalizers, momenta, strict=True):
        module.momentum = momentum
    network.module.eval()


def _draw_constant(parameter: Tensor, generator: torch.Generator) -> None:
    """Spread a parameter that is 0 or 1, or another number, throughout: scales of norms, biases, LayerScale."""
    value = float(parameter.reshape(-1)[0])
    noise = torch.randn(parameter.shape, generator=generator)
    if value == 0:
        parameter.copy_(0.2 * noise)
    else:
        parameter.copy_((1.0 if abs(value) < 0.1 else value) * torch.exp(0.4 * noise))


def export_network(network: Network, path: Path, exporter: str, seed: int = 1) -> str:
    """Write a prepared network and `SAMPLES` samples beside it; returns a line on how well ONNX Runtime agrees.

    Raises:
        Exception: whatever the exporter raises.
    """
    samples = network.draw(SAMPLES, torch.Generator().manual_seed(seed))
    names = {"input_names": list(samples), "output_names": list(network.outputs)}
    axes = {
        name: {0: "batch", **({2: "height", 3: "width"} if name in network.free else {})}
        for name, value in samples.items()
        if value.ndim
    }
    arguments = tuple(samples.values())
    partial = path.with_suffix(".part.onnx")
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        if exporter == "torchscript":
            every = axes | {name: {0: "batch"} for name in network.outputs}
            torch.onnx.export(
                network.module, arguments, str(partial), **names,
                opset_version=OPSETS[exporter], dynamic_axes=every, dynamo=False,
            )  # fmt: skip
        else:
            shapes = tuple(dict.fromkeys(axes.get(name, {}), torch.export.Dim.AUTO) or None for name in samples)
            torch.onnx.export(
                network.module, arguments, str(partial), **names,
                opset_version=OPSETS[exporter], dynamic_shapes=shapes, dynamo=True, external_data=False, verbose=False,
            )  # fmt: skip
        expected = network.module(*arguments)
    partial.replace(path)
    np.savez(path.with_suffix(".npz"), **{name: value.numpy() for name, value in samples.items()})
    return _compared(path, samples, expected)


def _compared(path: Path, samples: dict[str, Tensor], expected: Any) -> str:
    """How far ONNX Runtime's first output is from PyTorch's."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    feeds = {value.name: samples[value.name].numpy() for value in session.get_inputs()}
    found = session.run(None, feeds)[0]
    while not isinstance(expected, Tensor):
        expected = next(iter(expected.values() if isinstance(expected, dict) else expected))
    wanted = expected.numpy()
    error = float(np.abs(found - wanted).max() / np.abs(wanted).max())
    return f"ONNX Runtime differs by {error:.1e}, outputs have a deviation of {float(wanted.std()):.3g}"
