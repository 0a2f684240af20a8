"""Tell whether a file of VGG weights is really normalized: its mean activations over photographs.

    python -m tools.check_vgg vgg_conv.pth PHOTOS

The file is a `.pth` (needs PyTorch), `.h5` (needs h5py), `.npz` or `.safetensors` with the convolutions of a VGG, under
names that say the block (`conv1_1.weight`, `block1_conv1/kernel:0`) or the positions of a `nn.Sequential`
(`features.0.weight`, `0.weight`). At positions, a pool shows as a step that is larger than the others. A 1x1
convolution of three channels in front is preprocessing; such networks reflect their borders, as AdaIN's does.

Prints the means of every layer. Exits with 0 if three quarters of the filters that are not dead have a mean between 0.5
and 2, with 3 if not, and with 1 if the file holds no VGG.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

import onnxnorm

Array = NDArray[np.float32]
Place = tuple[int, int]

NORMALIZED, NOT, WRONG = 0, 3, 1
BETWEEN, SHARE = (0.5, 2.0), 0.75
NAMED = re.compile(r"(?:conv|block)(\d+)_(?:conv)?(\d+)")
POSITION = re.compile(r"(?:^|\.)(\d+)\.\w+$")


class NoVggError(Exception):
    """The file does not hold the convolutions of a VGG."""


@dataclass(frozen=True)
class Convolution:
    """A convolution's block, and its weights (out, in, height, width) and bias (out)."""

    block: int
    weight: Array
    bias: Array


@dataclass(frozen=True)
class Weights:
    """The convolutions of a file, in order; what stands in front of them; and which preset feeds such a network."""

    layers: tuple[Convolution, ...]
    front: Convolution | None
    preset: str


# --- reading ---------------------------------------------------------------------------------------------------------


def arrays(path: Path) -> dict[str, Array]:
    """Every array of a file by its name."""
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise NoVggError(f"{path.name}: the ending should be one of {', '.join(READERS)}")
    try:
        return {name: np.asarray(values, np.float32) for name, values in reader(path)}
    except (ImportError, OSError):
        raise
    except Exception as error:  # every library has exceptions of its own for files that are none of its
        raise NoVggError(f"it cannot be read as {path.suffix}: {error}") from error


def from_torch(path: Path) -> Iterator[tuple[str, Any]]:
    import torch

    found = torch.load(path, map_location="cpu", weights_only=True)
    found = found.get("state_dict", found) if isinstance(found, Mapping) else found.state_dict()
    yield from ((name, tensor.numpy()) for name, tensor in found.items())


def from_h5(path: Path) -> Iterator[tuple[str, Any]]:
    import h5py

    found: dict[str, Any] = {}
    with h5py.File(path) as file:
        file.visititems(lambda name, item: found.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None)
    yield from found.items()


def from_npz(path: Path) -> Iterator[tuple[str, Any]]:
    with np.load(path) as file:
        yield from file.items()


def from_safetensors(path: Path) -> Iterator[tuple[str, Any]]:
    from safetensors.numpy import load_file

    yield from load_file(path).items()


READERS = {".pth": from_torch, ".pt": from_torch, ".h5": from_h5, ".npz": from_npz, ".safetensors": from_safetensors}


# --- which array is which layer --------------------------------------------------------------------------------------


def weights(found: Mapping[str, Array]) -> Weights:
    """The convolutions, in order, with the block of each."""
    if any("running_mean" in name for name in found):
        raise NoVggError("it has BatchNormalization: fold that into the convolutions first")
    named = {name: (int(match[1]), int(match[2])) for name in found if (match := NAMED.search(name))}
    if named:
        return Weights(tuple(convolutions(found, named)), None, "caffe")
    stems = {name.rpartition(".")[0] for name, array in found.items() if array.ndim == 4}  # not those of dense layers
    positions = {
        name: (0, int(match[1]))
        for name in found
        if name.rpartition(".")[0] in stems and (match := POSITION.search(name))
    }
    layers = list(convolutions(found, positions))
    kept = sorted({positions[name][1] for name in positions if found[name].ndim == 4})
    front = layers.pop(0) if layers and layers[0].weight.shape == (3, 3, 1, 1) else None
    blocks = blocks_of(kept[1:] if front else kept)
    placed = tuple(Convolution(block, layer.weight, layer.bias) for block, layer in zip(blocks, layers, strict=True))
    preset = "unit" if front else "imagenet" if any(name.startswith("features.") for name in positions) else "caffe"
    return Weights(placed, front, preset)


def convolutions(found: Mapping[str, Array], places: Mapping[str, Place]) -> Iterator[Convolution]:
    """Pairs of weights and bias, in the order of their places."""
    for place in sorted({places[name] for name in found if name in places and found[name].ndim == 4}):
        here = [found[name] for name in found if places.get(name) == place]
        weight = next(array for array in here if array.ndim == 4)
        weight = weight if weight.shape[2] == weight.shape[3] <= 3 else weight.transpose(3, 2, 0, 1)
        bias = next((array for array in here if array.ndim == 1), np.zeros(len(weight), np.float32))
        yield Convolution(place[0], weight, bias)


def blocks_of(positions: list[int]) -> list[int]:
    """The block of each position: a step that is larger than the smallest one passes a pool."""
    if not positions:
        return []
    steps = [after - before for before, after in pairwise(positions)]
    return [1, *(1 + sum(step > min(steps) for step in steps[:count]) for count in range(1, len(positions)))]


