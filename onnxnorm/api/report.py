"""`write_report`: the page that people look at."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from onnxnorm.api.common import SAMPLES, Feeds, StatisticsLike, feeds_of, loaded
from onnxnorm.data.dataset import Data, open_data
from onnxnorm.data.images.options import ImageOptions
from onnxnorm.data.images.preprocessing import Preprocessing
from onnxnorm.errors import DataError, OptionError
from onnxnorm.model.files import Model, ModelLike, check_target
from onnxnorm.model.graph import input_specs
from onnxnorm.report.data import report_data
from onnxnorm.report.page.write import check_extra, rendered, write_page
from onnxnorm.rewriting import output_scales
from onnxnorm.runtime import Runtime
from onnxnorm.statistics import Statistics
from onnxnorm.verification import HeadroomMeter, Verification, verify_models
from onnxnorm.verification.inputs import random_feeds

__all__ = ["Reported", "write_report"]


@dataclass(frozen=True)
class Reported:
    """The outcome of `write_report`: the page, where it was written (None if it was not), and the verdict on it."""

    path: Path | None
    html: str = field(repr=False)
    verification: Verification | None

    def __str__(self) -> str:
        verdict = str(self.verification) if self.verification else "not verified"
        return verdict + (f"; the report is in {self.path}" if self.path else "")


def write_report(
    model: ModelLike,
    statistics: StatisticsLike,
    output: str | os.PathLike[str] | None = None,
    *,
    rewritten: ModelLike | None = None,
    data: Data | None = None,
    fp16: bool = False,
    verify: bool = True,
    tolerance_output: float | None = None,
    batch_size: int | None = None,
    limit: int | None = None,
    provider: str = "auto",
    threads: int | None = None,
) -> Reported:
    """Write one HTML file that shows what was measured on a model and what a rewrite did to it, or would do.

    With `rewritten` both models run on `data`, images being prepared as those of the statistics were, or else on
    seeded random inputs like those; with `fp16` the page shows how near both come to the ends of float16. The page is
    written even if they are not the same function; then it says so. Needs the extra `report`.
    """
    check_extra()
    if output is not None:
        check_target(output)
    if (data is not None or fp16) and (rewritten is None or not verify):
        raise OptionError("data and fp16 are for running a model and its rewritten version: give both, and verify")
    opened, found = Model.open(model), loaded(statistics)
    found.check_model(opened.digest())
    after = None if rewritten is None else Model.open(rewritten)
    subject = report_data(opened, found, after, statistics_name=_name(statistics))
    if after is not None and verify:
        run = _Run(opened, after, fp16, tolerance_output, Runtime(provider, threads))
        verification, what = run.random(found, limit) if data is None else run.on(data, found, batch_size, limit)
        subject = replace(subject, verification=verification, verified_on=what)
    html = rendered(subject)
    if output is not None:
        write_page(html, Path(output))
    return Reported(None if output is None else Path(output), html, subject.verification)


def _name(statistics: StatisticsLike) -> str:
    return "STATS" if isinstance(statistics, Statistics) else Path(statistics).name


@dataclass(frozen=True)
class _Run:
    """Both models, and how they are compared."""

    before: Model
    after: Model
    fp16: bool
    tolerance: float | None
    runtime: Runtime

    def random(self, statistics: Statistics, limit: int | None) -> tuple[Verification, str]:
        """On random inputs in the range of what was measured."""
        specs, ranges = input_specs(self.before), statistics.inputs.get("ranges")
        feeds = random_feeds(specs, statistics.shapes, ranges, samples=limit or SAMPLES)
        return self._judged(feeds), ", random ones in the range of what was measured"

    def on(
        self, data: Data, statistics: Statistics, batch_size: int | None, limit: int | None
    ) -> tuple[Verification, str]:
        """On images, prepared as those of the statistics were, or on arrays."""
        record = statistics.inputs.get("preprocessing")
        dataset = open_data(data, input_specs(self.before), _options(record))
        if dataset.preprocessing is not None and record is None:
            raise DataError(
                "the statistics were measured on arrays, so how to prepare images is not known; give arrays"
            )
        counts: list[int] = []
        with closing(feeds_of(self.before, dataset, batch_size, limit, counts)) as read:
            verification = self._judged(read)
        return replace(verification, samples=sum(counts)), " of the data given"

    def _judged(self, feeds: Iterable[Feeds]) -> Verification:
        scales = output_scales(self.after)
        meter = HeadroomMeter(self.before, self.after, self.runtime, scales) if self.fp16 else None
        watched = meter.watching(feeds) if meter else feeds
        found = verify_models(
            self.before, self.after, watched, scales=scales, tolerance=self.tolerance, runtime=self.runtime
        )
        return replace(found, fp16=meter.result()) if meter else found


def _options(record: Any) -> ImageOptions:
    """The preprocessing that statistics record, as options."""
    if not record:
        return ImageOptions()
    found = Preprocessing.from_json(record)
    return ImageOptions(found.preset, found.size, found.resize, found.mean, found.std, found.channels, found.layout)
