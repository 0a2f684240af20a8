"""The options of a calibration."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal

from onnxnorm.data.images.options import ImageOptions
from onnxnorm.data.options import BatchOptions, InputOptions
from onnxnorm.errors import OptionError
from onnxnorm.options import FILTERS, RUNNING, option
from onnxnorm.runtime import RuntimeOptions
from onnxnorm.scaling.filters import FilterKind
from onnxnorm.statistics import Weighting
from onnxnorm.statistics.measures import PERCENTILES, RANGE, measurable, measured, needs
from onnxnorm.statistics.stopping import StoppingOptions

__all__ = ["CalibrationOptions", "EngineName", "MeasuringOptions"]

EngineName = Literal["local", "ray"]


@dataclass(frozen=True, kw_only=True)
class MeasuringOptions(StoppingOptions, RuntimeOptions, BatchOptions, InputOptions, ImageOptions):
    """The options of every command that measures."""

    filters: FilterKind = option("conv", "conv: convolutions. all: dense layers too.", panel=FILTERS)


@dataclass(frozen=True, kw_only=True)
class CalibrationOptions(MeasuringOptions):
    """The options of a calibration.

    Attributes:
        weighting: the weight of an image in the means: its number of positions, or 1.
        measure: names of statistics to measure in addition to means (`measurable`, and percentiles).
        resume: whether to start from the checkpoint, if it exists.
        shard: "I/N" for every N-th sample from the I-th on, counted from 0; None for all samples.
        engine: where to measure: in this process, or on a Ray cluster.
        workers: number of workers of the engine `ray`; None for as many as the cluster has room for.
        checkpoint: a file that is written every few seconds; the caller removes it once the statistics are saved.
    """

    weighting: Weighting = option(
        "position", "What counts the same: each position, or each image however large.", panel=FILTERS
    )
    measure: tuple[str, ...] = option(
        (),
        "What to measure beside means, for rewrite --statistic; may be repeated. "
        + "; ".join(f"{name}: {measured()[name].help}" for name in measurable() if name in measured())
        + f"; {PERCENTILES}: all are read from one histogram, so measuring one measures all"
        + f"; {RANGE}: the largest magnitude of every value of the network, for rewrite --ceiling.",
        panel=FILTERS,
        metavar="|".join([*measurable(), "pQ[:nonzero]"]),
        kind=list[str],
    )
    resume: bool = option(False, "Go on where an interrupted run of this command stopped.", panel=RUNNING)
    shard: str | None = option(
        None,
        "Every N-th sample, from the I-th on (counted from 0); onnxnorm merge puts shards together.",
        panel=RUNNING,
        metavar="I/N",
    )
    engine: EngineName = option("local", "ray: on a Ray cluster.", panel=RUNNING)
    workers: int | None = option(
        None, "Of --engine ray. Default: as many as there is room for.", panel=RUNNING, least=1
    )
    checkpoint: str | os.PathLike[str] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "measure", tuple(dict.fromkeys(self.measure)))
        unknown = [name for name in self.measure if not (name in measurable() or needs("histogram", [name]))]
        if unknown:
            allowed = ", ".join([*measurable(), PERCENTILES])
            raise OptionError(f"--measure {unknown[0]!r} is unknown; choose of {allowed}")
        counting = [name for name in self.measure if needs("histogram", [name])]
        if self.weighting == "image" and counting:
            raise OptionError(
                f"--measure {counting[0]} counts positions, one each, so that counts add up exactly; --weighting image "
                "counts each for 1/positions. For images of one size both are the same: leave --weighting out"
            )
