"""`normalize`: calibrate, rewrite and verify in one call."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from itertools import islice
from typing import Any

from onnxnorm.api.common import SAMPLES, batches_of, check_output, open_model
from onnxnorm.api.options import NormalizeOptions
from onnxnorm.api.progress import OnProgress, reporting
from onnxnorm.api.rewrite import Rewritten, verify_and_write
from onnxnorm.calibration.calibrate import calibrate_model
from onnxnorm.calibration.options import CalibrationOptions
from onnxnorm.data.batches import usual_batch
from onnxnorm.data.memory import length
from onnxnorm.data.opening import Data, open_inputs
from onnxnorm.model.files import ModelLike
from onnxnorm.options import documented
from onnxnorm.rewriting import rewrite_model

__all__ = ["normalize"]


@documented(NormalizeOptions)
def normalize(
    model: ModelLike,
    data: Data,
    output: str | os.PathLike[str] | None = None,
    *,
    options: NormalizeOptions | None = None,
    progress: OnProgress = None,
    **keywords: Any,
) -> Rewritten:
    """Calibrate, rewrite and verify (on some of the data and on random inputs) in one call.

    Args:
        model: a path, or a ModelProto.
        data: as for `calibrate`.
        output: the file to write; None to write none.
        options: all options as one object, instead of keywords.
        progress: called after every batch; True for a progress bar on standard error, or in the notebook.
        **keywords: options by name, below.

    Returns:
        The rewritten model in memory, its statistics, plan and scales, and the verdict.

    Raises:
        ModelError, DataError, OptionError, ProviderError, StatisticsError: as `calibrate` and `rewrite`.
        VerificationError: if the outputs differ, or fewer filters than required end at the target. Nothing is written
            then.
    """
    options = NormalizeOptions.of(options, keywords)
    opened = open_model(model, options).fed(options.settings)
    if output is not None:
        check_output(output, opened, *_paths(data), in_place=options.in_place)
    kept = list[Any]()
    opened, dataset = open_inputs(opened, _keeping(data, kept) if isinstance(data, Iterator) else data, options)
    measuring = options.part(CalibrationOptions, measure=options.to_measure)
    with reporting(progress) as watching:
        statistics = calibrate_model(opened, dataset, measuring, progress=watching)
    rewriting = rewrite_model(opened, statistics, options)
    if not options.verify:
        return verify_and_write(opened, statistics, rewriting, output, [], options)
    again = open_inputs(opened, kept, options)[1] if kept else dataset
    size = usual_batch(opened, options.batch_size, tell=False)
    with closing(batches_of(opened, again, size, SAMPLES)) as read:
        samples = [batch.feeds for batch in islice(read, SAMPLES)]
    return verify_and_write(opened, statistics, rewriting, output, samples, options)


def _paths(data: Data) -> list[Any]:
    """The items of DATA that may be paths, without reading an iterator, which can be read only once."""
    if isinstance(data, (str, os.PathLike)):
        return [data]
    return list(data) if isinstance(data, (list, tuple)) else []


def _keeping(data: Iterator[Any], kept: list[Any]) -> Iterator[Any]:
    """Yield the items of an iterator, and append the first of them to `kept` for the verification."""
    samples = 0
    for item in data:
        if samples < SAMPLES:
            kept.append(item)
            samples += length(item)
        yield item
