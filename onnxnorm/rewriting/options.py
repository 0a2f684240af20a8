"""Options of a rewrite: which filters are scaled, and by how much."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from onnxnorm.errors import OptionError
from onnxnorm.options import FILTERS, Options, option
from onnxnorm.rewriting.layer_statistics import WITHOUT_IMAGES, needs_images
from onnxnorm.rewriting.opened import Per
from onnxnorm.scaling.filters import FilterKind
from onnxnorm.scaling.levels import Level
from onnxnorm.scaling.walk import Outputs
from onnxnorm.statistics.measures import PERCENTILES, RANGE, measurable, measured, statistic_of

__all__ = ["USUAL_CEILING", "FilterOptions", "ScaleOptions"]

USUAL_CEILING = 512.0
"""NVIDIA's AutoCast leaves a node in float32 that reads or writes larger values than this."""


@dataclass(frozen=True, kw_only=True)
class FilterOptions(Options):
    """Which filters are normalized.

    Attributes:
        outputs: "keep" leaves graph outputs unchanged, "scale" normalizes them too.
        allow: how much of the graph may change.
        inputs_as_constants: whether initializers that are graph inputs too count as constants.
        filters: "conv" for convolutions, "all" for dense layers too; None for those that were measured.
        per: what has a scale of its own: every filter, or all filters of a layer together.
    """

    outputs: Outputs = option("keep", "scale: normalize graph outputs too; their scales are recorded.", panel=FILTERS)
    allow: Level = option(
        "constants",
        "How much of the graph may change. constants: their values. attributes: numbers in these too (epsilon, alpha). "
        "nodes: constant multiplications may be added, so that every filter has a scale of its own.",
        panel=FILTERS,
    )
    inputs_as_constants: bool = option(
        False, "Nobody feeds initializers that are graph inputs too: treat them as constants.", panel=FILTERS
    )
    filters: FilterKind | None = option(
        None,
        "conv: convolutions. all: dense layers too. Default: as the statistics were measured, else conv.",
        panel=FILTERS,
    )
    per: Per = option(
        "channel",
        "channel: every filter has a scale of its own. layer: all filters of a layer share one, which brings the "
        "statistic of the layer as a whole to the target.",
        panel=FILTERS,
    )


@dataclass(frozen=True, kw_only=True)
class ScaleOptions(FilterOptions):
    """`scale = target / statistic ** strength` for every filter.

    Attributes:
        statistic: name of the statistic that is brought to the target; "weights" and "bn" need no images.
        strength: the power to which the statistic is raised; 0.5 goes half the way, in logarithms.
        target: the value to which it is brought.
        power_of_two: whether every scale is rounded to a power of two, so that outputs stay the same bit for bit.
        ceiling: instead of all that, the largest magnitude that any value of the network may have.
    """

    statistic: str = option(
        "mean",
        "What is brought to the target. Of activations on images: "
        + ", ".join(name for name, entry in measured().items() if not entry.optional)
        + f", and, after calibrate --measure, {', '.join(n for n in measurable() if n in measured())}"
        + f", {PERCENTILES}. Without images: "
        + ", ".join(f"{name} ({entry.help})" for name, entry in WITHOUT_IMAGES.items())
        + ".",
        panel=FILTERS,
        metavar="NAME",
    )
    strength: float = option(
        1.0,
        "Exponent of the statistic, in scale = target / statistic ** A; 0.5 goes half the way, in the logarithm.",
        panel=FILTERS,
        metavar="A",
    )
    target: float = option(1.0, "Value that the statistic is brought to.", panel=FILTERS, metavar="T")
    power_of_two: bool = option(
        False, "Round every scale to a power of two: the output stays the same bit for bit.", panel=FILTERS
    )
    ceiling: float | None = option(
        None,
        "Instead of a statistic: no value of the network larger than T (512 without a number), by powers of two, with "
        "as few filters moved as that takes. Needs calibrate --measure range.",
        panel=FILTERS,
        metavar="[T]",
    )

    @property
    def to_measure(self) -> tuple[str, ...]:
        """What a calibration has to measure beside means."""
        if self.ceiling is not None:
            return (RANGE,)
        entry = statistic_of(self.statistic)
        return (self.statistic,) if entry is not None and entry.optional else ()

    def __post_init__(self) -> None:
        super().__post_init__()
        needs_images(self.statistic)  # raises OptionError if there is none of this name
        if self.ceiling is None:
            return
        if not (math.isfinite(self.ceiling) and self.ceiling > 0):
            raise OptionError(f"--ceiling must be a positive number, not {self.ceiling:g}")
        for item in fields(ScaleOptions):
            if item.name in {"statistic", "per", "strength", "target"} and getattr(self, item.name) != item.default:
                raise OptionError(f"--ceiling takes the place of --{item.name}; give one of the two")
