"""Chooses the preprocessing from a preset, options that override parts of it, and the model's input.

A preset has its mean and std per colour, in the units after the division, so they follow the colours if another channel
order is selected. Numbers that the user gives are in the order of the channels that the model sees.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from onnxnorm.data.images.preprocessing import (
    DRAFT_GAP,
    IMAGE_DTYPES,
    Channels,
    Layout,
    Preprocessing,
    Recipe,
    channel_count,
)
from onnxnorm.data.images.resizing import Resize
from onnxnorm.data.images.transform import TransformLike, transform_for
from onnxnorm.errors import DataError, OptionError
from onnxnorm.model.inputs import InputSpec
from onnxnorm.options import IMAGES, Options, flags_of, option, spelled

__all__ = [
    "PRESETS",
    "ImageOptions",
    "Numbers",
    "Preset",
    "Size",
    "SizeOptions",
    "TransformOptions",
    "given_options",
    "parsed_size",
    "preprocessing_for",
    "recipe_for",
]

Numbers = str | float | Sequence[float]
Size = str | int | tuple[int, int]

_ARRAYS = "give preprocessed .npy or .npz arrays instead"
_DEFAULT_SIDE = 224
_LARGEST_SIDE = 32768


@dataclass(frozen=True)
class Preset:
    """A common preprocessing; `mean` and `std` have three numbers, for red, green and blue, or one for all.

    `help` describes it on the command line and in the documentation of the API.
    """

    help: str
    channels: Channels
    divisor: float
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)


PRESETS = {
    "imagenet": Preset("RGB, /255, ImageNet mean and std", "rgb", 255.0, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "caffe": Preset("BGR, 0..255 minus 103.939, 116.779, 123.68", "bgr", 1.0, (123.68, 116.779, 103.939)),
    "tf": Preset("RGB to [-1, 1]", "rgb", 255.0, (0.5,), (0.5,)),
    "unit": Preset("RGB/255", "rgb", 255.0),
    "raw": Preset("RGB 0..255", "rgb", 1.0),
}
_UNITS = "Pixels go from 0 to 1 with imagenet, tf and unit, from 0 to 255 with caffe and raw."


@dataclass(frozen=True, kw_only=True)
class SizeOptions(Options):
    """The size of inputs whose size is not fixed: "HxW", the side of a square, or (height, width), in pixels."""

    size: Size | None = option(
        None, "Default: the model's own size, else 224x224.", panel=IMAGES, metavar="HxW", kind=str
    )


@dataclass(frozen=True, kw_only=True)
class TransformOptions(Options):
    """A preprocessing of the user's own."""

    transform: TransformLike | None = option(
        None,
        "A function of your own in place of a preset and its options: it takes an image of Pillow and returns an array "
        "in the shape of the input. From a module in the current folder, or installed.",
        panel=IMAGES,
        metavar="MODULE:FUNCTION",
        kind=str,
    )


@dataclass(frozen=True, kw_only=True)
class ImageOptions(TransformOptions, SizeOptions):
    """How images become samples; where an option is None or "auto", the preset and the model decide.

    Attributes:
        preset: a name in `PRESETS`.
        resize: how an image is brought to the size of the input.
        mean: one number, one number per channel, or text such as "1,2,3"; subtracted after the preset's division.
        std: the same; the difference is divided by it.
        channels: the order of the channels that the model sees.
        layout: the order of the axes of the model's input.
        transform: a function that makes a sample of an image, or its name `module:function`; replaces all others.
    """

    preset: str | None = option(
        None,
        "".join(f"{name}: {preset.help}. " for name, preset in PRESETS.items())
        + "Default: imagenet; unit if the model reads one channel; raw if it reads bytes.",
        panel=IMAGES,
        choices=lambda: PRESETS,
    )
    resize: Resize = option("shortest", "shortest: to the size, then crop the centre.", panel=IMAGES)
    mean: Numbers | None = option(
        None,
        f"Subtracted from the pixels: one number, or one per channel. {_UNITS} Default: the preset's.",
        panel=IMAGES,
        metavar="M[,M,M]",
        kind=str,
    )
    std: Numbers | None = option(
        None,
        "What the pixels are divided by, after the mean is subtracted; written like --mean. Default: the preset's.",
        panel=IMAGES,
        metavar="S[,S,S]",
        kind=str,
    )
    channels: Channels | None = option(None, "Default: the preset's.", panel=IMAGES)
    layout: Layout | Literal["auto"] = option("auto", "Of the model's input.", panel=IMAGES)


