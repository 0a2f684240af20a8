"""Common ways to turn pixels into numbers, by name."""

from __future__ import annotations

from dataclasses import dataclass

from onnxnorm.data.images.preprocessing import Channels

__all__ = ["PRESETS", "Preset"]


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
