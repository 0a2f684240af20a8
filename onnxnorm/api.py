"""The verbs, with the same words as the commands: models as paths or ModelProto, data as paths or arrays.

Two journeys: `MODEL → trace → probe → (images → batches → session → moments) → STATS` is `calibrate`, and
`MODEL + STATS → trace → scales → rewrite → verify → OUT` is `rewrite`; `normalize` is one after the other.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any, TypedDict

import onnx
from numpy.typing import NDArray

from onnxnorm.calibration import Data, Enough, ImageOptions, Progress, Runtime, calibrate_model, open_data
from onnxnorm.calibration.engine import DEFAULT_BATCH, EngineName, filled, fixed_batch
from onnxnorm.calibration.image_options import Numbers, Size, parsed_size
from onnxnorm.calibration.shards import Shard
from onnxnorm.calibration.sources import Dataset
from onnxnorm.errors import StatisticsError, VerificationError
from onnxnorm.model.files import Model, ModelLike, check_target
from onnxnorm.model.graph import input_specs
from onnxnorm.model.shapes import read_graph, sample_shapes
from onnxnorm.rewriting import (
    Restored,
    Rewriting,
    Statistic,
    count_dead,
    measure,
    output_scales,
    restore_model,
    rewrite_model,
    write_sidecar,
)
from onnxnorm.scaling import Plan, find_layers, make_plan, trace
from onnxnorm.scaling.filters import FilterKind
from onnxnorm.scaling.walk import Outputs
from onnxnorm.statistics import Statistics, Weighting
from onnxnorm.verification import HeadroomMeter, Verification, verify_models
from onnxnorm.verification.inputs import random_feeds

if sys.version_info >= (3, 11):
    from typing import Unpack
else:
    from typing_extensions import Unpack

__all__ = ["ImageWords", "Rewritten", "calibrate", "merge", "normalize", "plan", "restore", "rewrite", "verify"]

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
    statistics: Statistics | None
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
    """Measure the mean activation of every filter on images or arrays; with `also=("rms",)`, the mean square too.

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
    return Statistics.merged(_loaded(part) for part in statistics)


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
    found = None if statistics is None else _loaded(statistics)
    if found is not None:
        found.check_model(opened.digest())
    shapes = found.shapes if found else _shapes(opened, size)
    traced = trace(read_graph(opened, shapes), outputs)
    kind: Any = filters or (found.filters if found else "conv")
    layers = find_layers(traced, kind)
    dead = count_dead(measure("mean", opened, traced, layers, found)) if found else 0
    return make_plan(traced, layers, dead)


def rewrite(
    model: ModelLike,
    statistics: StatisticsLike | None = None,
    output: str | os.PathLike[str] | None = None,
    *,
    statistic: Statistic = "mean",
    strength: float = 1.0,
    target: float = 1.0,
    power_of_two: bool = False,
    outputs: Outputs = "keep",
    filters: FilterKind | None = None,
    verify: bool = True,
    tolerance_output: float | None = None,
    provider: str = "auto",
    threads: int | None = None,
) -> Rewritten:
    """Scale constants so that every filter's statistic is `target` and the output stays; verify; write.

    `scale = target / statistic ** strength`. The statistics "weights" and "bn" need no `statistics`. Without `output`
    nothing is written. Raises VerificationError, and writes nothing, if the outputs differ.
    """
    opened, found = Model.open(model), None if statistics is None else _loaded(statistics)
    if output is not None:
        check_target(output)
    rewriting = rewrite_model(
        opened,
        found,
        statistic=statistic,
        strength=strength,
        target=target,
        power_of_two=power_of_two,
        outputs=outputs,
        filters=filters or _filters(found),
    )
    return _finish(opened, found, rewriting, output, [], verify, tolerance_output, Runtime(provider, threads))