def given_options(options: ImageOptions) -> list[str]:
    """The options of images that have another value than their default, as they are typed."""
    given = []
    for item, _ in flags_of(ImageOptions):
        value = getattr(options, item.name)
        if value is not None if item.default is None else value != item.default:
            given.append(spelled(item))
    return given


def recipe_for(spec: InputSpec, options: ImageOptions) -> Recipe:
    """Return what turns images into samples of the input `spec`: the user's own transform, or a preprocessing.

    Raises:
        DataError: if the input cannot be fed with images.
        OptionError: if an option does not fit the input or another option, or if there is no such transform.
    """
    if options.transform is None:
        return preprocessing_for(spec, options)
    _check_alone(options)
    return transform_for(spec, options.transform)


def preprocessing_for(spec: InputSpec, options: ImageOptions) -> Preprocessing:
    """Return the preprocessing that turns images into samples of the input `spec`.

    The default preset is `raw` for an input of dtype uint8, else `imagenet` for three channels and `unit` for one.

    Raises:
        DataError: if the input cannot be fed with images.
        OptionError: if an option does not fit the input or another option.
    """
    layout = _layout(spec, options)
    if spec.dtype not in IMAGE_DTYPES:
        raise DataError(f"images cannot be fed to input {spec}: its dtype is not a float or uint8; {_ARRAYS}")
    count = _model_channels(spec, layout, options)
    name = options.preset or _default_preset(spec, count)
    preset = PRESETS[name]
    channels = _channels(spec, count, options.channels or ("gray" if count == 1 else preset.channels))
    std = _per_channel("--std", options.std, preset.std, channels, name)
    if min(std) <= 0:
        raise OptionError(f"--std {options.std} divides the pixels; it must be positive")
    return Preprocessing(
        preset=name,
        channels=channels,
        divisor=preset.divisor,
        mean=_per_channel("--mean", options.mean, preset.mean, channels, name),
        std=std,
        size=_size(spec, layout, options),
        resize=options.resize,
        layout=layout,
        dtype=spec.dtype,
        draft=0 if options.resize == "none" else DRAFT_GAP,
    )


def _check_alone(options: ImageOptions) -> None:
    """Raise OptionError if an option is given that a transform replaces."""
    others = [name for name in given_options(options) if name != "--transform"]
    if others:
        raise OptionError(f"--transform prepares images alone, so {others[0]} has no effect; leave one of them out")


def _layout(spec: InputSpec, options: ImageOptions) -> Layout:
    if len(spec.shape) != 4:
        raise DataError(f"images cannot be fed to input {spec}: it has {len(spec.shape)} axes, not 4; {_ARRAYS}")
    if options.layout != "auto":
        return options.layout
    second, last = spec.shape[1], spec.shape[3]
    if (second in {1, 3}) != (last in {1, 3}):
        return "nchw" if second in {1, 3} else "nhwc"
    if None not in {second, last} and second not in {1, 3}:
        raise DataError(f"images cannot be fed to input {spec}: neither axis 1 nor axis 3 is 1 or 3; {_ARRAYS}")
    raise OptionError(f"input {spec} does not tell which axis holds the channels; say --layout nchw or --layout nhwc")


