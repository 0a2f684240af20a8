"""Chooses the preprocessing from a preset, options that override parts of it, and the model's input.

A preset has its mean and std per colour, in the units after the division, so they follow the colours if another channel
order is selected. Numbers that the user gives are in the order of the channels that the model sees.
"""

from __future__ import annotations

import math
import re

import numpy as np

from onnxnorm.data.images.options import ImageOptions, Numbers, given_options, parsed_size
from onnxnorm.data.images.preprocessing import (
    DRAFT_GAP,
    IMAGE_DTYPES,
    Channels,
    Layout,
    Preprocessing,
    Recipe,
    channel_count,
)
from onnxnorm.data.images.presets import PRESETS
from onnxnorm.data.images.transform import transform_for
from onnxnorm.errors import DataError, OptionError
from onnxnorm.model.inputs import InputSpec

__all__ = ["preprocessing_for", "recipe_for"]

_ARRAYS = "give preprocessed .npy or .npz arrays instead"
_DEFAULT_SIDE = 224


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
    resize = options.resize or "shortest"
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
        resize=resize,
        layout=layout,
        dtype=spec.dtype,
        draft=0 if resize == "none" else DRAFT_GAP,
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
