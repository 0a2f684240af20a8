"""Options of `onnxnorm export`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from onnxnorm.options import Options, option

__all__ = ["ExportOptions", "LayoutName"]

LayoutName = Literal["names", "torchvision", "caffe", "keras", "adain"]


@dataclass(frozen=True, kw_only=True)
class ExportOptions(Options):
    """Options of `export`."""

    layout: LayoutName = option(
        "names",
        "names: the model's own. For a VGG also torchvision: features.0.weight. caffe: conv1_1.weight. keras: "
        "block1_conv1, kernels HWIO. adain: the nn.Sequential of AdaIN's vgg_normalised.pth.",
    )
