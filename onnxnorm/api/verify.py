"""`verify`: check whether two models compute the same function."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from onnxnorm.api.common import SAMPLES, Comparison, StatisticsLike, load_statistics, sample_shapes_of
from onnxnorm.api.images import as_calibrated
from onnxnorm.api.options import VerifyOptions
from onnxnorm.data.batches import check_batch
from onnxnorm.data.opening import Data, open_inputs
from onnxnorm.errors import OptionError
from onnxnorm.model.files import Model, ModelLike
from onnxnorm.model.functions import inlined
from onnxnorm.model.graph import input_specs
from onnxnorm.options import documented
from onnxnorm.statistics import Statistics
from onnxnorm.verification import Fp16, Verification
from onnxnorm.verification.inputs import random_feeds

__all__ = ["verify"]


@documented(VerifyOptions)
def verify(
    original: ModelLike,
    rewritten: ModelLike,
    data: Data | None = None,
    *,
    statistics: StatisticsLike | None = None,
    options: VerifyOptions | None = None,
    **keywords: Any,
) -> Verification:
    """Run two models on data, or on seeded random inputs, and compare outputs and graphs.

    Args:
        original: a path, or a ModelProto.
        rewritten: its rewritten version. Its outputs are divided by the scales of outputs that it records.
        data: as for `calibrate`; None for random inputs of the model's input shapes. Without an option that says what
            pixels become, images are prepared as at the calibration, if the rewritten model records that.
        statistics: a path, or `Statistics`, measured on the original with the measure "range": for `fp16` without data.
            The largest magnitudes are those of its images then, and random inputs follow the range of its inputs.
        options: all options as one object, instead of keywords.
        **keywords: options by name, below.

    Returns:
        The verdict: whether the two compute the same function, by how much outputs differ, and whether the graphs are
        the same but for the values of constants.

    Raises:
        ModelError: if a model cannot be read or run, or the two do not belong together.
        DataError: if data is missing, or does not fit the model.
        StatisticsError: if the statistics were measured on another model, or without ranges.
        OptionError: if the value of an option makes no sense.
        ProviderError: if the execution provider is not available.
    """
    options = VerifyOptions.of(options, keywords)
    if statistics is not None:
        if data is not None or not options.fp16:
            raise OptionError("statistics are for fp16 without data: with data, ranges are measured on it")
        return _on_stored(original, rewritten, load_statistics(statistics), options)
    before, after = Model.open(original).fed(options.settings), Model.open(rewritten)
    check_batch(before, options.batch_size)
    dataset = recorded = None
    if data is not None:
        recorded = as_calibrated(after, options)
        before, dataset = open_inputs(before, data, recorded or options)
    comparison = Comparison(before, after, options.runtime, options.tolerance_output, options.fp16)
    if dataset is not None:
        verification = comparison.on_data(dataset, options.batch_size, options.limit)
        return replace(verification, as_calibrated=bool(recorded and verification.preprocessing))
    samples = SAMPLES if options.limit is None else options.limit
    shapes = sample_shapes_of(before, options.size)
    return comparison.on_feeds(random_feeds(input_specs(before), shapes, samples=samples))


def _on_stored(
    original: ModelLike, rewritten: ModelLike, statistics: Statistics, options: VerifyOptions
) -> Verification:
    """The verdict on random inputs in the range of those that were measured, with the ranges that were measured."""
    before, after = inlined(Model.open(original)).fed(statistics.settings).fed(options.settings), Model.open(rewritten)
    check_batch(before, options.batch_size)
    known = Fp16.stored(before, after, statistics)
    comparison = Comparison(before, after, options.runtime, options.tolerance_output, options.fp16, known)
    samples = SAMPLES if options.limit is None else options.limit
    ranges = statistics.inputs.get("ranges")
    return comparison.on_feeds(random_feeds(input_specs(before), statistics.shapes, ranges, samples=samples))
