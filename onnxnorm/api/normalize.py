"""`normalize`: calibrate, rewrite and verify in one go."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from itertools import islice
from typing import Any

from onnxnorm.api.calibrate import calibrate
from onnxnorm.api.common import SAMPLES, Feeds, ImageWords, feeds_of
from onnxnorm.calibration.calibrate import Progress
from onnxnorm.data.dataset import Data, open_data
from onnxnorm.data.images.options import ImageOptions
from onnxnorm.model.files import Model, ModelLike, check_target
from onnxnorm.model.graph import input_specs
from onnxnorm.rewriting import (
    Statistic,
    rewrite_model,
)
from onnxnorm.runtime import Runtime
from onnxnorm.scaling.filters import FilterKind
from onnxnorm.scaling.walk import Outputs
from onnxnorm.statistics import MEASURES

if sys.version_info >= (3, 11):
    from typing import Unpack
else:
    from typing_extensions import Unpack

from onnxnorm.api.rewrite import Rewritten, finish

__all__ = ["normalize"]


def normalize(
    model: ModelLike,
    data: Data,
    output: str | os.PathLike[str] | None = None,
    *,
    statistic: Statistic = "mean",
    strength: float = 1.0,
    target: float = 1.0,
    power_of_two: bool = False,
    outputs: Outputs = "keep",
    filters: FilterKind = "conv",
    verify: bool = True,
    tolerance_output: float | None = None,
    batch_size: int | None = None,
    limit: int | None = None,
    provider: str = "auto",
    threads: int | None = None,
    tolerance: float | None = None,
    tolerance_share: float = 0.95,
    progress: Callable[[Progress], None] | None = None,
    **images: Unpack[ImageWords],
) -> Rewritten:
    """Calibrate, rewrite and verify (on random inputs and on some of the data) in one go."""
    if output is not None:
        check_target(output)
    opened = Model.open(model)
    kept: list[Any] = []
    statistics = calibrate(
        model,
        _keeping(data, kept) if isinstance(data, Iterator) else data,
        batch_size=batch_size,
        limit=limit,
        provider=provider,
        threads=threads,
        filters=filters,
        tolerance=tolerance,
        tolerance_share=tolerance_share,
        progress=progress,
        also=(statistic,) if statistic in MEASURES else (),
        **images,
    )
    rewriting = rewrite_model(
        opened,
        statistics,
        statistic=statistic,
        strength=strength,
        target=target,
        power_of_two=power_of_two,
        outputs=outputs,
        filters=filters,
    )
    real: list[Feeds] = []
    if verify:
        dataset = open_data(kept or data, input_specs(opened), ImageOptions(**images))  # type: ignore[arg-type]
        with closing(feeds_of(opened, dataset, batch_size, SAMPLES)) as read:
            real = list(islice(read, SAMPLES))
    return finish(opened, statistics, rewriting, output, real, verify, tolerance_output, Runtime(provider, threads))


def _keeping(data: Iterator[Any], kept: list[Any]) -> Iterator[Any]:
    """What can be read only once, the first samples kept for the verification."""
    samples = 0
    for item in data:
        if samples < SAMPLES:
            kept.append(item)
            samples += _length(item)
        yield item


def _length(item: Any) -> int:
    """Number of samples in an item of DATA; a path counts as one."""
    if isinstance(item, Mapping):
        item = next(iter(item.values()), ())
    return 1 if isinstance(item, (str, os.PathLike)) or not hasattr(item, "__len__") else len(item)
