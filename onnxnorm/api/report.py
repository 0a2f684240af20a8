"""`write_report`: the report, one HTML page."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from onnxnorm.api.common import SAMPLES, Comparison, StatisticsLike, check_output, load_statistics
from onnxnorm.api.images import options_for
from onnxnorm.api.options import ReportOptions
from onnxnorm.data.images.options import ImageOptions
from onnxnorm.data.images.preprocessing import Preprocessing
from onnxnorm.data.images.transform import TransformLike
from onnxnorm.data.opening import Data, open_inputs
from onnxnorm.errors import DataError, OptionError
from onnxnorm.model.files import Model, ModelLike
from onnxnorm.model.functions import inlined
from onnxnorm.model.graph import input_specs
from onnxnorm.options import documented
from onnxnorm.report.data import report_data
from onnxnorm.report.page.write import check_extra, rendered, write_page
from onnxnorm.statistics import Statistics
from onnxnorm.verification import Verification
from onnxnorm.verification.inputs import random_feeds

__all__ = ["Reported", "write_report"]


@dataclass(frozen=True)
class Reported:
    """The outcome of `write_report`.

    Attributes:
        path: where the page was written; None if it was not.
        html: the page.
        verification: the verdict that it shows; None if the models were not run.
    """

    path: Path | None
    html: str = field(repr=False)
    verification: Verification | None

    def __str__(self) -> str:
        verdict = str(self.verification) if self.verification else "not verified"
        return verdict + (f"; the report is in {self.path}" if self.path else "")


@documented(ReportOptions)
def write_report(
    model: ModelLike,
    statistics: StatisticsLike,
    output: str | os.PathLike[str] | None = None,
    *,
    rewritten: ModelLike | None = None,
    data: Data | None = None,
    options: ReportOptions | None = None,
    **keywords: Any,
) -> Reported:
    """Write one HTML file that shows what was measured on a model and what a rewrite did to it, or would do.

    With `rewritten` both models are run, and the page shows the verdict, even if they differ. Needs the extra `report`.

    Args:
        model: a path, or a ModelProto.
        statistics: a path, or `Statistics`, measured on the model.
        output: the file to write; None to write none.
        rewritten: the rewritten model; without it the page shows what a rewrite would do.
        data: the inputs for both models, as for `calibrate`; images are prepared as the statistics record. None for
            seeded random inputs in the range of those that were measured.
        options: all options as one object, instead of keywords.
        **keywords: options by name, below.

    Returns:
        The page, where it was written, and the verdict.

    Raises:
        ModelError, StatisticsError, DataError: if one cannot be read, or they do not belong together.
        OptionError: if the extra is missing, options contradict each other, or `output` cannot be written.
    """
    options = ReportOptions.of(options, keywords)
    check_extra()
    if (data is not None or options.fp16) and (rewritten is None or not options.verify):
        raise OptionError("data and fp16 are for running a model and its rewritten version: give both, and verify")
    opened, measured = inlined(Model.open(model)), load_statistics(statistics)
    measured.check_model(opened.digest())
    opened = opened.fed(measured.settings).fed(options.settings)
    after = None if rewritten is None else Model.open(rewritten)
    if output is not None:
        check_output(output, opened, statistics, *(after.files if after else ()), data)
    report = report_data(opened, measured, after, statistics_name=_name(statistics))
    if after is not None and options.verify:
        known = report.stored if data is None else None
        comparison = Comparison(opened, after, options.runtime, options.tolerance_output, options.fp16, known)
        verification, what = _verified(comparison, data, measured, options)
        report = replace(report, verification=verification, verified_on=what)
    html = rendered(report)
    if output is not None:
        write_page(html, Path(output))
    return Reported(None if output is None else Path(output), html, report.verification)


def _name(statistics: StatisticsLike) -> str:
    return "STATS" if isinstance(statistics, Statistics) else Path(statistics).name


def _verified(
    comparison: Comparison, data: Data | None, statistics: Statistics, options: ReportOptions
) -> tuple[Verification, str]:
    """The verdict on data or, without any, on random inputs; and words that say which of the two it was."""
    if data is None:
        specs = input_specs(comparison.original)
        ranges = statistics.inputs.get("ranges")
        feeds = random_feeds(specs, statistics.shapes, ranges, samples=options.limit or SAMPLES)
        return comparison.on_feeds(feeds), ", random ones in the range of what was measured"
    record = statistics.inputs.get("preprocessing")
    original, dataset = open_inputs(comparison.original, data, _image_options(record, options.transform))
    if dataset.preprocessing is not None and record is None:
        raise DataError("the statistics were measured on arrays, so how to prepare images is not known; give arrays")
    if dataset.preprocessing is not None:
        _check_transform(dataset.preprocessing.to_json(), record or {}, options.transform)
    comparison = replace(comparison, original=original)
    return comparison.on_data(dataset, options.batch_size, options.limit), " of the data given"


def _check_transform(mine: Mapping[str, Any], record: Mapping[str, Any], given: TransformLike | None) -> None:
    """Raise DataError if images are not prepared by the transform that the statistics record, if they do."""
    name = record.get("transform")
    if given is None and name is not None:
        raise DataError(f"the images were prepared by the transform {name}; to run it on these, say --transform {name}")
    if given is not None and mine != record:
        what = (
            "without a transform" if name is None else f"with another version of the transform {name}, or another one"
        )
        raise DataError(f"the statistics were measured {what}; calibrate again, or give that one")


def _image_options(record: Any, transform: TransformLike | None = None) -> ImageOptions:
    """The options for the preprocessing that statistics record. A file alone must not say which code is run."""
    if not record or transform is not None or "transform" in record:
        return ImageOptions(transform=transform)
    return options_for(Preprocessing.from_json(record))
