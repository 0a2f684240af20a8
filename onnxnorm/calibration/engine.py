"""The journey of a calibration: engine → measured → state → statistics.

An engine measures the samples that a `Job` names, in any order and anywhere, and yields a `Measured` now and then: the
local one after every batch, the Ray one after every chunk. `calibrate_model` adds them up. Its `State` is replaced as a
whole after each, so that at any moment, Ctrl-C included, moments and done samples belong together; that is what
checkpoints hold, and what an interrupted run leaves.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Literal, get_args

from onnxnorm.calibration.batches import Batch
from onnxnorm.calibration.enough import Enough, Looks
from onnxnorm.calibration.image_options import ImageOptions
from onnxnorm.calibration.jobs import Job, State
from onnxnorm.calibration.prefetch import map_ahead
from onnxnorm.calibration.resume import Checkpoint
from onnxnorm.calibration.sessions import Lanes, Runtime
from onnxnorm.calibration.shards import Selection, Shard
from onnxnorm.calibration.sources import Data, open_data
from onnxnorm.calibration.steps import (
    Measured,
    Placed,
    Totals,
    filled,
    fixed_batch,
    prepare,
    ranges_of,
    sample_of,
)
from onnxnorm.errors import OptionError
from onnxnorm.model.files import Model
from onnxnorm.model.graph import input_specs
from onnxnorm.scaling.filters import FilterKind
from onnxnorm.statistics import MEASURES, Moments, Statistics, Value, Weighting

__all__ = [
    "DEFAULT_BATCH",
    "EngineName",
    "Enough",
    "Interrupted",
    "Job",
    "Progress",
    "calibrate_model",
    "filled",
    "fixed_batch",
    "measure_here",
    "prepare",
]

DEFAULT_BATCH = 8
EngineName = Literal["local", "ray"]

# What a verification without images takes its random inputs from need not be exact.
_SAMPLED = 64


@dataclass(frozen=True)
class Progress:
    """How far a calibration is: images measured, of how many (None: not known), and the moments so far.

    `resumed` is how many of them an earlier run had measured.
    """

    done: int
    total: int | None
    values: Mapping[Value, Moments] = field(repr=False)
    resumed: int = 0


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, after at least one image; `statistics` is what was measured until then, marked incomplete."""

    def __init__(self, statistics: Statistics) -> None:
        super().__init__(f"interrupted after {statistics.images:,} images")
        self.statistics = statistics


