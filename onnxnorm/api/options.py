"""The options of each function of the API, composed of the options that the packages below declare."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from onnxnorm.calibration.options import CalibrationOptions, MeasuringOptions
from onnxnorm.data.images.options import ImageOptions, SizeOptions, TransformOptions
from onnxnorm.data.options import BatchOptions, InputOptions
from onnxnorm.errors import OptionError
from onnxnorm.options import Options, option
from onnxnorm.rewriting.options import FilterOptions, ScaleOptions
from onnxnorm.runtime import RuntimeOptions
from onnxnorm.verification.options import ToleranceOptions

__all__ = [
    "CalibrationOptions",
    "CheckOptions",
    "NormalizeOptions",
    "PlanOptions",
    "ReportOptions",
    "RewriteOptions",
    "VerifyOptions",
]

NETWORK = "The network that the weights belong to"


@dataclass(frozen=True, kw_only=True)
class PlanOptions(FilterOptions, SizeOptions):
    """Options of `plan`."""


@dataclass(frozen=True, kw_only=True)
class WritingOptions(ToleranceOptions):
    """Options for what must hold before a rewritten model is written."""

    verify: bool = option(True, "Compare outputs before anything is written.", spelling="--verify/--no-verify")
    require_share: float | None = option(
        None, "Write nothing (exit code 3) if fewer than this share of live filters end at the target.", metavar="Q"
    )
    in_place: bool = option(False, "Allow OUT to be MODEL itself, which is lost then.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.require_share is not None and not 0 < self.require_share <= 1:
            raise OptionError(f"--require-share {self.require_share:g} must lie in (0, 1]")


@dataclass(frozen=True, kw_only=True)
class RewriteOptions(RuntimeOptions, WritingOptions, ScaleOptions):
    """Options of `rewrite`."""


@dataclass(frozen=True, kw_only=True)
class NormalizeOptions(MeasuringOptions, RewriteOptions):
    """Options of `normalize`."""


@dataclass(frozen=True, kw_only=True)
class HeadroomOptions(Options):
    """Whether two models are compared in float16 too."""

    fp16: bool = option(False, "Show the headroom in float16, and what float16 does to the outputs.")


@dataclass(frozen=True, kw_only=True)
class VerifyOptions(ToleranceOptions, RuntimeOptions, BatchOptions, InputOptions, ImageOptions, HeadroomOptions):
    """Options of `verify`."""


@dataclass(frozen=True, kw_only=True)
class ReportOptions(ToleranceOptions, RuntimeOptions, BatchOptions, InputOptions, TransformOptions, HeadroomOptions):
    """Options of `write_report`."""

    verify: bool = option(True, "Run both models and compare outputs.", spelling="--verify/--no-verify")


@dataclass(frozen=True, kw_only=True)
class CheckOptions(RuntimeOptions, BatchOptions, ImageOptions):
    """Options of `check`."""

    pool: Literal["average"] | None = option(
        None, "The network of the weights pools by averages. Default: by maxima.", panel=NETWORK
    )
    padding: Literal["reflect"] | None = option(
        None,
        "The network reflects borders. Default: so if a 1x1 convolution is in front, as AdaIN has it; else zeros.",
        panel=NETWORK,
    )
