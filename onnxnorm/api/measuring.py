"""`calibrate`, `merge` and `plan`: what is measured, and what could be done about it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from onnxnorm.api.common import ImageWords, StatisticsLike, loaded, shapes_of
from onnxnorm.calibration import Data, Enough, ImageOptions, Progress, Runtime, calibrate_model
from onnxnorm.calibration.engine import EngineName
from onnxnorm.calibration.image_options import Size
from onnxnorm.calibration.shards import Shard
from onnxnorm.errors import StatisticsError
from onnxnorm.model.files import Model, ModelLike
from onnxnorm.model.shapes import read_graph
from onnxnorm.rewriting import (
    count_dead,
    measure,
)
from onnxnorm.scaling import Plan, find_layers, make_plan, trace
from onnxnorm.scaling.filters import FilterKind
from onnxnorm.scaling.walk import Outputs
from onnxnorm.statistics import Statistics, Weighting

if sys.version_info >= (3, 11):
    from typing import Unpack
else:
    from typing_extensions import Unpack

__all__ = ["calibrate", "merge", "plan"]


def calibrate(
    model: ModelLike,
    data: Data,
    *,
    batch_size: int | None = None,
    limit: int | None = None,
    provider: str = "auto",
    threads: int | None = None,
    filters: FilterKind = "conv",
    weighting: Weighting = "position",
    also: Sequence[str] = (),
    tolerance: float | None = None,
    tolerance_share: float = 0.95,
    shard: str | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    resume: bool = False,
    engine: EngineName = "local",
    workers: int | None = None,
    progress: Callable[[Progress], None] | None = None,
    **images: Unpack[ImageWords],
) -> Statistics:
    """Measure the mean activation of every filter on images or arrays.

    `also=("rms", "p99.9")` measures the mean square too, and a histogram of magnitudes, for percentiles.
    With `tolerance`, stop as soon as the relative standard error of the mean is at most that for the share
    `tolerance_share` of live filters. `shard="I/N"` takes every N-th sample from the I-th on; `merge` puts shards
    together. `checkpoint` is a file that is written every few seconds; with `resume` the run starts from it.
    Raises ModelError, DataError, OptionError, ProviderError or StatisticsError. Ctrl-C raises a KeyboardInterrupt that
    carries the `statistics` so far.
    """
    return calibrate_model(
        Model.open(model),
        data,
        ImageOptions(**images),  # type: ignore[arg-type]
        batch_size=batch_size,
        limit=limit,
        runtime=Runtime(provider, threads),
        filters=filters,
        weighting=weighting,
        also=also,
        enough=None if tolerance is None else Enough(tolerance, tolerance_share),
        shard=None if shard is None else Shard.parse(shard),
        checkpoint=None if checkpoint is None else Path(checkpoint),
        resume=resume,
        engine=engine,
        workers=workers,
        progress=progress,
    )


def merge(statistics: Sequence[StatisticsLike]) -> Statistics:
    """Add up statistics of one model over different images. Raises StatisticsError if they do not belong together."""
    if not statistics:
        raise StatisticsError("there are no statistics to merge")
    return Statistics.merged(loaded(part) for part in statistics)


def plan(
    model: ModelLike,
    statistics: StatisticsLike | None = None,
    *,
    filters: FilterKind | None = None,
    outputs: Outputs = "keep",
    size: Size | None = None,
) -> Plan:
    """Say which filters can be normalized, which share a scale, and why others cannot; runs no inference.

    `size` is for inputs that leave it open; dead filters are known only with statistics.
    Raises ModelError, or StatisticsError if the statistics were measured on another model.
    """
    opened = Model.open(model)
    found = None if statistics is None else loaded(statistics)
    if found is not None:
        found.check_model(opened.digest())
    shapes = found.shapes if found else shapes_of(opened, size)
    traced = trace(read_graph(opened, shapes), outputs)
    kind: Any = filters or (found.filters if found else "conv")
    layers = find_layers(traced, kind)
    dead = count_dead(measure("mean", opened, traced, layers, found)) if found else 0
    return make_plan(traced, layers, dead)