def calibrate_model(
    model: Model,
    data: Data,
    images: ImageOptions | None = None,
    *,
    batch_size: int | None = None,
    limit: int | None = None,
    runtime: Runtime | None = None,
    filters: FilterKind = "conv",
    weighting: Weighting = "position",
    also: Sequence[str] = (),
    enough: Enough | None = None,
    shard: Shard | None = None,
    checkpoint: Path | None = None,
    resume: bool = False,
    engine: EngineName = "local",
    workers: int | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Statistics:
    """Measure every filter of a model on images or arrays.

    `also` names what to measure beside the means: "rms", "p99.9".
    `batch_size` defaults to the model's own where it is fixed, else 8; `limit` counts usable samples. `checkpoint` is
    written every few seconds, for the caller to remove once the statistics are safe; with `resume` the run starts from
    it, if it is there.
    Raises DataError, ModelError, OptionError, ProviderError or StatisticsError; on Ctrl-C Interrupted.
    """
    if weighting not in get_args(Weighting):
        raise OptionError(f"--weighting {weighting!r} is unknown; choose one of {', '.join(get_args(Weighting))}")
    specs = input_specs(model)
    job = Job(
        model=model,
        dataset=open_data(data, specs, images),
        selection=Selection(shard or Shard()),
        batch_size=_checked_batch(batch_size, fixed_batch(specs)),
        limit=limit,
        runtime=runtime or Runtime(),
        filters=filters,
        weighting=weighting,
        also=_checked_measures(also),
    )
    state = State()
    points = None if checkpoint is None else Checkpoint(checkpoint, job.run())
    if points is not None and resume:
        job, state = _resumed(job, points)
    elif points is not None:
        points.set_aside()
    elif resume:
        raise OptionError("--resume needs a checkpoint to resume from")
    already = state.images
    looks = Looks(enough) if enough is not None else None
    try:
        with closing(_engine(job, engine, workers)) as found:
            for measured in found:
                state = state.after(measured, job.selection)
                if points is not None and state.totals and points.due():
                    points.write(state.statistics(job, complete=False, sources=False), state.done)
                if progress is not None:
                    progress(Progress(state.images, job.total, state.totals, already))
                if looks is not None and state.totals and looks.enough(state.totals):
                    break
        return state.statistics(job, complete=True)
    except KeyboardInterrupt:
        if not state.images:
            raise
        if points is not None:
            points.write(state.statistics(job, complete=False, sources=False), state.done)
        raise Interrupted(state.statistics(job, complete=False)) from None


def measure_here(job: Job) -> Generator[Measured, None, None]:
    """The local engine: images → batches → session → moments, decoding beside inference."""
    told = images = 0
    fixed = fixed_batch(input_specs(job.model))
    lanes = job.runtime.lanes(job.batch_size, fixed)
    with (
        closing(job.dataset.batches(lanes.size, job.limit, job.runtime.threads, job.selection)) as batches,
        closing(_steps(job, lanes, fixed, batches)) as steps,
    ):
        for batch, totals in steps:
            skipped = tuple(job.dataset.skipped_after(told))
            told += len(skipped)
            yield Measured(
                totals=totals,
                images=batch.count,
                indices=(*batch.indices, *(item.index for item in skipped)),
                skipped=skipped,
                shapes=sample_of(batch, fixed),
                ranges=ranges_of(batch) if images < _SAMPLED else {},
            )
            images += batch.count
    skipped = tuple(job.dataset.skipped_after(told))
    if skipped:
        yield Measured({}, 0, tuple(item.index for item in skipped), skipped)


def _steps(
    job: Job, lanes: Lanes, fixed: int | None, batches: Generator[Batch, None, None]
) -> Generator[tuple[Batch, Totals], None, None]:
    """Measure batches, in order, some at a time; where a device measures, the next one is copied there meanwhile."""
    first = next(batches, None)
    if first is None:
        return
    runtime = replace(job.runtime, threads=lanes.threads)
    calibration = prepare(job.model, sample_of(first, fixed), job.filters, runtime, job.weighting, job.also)
    place, every = calibration.place, chain([first], batches)
    here = not calibration.session.device
    copies = (place(batch) for batch in every) if here else map_ahead(place, every, threads=1, ahead=1)

    def measured(placed: Placed) -> tuple[Batch, Totals]:
        return placed.batch, calibration.measure(placed)

    with closing(copies), closing(map_ahead(measured, copies, threads=lanes.runs, ahead=2 * lanes.runs)) as found:
        yield from found


def _engine(job: Job, name: EngineName, workers: int | None) -> Generator[Measured, None, None]:
    if name == "local":
        if workers is not None:
            raise OptionError("--workers is for --engine ray; the local engine has --threads")
        return measure_here(job)
    if name == "ray":
        from onnxnorm.calibration.ray_engine import measure_on_ray

        return measure_on_ray(job, workers)
    raise OptionError(f"--engine {name!r} is unknown; choose one of {', '.join(get_args(EngineName))}")


def _resumed(job: Job, points: Checkpoint) -> tuple[Job, State]:
    """The job that is left of a run, and what its checkpoint holds."""
    if not job.dataset.identity()["digest"]:
        raise OptionError("--resume needs DATA that are files: arrays in memory are not known again")
    found = points.read()
    if found is None:
        return job, State()
    state = State.resumed(*found)
    if job.limit is not None and state.images > job.limit:
        raise OptionError(f"{points.path} has {state.images:,} images already, more than --limit {job.limit}")
    selection = replace(job.selection, done=state.done, measured=state.images, unusable=len(state.skipped))
    return replace(job, selection=selection), state


def _checked_measures(also: Sequence[str]) -> tuple[str, ...]:
    unknown = [name for name in also if name not in MEASURES]
    if unknown:
        raise OptionError(f"--measure {unknown[0]!r} is unknown; choose of {', '.join(MEASURES)}")
    return tuple(dict.fromkeys(also))


def _checked_batch(batch_size: int | None, fixed: int | None) -> int:
    if fixed is not None and batch_size not in {None, fixed}:
        raise OptionError(f"--batch-size {batch_size} does not fit the model, whose batch is fixed to {fixed}")
    return batch_size or fixed or DEFAULT_BATCH
