"""Options of `onnxnorm features`: the changes that people make to a VGG."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from onnxnorm.data.images.presets import PRESETS
from onnxnorm.options import Options, option

__all__ = ["FeatureOptions"]

CHANGES = "Changes to the network, made before it is calibrated"


@dataclass(frozen=True, kw_only=True)
class FeatureOptions(Options):
    """Options of `features`."""

    pool: Literal["average"] | None = option(None, "Average pooling instead of every MaxPool.", panel=CHANGES)
    padding: Literal["reflect"] | None = option(
        None, "Reflect the border in front of every 3x3 convolution, instead of adding zeros.", panel=CHANGES
    )
    fold_preprocessing: str | None = option(
        None,
        "Put this preset into the network, as a 1x1 convolution in front: it then reads RGB in [0, 1], and is "
        "calibrated with --preset unit.",
        panel=CHANGES,
        choices=lambda: [name for name in PRESETS if name != "unit"],
    )
