"""Layouts: under which names, and in which order of axes, the constants of a VGG stand in a file.

=============  ========================================================================================================
`names`        every constant of any model, under its own name
`torchvision`  `features.0.weight`, `classifier.0.weight`: `torchvision.models.vgg16().load_state_dict`
`caffe`        `conv1_1.weight`, `fc6.weight`: the names of the Caffe models, as networks for style transfer have them
`keras`        `block1_conv1`, `fc1`, `predictions`: kernels `(H, W, C_in, C_out)`, dense layers `(C_in, C_out)` whose
               input is in NHWC order
`adain`        `0.weight`, `2.weight`, `5.weight`: AdaIN's `nn.Sequential` of a 1x1 convolution, then a ReflectionPad2d,
               Conv2d and ReLU per convolution, and a MaxPool2d per pool; it has no dense layers
=============  ========================================================================================================

A file of constants says nothing about pools, borders and preprocessing. Where the network of a layout fixes these and
the model has others, the export is refused; where they are up to the user, a note says what to do.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from onnxnorm.errors import ModelError, OptionError
from onnxnorm.exporting.entries import Entry, as_stored, zeros
from onnxnorm.exporting.options import LayoutName
from onnxnorm.model.boundary import model_errors
from onnxnorm.model.constants import Constant, stored_constants
from onnxnorm.model.files import Model
from onnxnorm.model.graph import Node
from onnxnorm.model.mapped_data import MappedData
from onnxnorm.vgg import Dense, NoVgg, Vgg, read_vgg

__all__ = ["Laid", "lay_out"]

Array = NDArray[np.generic]


@dataclass(frozen=True)
class Laid:
    """The arrays of a file, in order, and what a user should know about it."""

    entries: tuple[Entry, ...]
    notes: tuple[str, ...] = ()


@model_errors("the graph")
def lay_out(model: Model, layout: LayoutName) -> Laid:
    """Lay the constants of a model out.

    Raises:
        OptionError: if the layout is for VGGs and the model is none, or one that the layout cannot express.
        ModelError: if a constant cannot be read.
    """
    constants = stored_constants(model)
    if layout == "names":
        laid = Laid(tuple(as_stored(name, constant) for name, constant in constants.items()))
    else:
        laid = _LAYOUTS[layout](_plain_vgg(model, layout))
    stored = {name: constant.index for name, constant in constants.items() if constant.home == "initializer"}
    return replace(laid, entries=tuple(_releasing(entry, model, stored) for entry in laid.entries))


def _releasing(entry: Entry, model: Model, stored: Mapping[str, int]) -> Entry:
    """An entry that gives memory back if its constant, given by the initializer's index, is read from a file."""
    data = model.tensor_data.get(stored.get(entry.constant or "", -1))
    return replace(entry, release=data.release) if isinstance(data, MappedData) else entry


def _plain_vgg(model: Model, layout: str) -> Vgg:
    vgg = read_vgg(model)
    if isinstance(vgg, NoVgg):
        raise OptionError(f"--layout {layout} is for VGGs, and this model is none: {vgg.reason}; use --layout names")
    if any(layer.normalized for layer in vgg.layers):
        raise OptionError(
            f"--layout {layout} has no place for BatchNormalization; export the model with it folded into its "
            "convolutions, or use --layout names"
        )
    return vgg


# --- layouts ---------------------------------------------------------------------------------------------------------


def _torchvision(vgg: Vgg) -> Laid:
    _check_no_front(vgg, "torchvision")
    entries: list[Entry] = []
    position = 0
    for number, layer in enumerate(vgg.layers):
        position += number > 0 and layer.block > vgg.layers[number - 1].block  # a pool
        entries += _pair(f"features.{position}", layer.weight, layer.bias)
        position += 2
    for index, dense in zip((0, 3, 6), vgg.dense, strict=False):
        entries += _dense(f"classifier.{index}", vgg, dense)
    return Laid(tuple(entries), tuple(_to_do(vgg)))


def _caffe(vgg: Vgg) -> Laid:
    _check_no_front(vgg, "caffe")
    entries = [e for layer in vgg.layers for e in _pair(f"conv{layer.block}_{layer.index}", layer.weight, layer.bias)]
    for number, dense in enumerate(vgg.dense, 6):
        entries += _dense(f"fc{number}", vgg, dense)
    return Laid(tuple(entries), tuple(_to_do(vgg)))


def _keras(vgg: Vgg) -> Laid:
    _check_no_front(vgg, "keras")
    entries = []
    for layer in vgg.layers:
        name, weight = f"block{layer.block}_conv{layer.index}", layer.weight
        shape = (3, 3, weight.shape[1], weight.shape[0])
        entries.append(as_stored(f"{name}/kernel", weight, shape, lambda values: values.transpose(2, 3, 1, 0)))
        entries.append(_bias(f"{name}/bias", layer.bias, weight, weight.shape[0]))
    for name, dense in zip(("fc1", "fc2", "predictions"), vgg.dense, strict=False):
        entries += _keras_dense(name, vgg, dense)
    grouped = [replace(entry, layer=entry.name.partition("/")[0]) for entry in entries]
    return Laid(tuple(grouped), tuple(_to_do(vgg)))


