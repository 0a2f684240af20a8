"""The options that say how images become samples; `choosing` makes a preprocessing of them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from onnxnorm.data.images.preprocessing import Channels, Layout
from onnxnorm.data.images.presets import PRESETS
from onnxnorm.data.images.resizing import Resize
from onnxnorm.data.images.transform import TransformLike
from onnxnorm.errors import OptionError
from onnxnorm.options import IMAGES, Options, flags_of, option, spelled

__all__ = ["ImageOptions", "Numbers", "Size", "SizeOptions", "TransformOptions", "given_options", "parsed_size"]

Numbers = str | float | Sequence[float]
Size = str | int | tuple[int, int]

_LARGEST_SIDE = 32768
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
    resize: Resize | None = option(
        None, "shortest: to the size, then crop the centre. Default: shortest.", panel=IMAGES
    )
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