def _model_channels(spec: InputSpec, layout: Layout, options: ImageOptions) -> int:
    count = spec.shape[1 if layout == "nchw" else 3]
    if count is None:
        return channel_count(options.channels or "rgb")
    if count not in {1, 3}:
        raise DataError(
            f"images cannot be fed to input {spec}: as {layout.upper()} it has {count} channels, not 1 or 3; "
            f"check --layout, or {_ARRAYS}"
        )
    return count


def _default_preset(spec: InputSpec, count: int) -> str:
    if spec.dtype == np.uint8:
        return "raw"
    return "unit" if count == 1 else "imagenet"


def _channels(spec: InputSpec, count: int, channels: Channels) -> Channels:
    if channel_count(channels) != count:
        right = "gray" if count == 1 else "rgb or bgr"
        raise OptionError(f"--channels {channels} does not fit input {spec}, which takes {count}; use {right}")
    return channels


def _per_channel(
    option: str, given: Numbers | None, usual: tuple[float, ...], channels: Channels, preset: str
) -> tuple[float, ...]:
    """Return one number per channel: the user's numbers if there are any, else the preset's."""
    values = usual if given is None else _parse_numbers(option, given)
    count = channel_count(channels)
    if len(values) == 1:
        return values * count
    if len(values) != count:
        source = f"preset {preset} has" if given is None else "that is"
        raise OptionError(
            f"{option}: {source} {len(values)} numbers, but the model's input has {count} channel(s) ({channels}); "
            + (f"give {option} one number, or use --preset unit, tf or raw" if count == 1 else f"give 1 or {count}")
        )
    return values[::-1] if given is None and channels == "bgr" else values


def _parse_numbers(option: str, given: Numbers) -> tuple[float, ...]:
    try:
        if isinstance(given, str):
            values = tuple(float(part) for part in re.split(r"[,\s]+", given.strip()))
        else:
            values = (float(given),) if isinstance(given, (int, float)) else tuple(float(value) for value in given)
    except (TypeError, ValueError):
        values = ()
    if not values or not all(map(math.isfinite, values)):
        raise OptionError(f"{option} {given!r} is not a number, or one per channel; write it like 0.5 or 0.4,0.5,0.6")
    return values


def _size(spec: InputSpec, layout: Layout, options: ImageOptions) -> tuple[int, int] | None:
    """Return (height, width): the model's own where they are fixed, else those of the options, else 224."""
    fixed = spec.shape[2:4] if layout == "nchw" else spec.shape[1:3]
    if options.resize == "none":
        _check_unsized(spec, fixed, options)
        return None
    given = (None, None) if options.size is None else parsed_size(options.size)
    for own, side in zip(fixed, given, strict=True):
        if own is not None and side is not None and own != side:
            raise OptionError(f"--size {options.size} contradicts input {spec}, whose size is fixed; leave it out")
    height, width = (own or side or _DEFAULT_SIDE for own, side in zip(fixed, given, strict=True))
    return height, width


def _check_unsized(spec: InputSpec, fixed: tuple[int | None, ...], options: ImageOptions) -> None:
    if options.size is not None:
        raise OptionError(f"--size {options.size} contradicts --resize none; leave one of them out")
    if any(side is not None for side in fixed):
        raise OptionError(f"--resize none needs an input of open height and width, not {spec}; use shortest or squash")


def parsed_size(size: Size) -> tuple[int, int]:
    """Return (height, width) of a size in any of its forms. Raises OptionError if it is not a size."""
    sides: tuple[int, ...]
    if isinstance(size, str):
        match = re.fullmatch(r"\s*(\d{1,9})(?:\s*[xX]\s*(\d{1,9}))?\s*", size)
        sides = () if match is None else (int(match[1]), int(match[2] or match[1]))
    else:
        sides = (size, size) if isinstance(size, int) else tuple(size)
    if len(sides) != 2 or not all(1 <= side <= _LARGEST_SIDE for side in sides):
        raise OptionError(f"--size {size!r} is not a size; write HxW such as 224x224, or one number for a square")
    return sides[0], sides[1]
