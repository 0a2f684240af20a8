"""Which arrays of a file are the convolutions of a VGG: the layouts of this package, read backwards.

Three kinds of names are known; the first kind that occurs in a file is that of the file.

1. Names that say the block and the place in it: `conv1_2.weight`, `block1_conv2/kernel:0`.
2. Numbers of layers of one class, as Keras 3 has them: `layers/conv2d_1/vars/0`.
3. Positions in a `nn.Sequential`: `features.2.weight`, `2.weight`. A pool between two convolutions shows as a step that
   is larger than the others.

Numbers of layers do not say where the pools are. In every VGG the filters become more behind a pool, up to the third
one, and the last two blocks have as many convolutions as the third; that decides.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby, pairwise

import numpy as np

from onnxnorm.errors import ModelError
from onnxnorm.exporting.reading import Array

__all__ = ["Convolution", "VggWeights", "recognize"]

_Place = tuple[int, int]

_NAMED = re.compile(r"(?:conv|block)(\d+)_(?:conv)?(\d+)")
_NUMBERED = re.compile(r"(?:^|/)conv2d(?:_(\d+))?/vars/\d+$")
_POSITION = re.compile(r"(?:^|\.)(\d+)\.\w+$")
_PLAIN_BLOCKS = 3


@dataclass(frozen=True)
class Convolution:
    """A convolution's block, counted from 1, and its weights (out, in, height, width) and bias (out)."""

    block: int
    weight: Array = field(repr=False)
    bias: Array = field(repr=False)


@dataclass(frozen=True)
class VggWeights:
    """The convolutions of a VGG.

    Attributes:
        layers: the 3x3 convolutions, in order.
        front: a 1x1 convolution in front of them, which is preprocessing; None if there is none.
        preset: the preset that networks with such names are fed by, as a rule.
    """

    layers: tuple[Convolution, ...]
    front: Convolution | None
    preset: str


def recognize(arrays: Mapping[str, Array]) -> VggWeights:
    """The convolutions among some arrays. Raises ModelError if they are not those of a VGG."""
    if any("running_mean" in name or "moving_mean" in name for name in arrays):
        raise ModelError("it has BatchNormalization; fold that into the convolutions first")
    named = {name: (int(match[1]), int(match[2])) for name in arrays if (match := _NAMED.search(name))}
    if named:
        return _checked(VggWeights(tuple(_convolutions(arrays, named)), None, "caffe"))
    numbered = {name: (0, int(match[1] or 0)) for name in arrays if (match := _NUMBERED.search(name))}
    if numbered:
        layers = tuple(_convolutions(arrays, numbered))
        return _checked(VggWeights(_placed(layers, _blocks_of_widths([len(x.weight) for x in layers])), None, "caffe"))
    return _checked(_sequential(arrays))


def _sequential(arrays: Mapping[str, Array]) -> VggWeights:
    """The convolutions at positions; layers without weights of four axes are dense ones."""
    stems = {name.rpartition(".")[0] for name, array in arrays.items() if array.ndim == 4}
    places = {
        name: (0, int(match[1]))
        for name in arrays
        if name.rpartition(".")[0] in stems and (match := _POSITION.search(name))
    }
    layers = list(_convolutions(arrays, places))
    positions = sorted({places[name][1] for name in places if arrays[name].ndim == 4})
    front = layers.pop(0) if layers and layers[0].weight.shape == (3, 3, 1, 1) else None
    blocks = _blocks_of_positions(positions[1:] if front else positions)
    preset = "unit" if front else "imagenet" if any(name.startswith("features.") for name in places) else "caffe"
    return VggWeights(_placed(layers, blocks), front, preset)


def _convolutions(arrays: Mapping[str, Array], places: Mapping[str, _Place]) -> Iterator[Convolution]:
    """Pairs of weights and bias, in the order of their places. Kernels of Keras, `(H, W, in, out)`, are turned."""
    for place in sorted({places[name] for name in places if arrays[name].ndim == 4}):
        here = [name for name in arrays if places.get(name) == place]
        weights = [arrays[name] for name in here if arrays[name].ndim == 4]
        biases = [arrays[name] for name in here if arrays[name].ndim == 1]
        if len(weights) > 1 or len(biases) > 1:
            raise ModelError(f"{', '.join(here)} are all for one convolution; keep the arrays of one network only")
        weight = weights[0]
        weight = weight if weight.shape[2] == weight.shape[3] <= 3 else weight.transpose(3, 2, 0, 1)
        yield Convolution(place[0], weight, biases[0] if biases else np.zeros(len(weight), np.float32))


def _placed(layers: Sequence[Convolution], blocks: Sequence[int]) -> tuple[Convolution, ...]:
    pairs = zip(blocks, layers, strict=True)
    return tuple(Convolution(block, layer.weight, layer.bias) for block, layer in pairs)


def _blocks_of_positions(positions: Sequence[int]) -> list[int]:
    """The block of each position: a step that is larger than the smallest one passes a pool."""
    steps = [after - before for before, after in pairwise(positions)]
    return [1 + sum(step > min(steps) for step in steps[:count]) for count in range(len(positions))]


def _blocks_of_widths(widths: Sequence[int]) -> list[int]:
    """The block of each convolution, by its number of filters; blocks behind the third one are as long as that."""
    blocks: list[int] = []
    runs = [len(list(run)) for _, run in groupby(widths)]
    for number, length in enumerate(runs[:_PLAIN_BLOCKS], 1):
        blocks += [number] * length
    later = len(widths) - len(blocks)
    return blocks + [_PLAIN_BLOCKS + 1 + count // runs[_PLAIN_BLOCKS - 1] for count in range(later)]


def _checked(found: VggWeights) -> VggWeights:
    """Raise ModelError unless every convolution reads what the one before it gives."""
    if not found.layers:
        raise ModelError(
            "no convolutions were found: no names such as conv1_1.weight, block1_conv1/kernel, layers/conv2d/vars/0 or "
            "features.0.weight"
        )
    channels = 3
    for number, layer in enumerate(found.layers, 1):
        if layer.weight.shape[1:] != (channels, 3, 3) or layer.bias.shape != (len(layer.weight),):
            raise ModelError(
                f"convolution {number} has weights of shape {layer.weight.shape} and a bias of shape "
                f"{layer.bias.shape}; those of a VGG have (filters, {channels}, 3, 3) and (filters,)"
            )
        channels = len(layer.weight)
    return found
