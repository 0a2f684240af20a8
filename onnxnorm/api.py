"""The verbs, with the same words as the commands: models as paths or ModelProto, data as paths or arrays.

Two journeys: `MODEL → trace → probe → (images → batches → session → moments) → STATS` is `calibrate`, and
`MODEL + STATS → trace → scales → rewrite → verify → OUT` is `rewrite`; `normalize` is one after the other.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any, TypedDict

import onnx
from numpy.typing import NDArray

from onnxnorm.calibration import Data, Enough, ImageOptions, Progress, Runtime, calibrate_model, open_data
from onnxnorm.calibration.engine import DEFAULT_BATCH, filled, fixed_batch
from onnxnorm.calibration.image_options import Numbers, Size
from onnxnorm.calibration.sources import Dataset
from onnxnorm.errors import StatisticsError, VerificationError
from onnxnorm.model.files import Model, ModelLike
from onnxnorm.model.graph import input_specs
from onnxnorm.model.shapes import read_graph, sample_shapes
from onnxnorm.rewriting import Rewriting, choose_scales, rewrite_model
from onnxnorm.rewriting.rewrite import output_scales
from onnxnorm.scaling import Plan, find_layers, make_plan, trace
from onnxnorm.scaling.filters import FilterKind
from onnxnorm.scaling.walk import Outputs
from onnxnorm.statistics import Statistics
from onnxnorm.verification import Verification, verify_models
from onnxnorm.verification.inputs import random_feeds

if sys.version_info >= (3, 11):
    from typing import Unpack
else:
    from typing_extensions import Unpack

__all__ = ["ImageWords", "Rewritten", "calibrate", "merge", "normalize", "plan", "rewrite", "verify"]

StatisticsLike = str | os.PathLike[str] | Statistics
Feeds = Mapping[str, NDArray[Any]]

# What a verification by default runs on: this many random samples, and of real ones if there are any.
_SAMPLES = 8


class ImageWords(TypedDict, total=False):
    """How images become inputs; see the options of the same names."""

    preset: str | None
    size: Size | None
    resize: str
    mean: Numbers | None
    std: Numbers | None
    channels: str | None
    layout: str


@dataclass(frozen=True)
class Rewritten:
    """The outcome of `rewrite` and `normalize`; `path` is where it was written, None if it was not."""

    path: Path | None
    rewriting: Rewriting = field(repr=False)
    statistics: Statistics
    verification: Verification | None

    @property
    def plan(self) -> Plan:
        """What could be scaled, and what could not."""
        return self.rewriting.plan

    @property
    def model(self) -> onnx.ModelProto:
        """The rewritten model in memory."""
        return self.rewriting.model.to_proto()

    def __str__(self) -> str:
        lines = [
            str(self.plan),
            f"{len(self.rewriting.changed)} constants changed, {len(self.rewriting.clones)} cloned",
        ]
        lines += [str(self.verification)] if self.verification else ["not verified"]
        return "\n".join(lines + ([f"written to {self.path}"] if self.path else []))


def calibrate(
    model: ModelLike,
    data: Data,
    *,
    batch_size: int | None = None,
    limit: int | None = None,
    provider: str = "auto",
    threads: int | None = None,
    filters: FilterKind = "conv",
    tolerance: float | None = None,
    tolerance_share: float = 0.95,
    progress: Callable[[Progress], None] | None = None,
    **images: Unpack[ImageWords],
) -> Statistics:
    """Measure the mean activation of every filter on images or arrays.

    With `tolerance`, stop as soon as the relative standard error of the mean is at most that for the share
    `tolerance_share` of live filters. Raises ModelError, DataError, OptionError or ProviderError.
    """
    return calibrate_model(
        Model.open(model),
        data,
        ImageOptions(**images),  # type: ignore[arg-type]
        batch_size=batch_size,
        limit=limit,
        runtime=Runtime(provider, threads),
        filters=filters,
        enough=None if tolerance is None else Enough(tolerance, tolerance_share),
        progress=progress,
    )


def merge(statistics: Sequence[StatisticsLike]) -> Statistics:
    """Add up statistics of one model over different images. Raises StatisticsError if they do not belong together."""
    if not statistics:
        raise StatisticsError("there are no statistics to merge")
    return Statistics.merged(_loaded(part) for part in statistics)


def plan(
    model: ModelLike,
    statistics: StatisticsLike | None = None,
    *,
    filters: FilterKind | None = None,
    outputs: Outputs = "keep",
    size: tuple[int, int] | None = None,
) -> Plan:
    """Say which filters can be normalized, which share a scale, and why others cannot; runs no inference.

    `size` (height, width) is for inputs that leave it open; dead filters are known only with statistics.
    """
    opened = Model.open(model)
    found = None if statistics is None else _loaded(statistics)
    shapes = found.shapes if found else sample_shapes(input_specs(opened), size)
    traced = trace(read_graph(opened, shapes), outputs)
    kind: Any = filters or (found.filters if found else "conv")
    layers = find_layers(traced, kind)
    dead = choose_scales(traced, layers, found).dead if found else 0
    return make_plan(traced, layers, dead)


def rewrite(
    model: ModelLike,
    statistics: StatisticsLike,
    output: str | os.PathLike[str] | None = None,
    *,
    target: float = 1.0,
    power_of_two: bool = False,
    outputs: Outputs = "keep",
    filters: FilterKind | None = None,
    verify: bool = True,
    tolerance_output: float | None = None,
    provider: str = "auto",
    threads: int | None = None,
) -> Rewritten:
    """Scale constants so that every filter's mean activation is `target` and the output stays; verify; write.

    Without `output` nothing is written. Raises VerificationError, and writes nothing, if the outputs differ.
    """
    opened, found = Model.open(model), _loaded(statistics)
    rewriting = _rewriting(opened, found, target, power_of_two, outputs, filters)
    return _finish(opened, found, rewriting, output, [], verify, tolerance_output, Runtime(provider, threads))


def verify(
    original: ModelLike,
    rewritten: ModelLike,
    data: Data | None = None,
    *,
    batch_size: int | None = None,
    limit: int | None = None,
    tolerance_output: float | None = None,
    provider: str = "auto",
    threads: int | None = None,
    **images: Unpack[ImageWords],
) -> Verification:
    """Run both models on data, or on seeded random inputs, and compare outputs and graphs."""
    before, after = Model.open(original), Model.open(rewritten)
    runtime = Runtime(provider, threads)
    scales = output_scales(after)
    if data is None:
        feeds = random_feeds(input_specs(before), sample_shapes(input_specs(before)), samples=limit or _SAMPLES)
        return verify_models(before, after, feeds, scales=scales, tolerance=tolerance_output, runtime=runtime)
    dataset = open_data(data, input_specs(before), ImageOptions(**images))  # type: ignore[arg-type]
    with closing(_feeds(before, dataset, batch_size, limit)) as read:
        return verify_models(before, after, read, scales=scales, tolerance=tolerance_output, runtime=runtime)


def normalize(
    model: ModelLike,
    data: Data,
    output: str | os.PathLike[str] | None = None,
    *,
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
    opened = Model.open(model)
    statistics = calibrate(
        model,
        data,
        batch_size=batch_size,
        limit=limit,
        provider=provider,
        threads=threads,
        filters=filters,
        tolerance=tolerance,
        tolerance_share=tolerance_share,
        progress=progress,
        **images,
    )
    rewriting = _rewriting(opened, statistics, target, power_of_two, outputs, filters)
    dataset = open_data(data, input_specs(opened), ImageOptions(**images))  # type: ignore[arg-type]
    real: list[Feeds] = []
    if verify:
        with closing(_feeds(opened, dataset, batch_size, _SAMPLES)) as read:
            real = list(islice(read, _SAMPLES))
    return _finish(opened, statistics, rewriting, output, real, verify, tolerance_output, Runtime(provider, threads))


def _loaded(statistics: StatisticsLike) -> Statistics:
    return statistics if isinstance(statistics, Statistics) else Statistics.load(statistics)


def _rewriting(
    model: Model,
    statistics: Statistics,
    target: float,
    power_of_two: bool,
    outputs: Outputs,
    filters: FilterKind | None,
) -> Rewriting:
    kind: Any = filters or statistics.filters
    return rewrite_model(model, statistics, target=target, power_of_two=power_of_two, outputs=outputs, filters=kind)


def _finish(
    model: Model,
    statistics: Statistics,
    rewriting: Rewriting,
    output: str | os.PathLike[str] | None,
    real: Iterable[Feeds],
    verify: bool,
    tolerance: float | None,
    runtime: Runtime,
) -> Rewritten:
    """Verify, and write if that is wanted and the verdict allows it."""

    def judged(rewritten: Model) -> Verification | None:
        if not verify:
            return None
        feeds = chain(real, random_feeds(input_specs(model), statistics.shapes, statistics.inputs.get("ranges")))
        verdict = verify_models(model, rewritten, feeds, scales=rewriting.outputs, tolerance=tolerance, runtime=runtime)
        if not verdict.same:
            raise VerificationError(f"{verdict}; nothing was written")
        return verdict

    if output is None:
        return Rewritten(None, rewriting, statistics, judged(rewriting.model))
    with rewriting.model.staged(Path(output)) as staged:
        verification = judged(Model.open(staged))
    return Rewritten(Path(output), rewriting, statistics, verification)


def _feeds(model: Model, dataset: Dataset, batch_size: int | None, limit: int | None) -> Generator[Feeds, None, None]:
    """Batches of a dataset; a model with a fixed batch gets the last sample again to fill the last one."""
    fixed = fixed_batch(input_specs(model))
    with closing(dataset.batches(fixed or batch_size or DEFAULT_BATCH, limit)) as batches:
        for batch in batches:
            yield {name: filled(array, fixed or batch.count) for name, array in batch.feeds.items()}