def verify(
    original: ModelLike,
    rewritten: ModelLike,
    data: Data | None = None,
    *,
    fp16: bool = False,
    batch_size: int | None = None,
    limit: int | None = None,
    tolerance_output: float | None = None,
    provider: str = "auto",
    threads: int | None = None,
    **images: Unpack[ImageWords],
) -> Verification:
    """Run both models on data, or on seeded random inputs, and compare outputs and graphs.

    With `fp16`, also measure how near both come to the ends of float16, and how they compute in it.
    """
    before, after = Model.open(original), Model.open(rewritten)
    runtime = Runtime(provider, threads)
    scales = output_scales(after)
    meter = HeadroomMeter(before, after, runtime, scales) if fp16 else None

    def judged(feeds: Iterable[Feeds]) -> Verification:
        watched = meter.watching(feeds) if meter else feeds
        found = verify_models(before, after, watched, scales=scales, tolerance=tolerance_output, runtime=runtime)
        return replace(found, fp16=meter.result()) if meter else found

    if data is None:
        shapes = _shapes(before, images.get("size"))
        feeds = random_feeds(input_specs(before), shapes, samples=_SAMPLES if limit is None else limit)
        return judged(feeds)
    dataset = open_data(data, input_specs(before), ImageOptions(**images))  # type: ignore[arg-type]
    counts: list[int] = []
    with closing(_feeds(before, dataset, batch_size, limit, counts)) as read:
        found = judged(read)
    return replace(found, samples=sum(counts))


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
        also=("rms",) if statistic == "rms" else (),
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
        with closing(_feeds(opened, dataset, batch_size, _SAMPLES)) as read:
            real = list(islice(read, _SAMPLES))
    return _finish(opened, statistics, rewriting, output, real, verify, tolerance_output, Runtime(provider, threads))


def restore(
    rewritten: ModelLike,
    output: str | os.PathLike[str] | None = None,
    *,
    scales: str | os.PathLike[str] | None = None,
    verify: bool = True,
) -> Restored:
    """Undo a rewrite: bit for bit after power-of-two scales, to rounding otherwise. `scales` is the sidecar, if moved.

    With `verify`, raises VerificationError, and writes nothing, if a restored model that must be the original is not.
    """
    found = restore_model(Model.open(rewritten), None if scales is None else Path(scales))
    if verify and found.exact and not found.same:
        raise VerificationError(
            "the restored model is not the original that the rewrite recorded (another digest): the model was changed "
            "after it was rewritten; --no-verify writes what comes out"
        )
    if output is not None:
        check_target(output)
        found.model.write(Path(output))
    return found


def _loaded(statistics: StatisticsLike) -> Statistics:
    return statistics if isinstance(statistics, Statistics) else Statistics.load(statistics)


def _filters(statistics: Statistics | None) -> FilterKind:
    """The layers that statistics were measured for."""
    kind: Any = statistics.filters if statistics else "conv"
    return kind  # type: ignore[no-any-return]


def _finish(
    model: Model,
    statistics: Statistics | None,
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
        shapes = statistics.shapes if statistics else _shapes(model, None)
        ranges = statistics.inputs.get("ranges") if statistics else None
        feeds = chain(real, random_feeds(input_specs(model), shapes, ranges))
        verdict = verify_models(model, rewritten, feeds, scales=rewriting.outputs, tolerance=tolerance, runtime=runtime)
        if not verdict.same:
            raise VerificationError(f"{verdict}; nothing was written")
        return verdict

    if output is None:
        return Rewritten(None, rewriting, statistics, judged(rewriting.model))
    with rewriting.model.staged(Path(output)) as staged:
        verification = judged(Model.open(staged))
        if rewriting.sidecar is not None:
            write_sidecar(Path(output), rewriting.sidecar)
    return Rewritten(Path(output), rewriting, statistics, verification)


def _shapes(model: Model, size: Size | None) -> dict[str, tuple[int, ...]]:
    """Input shapes of one sample, of `size` where the model leaves it open."""
    return sample_shapes(input_specs(model), None if size is None else parsed_size(size))


def _keeping(data: Iterator[Any], kept: list[Any]) -> Iterator[Any]:
    """What can be read only once, the first samples kept for the verification."""
    samples = 0
    for item in data:
        if samples < _SAMPLES:
            kept.append(item)
            samples += _length(item)
        yield item


def _length(item: Any) -> int:
    """Number of samples in an item of DATA; a path counts as one."""
    if isinstance(item, Mapping):
        item = next(iter(item.values()), ())
    return 1 if isinstance(item, (str, os.PathLike)) or not hasattr(item, "__len__") else len(item)


def _feeds(
    model: Model, dataset: Dataset, batch_size: int | None, limit: int | None, counts: list[int] | None = None
) -> Generator[Feeds, None, None]:
    """Batches of a dataset; a model with a fixed batch gets the last sample again to fill the last one.

    `counts` gets the number of samples of each batch, without those.
    """
    fixed = fixed_batch(input_specs(model))
    with closing(dataset.batches(fixed or batch_size or DEFAULT_BATCH, limit)) as batches:
        for batch in batches:
            if counts is not None:
                counts.append(batch.count)
            yield {name: filled(array, fixed or batch.count) for name, array in batch.feeds.items()}
