"""Options of `onnxnorm export`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from onnxnorm.errors import OptionError
from onnxnorm.options import Options, option

__all__ = ["ExportOptions", "LayoutName", "ThresholdOptions"]

LayoutName = Literal["names", "torchvision", "caffe", "keras", "adain"]


@dataclass(frozen=True, kw_only=True)
class ExportOptions(Options):
    """Options of `export`."""

    layout: LayoutName = option(
        "names",
        "names: the model's own. For a VGG also torchvision: features.0.weight. caffe: conv1_1.weight. keras: "
        "block1_conv1, kernels HWIO. adain: the nn.Sequential of AdaIN's vgg_normalised.pth.",
    )


@dataclass(frozen=True, kw_only=True)
class ThresholdOptions(Options):
    """Options of the command line: whether thresholds are written in place of constants, and which."""

    thresholds: bool = option(
        False, "Instead of constants: one number per layer, its statistic on images, as .json; needs STATS of MODEL."
    )
    statistic: str | None = option(
        None,
        "Of --thresholds: max (the default), mean, rms or a percentile (pQ, pQ:nonzero) of all activations of a layer.",
        metavar="NAME",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.statistic is not None and not self.thresholds:
            raise OptionError("--statistic says what --thresholds are; give both, or neither")
