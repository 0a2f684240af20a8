"""`calibrate`: what the filters of a model do on images or arrays."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from onnxnorm.api.common import ImageWords
from onnxnorm.calibration.calibrate import EngineName, Progress, calibrate_model
from onnxnorm.data.dataset import Data
from onnxnorm.data.images.options import ImageOptions
from onnxnorm.data.selection import Shard
from onnxnorm.model.files import Model, ModelLike
from onnxnorm.runtime import Runtime
from onnxnorm.scaling.filters import FilterKind
from onnxnorm.statistics import Statistics, Weighting
from onnxnorm.statistics.stopping import StoppingRule

if sys.version_info >= (3, 11):
    from typing import Unpack
else:
    from typing_extensions import Unpack

__all__ = ["calibrate"]


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
        enough=None if tolerance is None else StoppingRule(tolerance, tolerance_share),
        shard=None if shard is None else Shard.parse(shard),
        checkpoint=None if checkpoint is None else Path(checkpoint),
        resume=resume,
        engine=engine,
        workers=workers,
        progress=progress,
    )