def _adain(vgg: Vgg) -> Laid:
    if {layer.padding for layer in vgg.layers} != {"reflect"}:
        raise OptionError(
            "--layout adain: AdaIN's network reflects its borders, and this model does not, so it would compute "
            "something else there; run onnxnorm features MODEL --padding reflect, and calibrate what comes out"
        )
    channels = vgg.layers[0].weight.shape[1]
    if channels != 3:
        raise OptionError(f"--layout adain: the network reads three channels, this model {channels}")
    notes = [note for note in _to_do(vgg, rounds_up=True) if "borders" not in note]
    if vgg.front is None:
        dtype = vgg.layers[0].weight.dtype
        one = Entry("0.weight", (3, 3, 1, 1), dtype, None, lambda: np.eye(3).reshape(3, 3, 1, 1).astype(dtype))
        entries = [one, zeros("0.bias", 3, dtype)]
        notes.append(
            "no preprocessing is in this model, so the 1x1 convolution at 0 changes nothing; feed what the model "
            "reads, or put it in before calibrating: onnxnorm features MODEL --fold-preprocessing PRESET"
        )
    else:
        entries = list(_pair("0", *vgg.front))
    position = 0
    for number, layer in enumerate(vgg.layers):
        position += number > 0 and layer.block > vgg.layers[number - 1].block  # a pool
        entries += _pair(str(position + 2), layer.weight, layer.bias)  # behind its ReflectionPad2d
        position += 3
    return Laid(tuple(entries), tuple(notes))


_LAYOUTS: dict[str, Callable[[Vgg], Laid]] = {
    "torchvision": _torchvision,
    "caffe": _caffe,
    "keras": _keras,
    "adain": _adain,
}


# --- layers ----------------------------------------------------------------------------------------------------------


def _pair(name: str, weight: Constant, bias: Constant | None) -> Iterator[Entry]:
    yield as_stored(f"{name}.weight", weight)
    yield _bias(f"{name}.bias", bias, weight, weight.shape[0])


def _bias(name: str, bias: Constant | None, weight: Constant, count: int) -> Entry:
    return zeros(name, count, weight.dtype) if bias is None else as_stored(name, bias, (count,))


def _dense(name: str, vgg: Vgg, dense: Dense) -> Iterator[Entry]:
    """Weights `(C_out, C_in)` and bias of a dense layer; the first one reads pixels in NCHW order."""
    inputs, outputs = _sizes(dense)
    order = _pixel_order(vgg, inputs, False) if dense is vgg.dense[0] and vgg.channels_last else slice(None)
    yield as_stored(f"{name}.weight", dense.weight, (outputs, inputs), lambda values: _rows(dense, values)[:, order])
    yield _bias(f"{name}.bias", dense.bias, dense.weight, outputs)


def _keras_dense(name: str, vgg: Vgg, dense: Dense) -> Iterator[Entry]:
    """Weights `(C_in, C_out)` and bias of a dense layer; the first one reads pixels in NHWC order."""
    inputs, outputs = _sizes(dense)
    order = _pixel_order(vgg, inputs, True) if dense is vgg.dense[0] and not vgg.channels_last else slice(None)
    yield as_stored(f"{name}/kernel", dense.weight, (inputs, outputs), lambda values: _rows(dense, values)[:, order].T)
    yield _bias(f"{name}/bias", dense.bias, dense.weight, outputs)


def _sizes(dense: Dense) -> tuple[int, int]:
    """How many numbers a dense layer reads, and how many it gives."""
    first, second = dense.weight.shape
    return (second, first) if dense.rows else (first, second)


def _rows(dense: Dense, values: Array) -> Array:
    """The weights as `(C_out, C_in)`."""
    return values if dense.rows else values.T


def _pixel_order(vgg: Vgg, inputs: int, channels_last: bool) -> NDArray[np.int64]:
    """Which input of the first dense layer comes where in NHWC order, or else in NCHW order; shape `(inputs,)`."""
    channels = vgg.layers[-1].weight.shape[0]
    side = math.isqrt(inputs // channels)
    if side * side * channels != inputs:
        raise ModelError(
            f"the first dense layer reads {inputs} numbers, which are no square of pixels with {channels} channels; "
            "cut the dense layers off with onnxnorm features, or use --layout names"
        )
    shape = (channels, side, side) if channels_last else (side, side, channels)
    axes = (1, 2, 0) if channels_last else (2, 0, 1)
    return np.arange(inputs).reshape(shape).transpose(axes).reshape(-1)


# --- what a file of constants does not say ---------------------------------------------------------------------------


def _check_no_front(vgg: Vgg, layout: str) -> None:
    if vgg.front is not None:
        raise OptionError(
            f"--layout {layout} has no place for the 1x1 convolution in front, which holds the preprocessing; use "
            "--layout adain or names, or a model without --fold-preprocessing"
        )


def _to_do(vgg: Vgg, rounds_up: bool = False) -> Iterator[str]:
    """What the network that loads the file must do as this model does; `rounds_up`: its pools round sizes up."""
    if vgg.before is not None:
        yield (
            f"{vgg.before.op} node {vgg.before.label!r} in front of the first convolution is not in the file: feed the "
            "network that loads the file what that node gives"
        )
    kinds = {layer.padding for layer in vgg.layers}
    if kinds != {"zero"}:
        how = " and ".join(sorted(kinds))
        yield f"this model pads its borders by {how}: the network that loads the file must do so too"
    if any(pool.op == "AveragePool" for pool in vgg.pools):
        yield "this model has average pooling: the network that loads the file must have it too"
    up = {_rounds_up(pool) for pool in vgg.pools}
    if rounds_up and False in up:
        yield (
            "AdaIN's pools round odd sizes up, and this model's do not: feed images whose sides are multiples of "
            f"{2 ** len(vgg.pools)}"
        )
    elif not rounds_up and True in up:
        yield "this model's pools round odd sizes up (ceil_mode): the network that loads the file must do so too"


def _rounds_up(pool: Node) -> bool:
    return bool(pool.attribute("ceil_mode", 0)) or pool.attribute("auto_pad", "NOTSET") == "SAME_UPPER"