def check(found: Weights) -> Weights:
    """Raise NoVggError unless every convolution reads what the one before it gives."""
    channels = 3
    for number, layer in enumerate(found.layers, 1):
        if layer.weight.shape[1:] != (channels, 3, 3) or layer.bias.shape != (len(layer.weight),):
            raise NoVggError(
                f"convolution {number} has weights of shape {layer.weight.shape} and a bias of shape "
                f"{layer.bias.shape}; (filters, {channels}, 3, 3) and (filters,) were expected"
            )
        channels = len(layer.weight)
    if not found.layers:
        raise NoVggError(
            "no convolutions were found: no names such as conv1_1.weight, block1_conv1 or features.0.weight"
        )
    return found


# --- the network -----------------------------------------------------------------------------------------------------


def network(found: Weights) -> onnx.ModelProto:
    """The VGG as a model: 3x3 convolutions with their Relus, a 2x2 MaxPool between blocks."""
    nodes: list[onnx.NodeProto] = []
    constants: list[onnx.TensorProto] = []

    def add(op: str, name: str, *inputs: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(op, inputs, [name], f"{name}_node", **attributes))
        return name

    def convolve(name: str, layer: Convolution, value: str, pads: list[int]) -> str:
        for part, array in (("weight", layer.weight), ("bias", layer.bias)):
            constants.append(numpy_helper.from_array(np.ascontiguousarray(array), f"{name}.{part}"))
        return add("Conv", name, value, f"{name}.weight", f"{name}.bias", pads=pads)

    value = "input" if found.front is None else convolve("front", found.front, "input", [0, 0, 0, 0])
    constants.append(numpy_helper.from_array(np.array([0, 0, 1, 1, 0, 0, 1, 1], np.int64), "borders"))
    before: Place = (1, 0)
    for layer in found.layers:
        if layer.block > before[0]:
            value = add("MaxPool", f"pool{before[0]}", value, kernel_shape=[2, 2], strides=[2, 2])
        before = (layer.block, before[1] + 1 if layer.block == before[0] else 1)
        name = f"{before[0]}_{before[1]}"
        if found.front is not None:
            value = add("Pad", f"pad{name}", value, "borders", mode="reflect")
        value = convolve(f"conv{name}", layer, value, [0, 0, 0, 0] if found.front else [1, 1, 1, 1])
        value = add("Relu", f"relu{name}", value)
    image = helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", 3, "H", "W"])
    output = helper.make_tensor_value_info(value, TensorProto.FLOAT, ["N", len(found.layers[-1].weight), "h", "w"])
    graph = helper.make_graph(nodes, "vgg", [image], [output], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


# --- the answer ------------------------------------------------------------------------------------------------------


def share_near_one(means: Mapping[str, NDArray[np.float64]]) -> float:
    """How many filters that are not dead have a mean near 1."""
    every = np.concatenate(list(means.values()))
    live = every[every > 0]
    return float(((live >= BETWEEN[0]) & (live <= BETWEEN[1])).mean()) if len(live) else 0.0


def print_means(means: Mapping[str, NDArray[np.float64]]) -> None:
    print(f"{'layer':8s} {'filters':>7s} {'dead':>5s} {'min':>10s} {'median':>10s} {'max':>10s}")
    for name, values in means.items():
        live = values[values > 0]
        numbers = [live.min(), np.median(live), live.max()] if len(live) else [0.0, 0.0, 0.0]
        print(f"{name:8s} {len(values):7d} {len(values) - len(live):5d} " + " ".join(f"{x:10.4g}" for x in numbers))


def run(path: Path, photos: list[str], preset: str | None, limit: int | None) -> int:
    found = check(weights(arrays(path)))
    preset = preset or found.preset
    statistics = onnxnorm.calibrate(network(found), photos, preset=preset, limit=limit)
    means = {value.name: moments.mean for value, moments in statistics.values.items()}
    print(f"{len(found.layers)} convolutions, photographs as {preset}")
    print_means({name: values for name, values in means.items() if name.startswith("relu")})
    share = share_near_one({name: values for name, values in means.items() if name.startswith("relu")})
    print(
        f"{share:.1%} of the filters that are not dead have a mean between {BETWEEN[0]:g} and {BETWEEN[1]:g}: ", end=""
    )
    print("normalized" if share >= SHARE else "NOT normalized")
    return NORMALIZED if share >= SHARE else NOT


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="the weights")
    parser.add_argument("photos", nargs="+", help="photographs, or folders of them")
    parser.add_argument("--preset", help="how photographs are fed; by default what networks with such names read")
    parser.add_argument("--limit", type=int, help="no more photographs than this")
    given = parser.parse_args(words)
    try:
        return run(given.file, given.photos, given.preset, given.limit)
    except ImportError as error:
        print(f"error: {given.file.name} needs the package {error.name}: pip install {error.name}", file=sys.stderr)
    except NoVggError as error:
        print(f"error: {given.file}: {error}", file=sys.stderr)
    except (OSError, onnxnorm.OnnxnormError) as error:
        print(f"error: {error}", file=sys.stderr)
    return WRONG


if __name__ == "__main__":
    sys.exit(main())
