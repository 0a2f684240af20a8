"""The journey of a calibration: DATA → job → engine → measured → state → statistics.

An engine measures the samples that a `Job` names, in any order and anywhere, and yields a `Increment` now and then: the
local one after every batch, the one on a cluster after every chunk. They are added up here. The `State` is replaced as
a whole after each, so that at any moment, Ctrl-C included, moments and done samples belong together; that is what
checkpoints hold, and what an interrupted run leaves.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, Protocol, get_args

from onnxnorm.calibration.checkpoint import Checkpoint
from onnxnorm.calibration.engines.local import LocalEngine
from onnxnorm.calibration.job import Job, State
from onnxnorm.calibration.step import DEFAULT_BATCH, Increment, fixed_batch
from onnxnorm.data.dataset import Data, open_data
from onnxnorm.data.files.listing import Executor
from onnxnorm.data.images.options import ImageOptions
from onnxnorm.data.selection import Selection, Shard
from onnxnorm.errors import OptionError
from onnxnorm.model.files import Model
from onnxnorm.model.graph import input_specs
from onnxnorm.runtime import Runtime
from onnxnorm.scaling.filters import FilterKind
from onnxnorm.statistics import MEASURES, Moments, Statistics, Value, Weighting
from onnxnorm.statistics.jackknife import Jackknife
from onnxnorm.statistics.stopping import StoppingMonitor, StoppingRule

__all__ = ["Engine", "EngineName", "Interrupted", "Progress", "StoppingRule", "calibrate_model"]

EngineName = Literal["local", "ray"]


class Engine(Protocol):
    """Where a calibration takes place."""

    @property
    def executor(self) -> Executor:
        """Who lists DATA."""

    def measure(self, job: Job) -> Generator[Increment, None, None]:
        """Measure a job, each of its samples once."""


@dataclass(frozen=True)
class Progress:
    """How far a calibration is: images measured, of how many (None: not known), and the moments so far.

    `resumed` is how many of them an earlier run had measured; `jackknife` tells how sure a forecast is.
    """

    done: int
    total: int | None
    values: Mapping[Value, Moments] = field(repr=False)
    resumed: int = 0
    jackknife: Jackknife = field(default_factory=Jackknife, repr=False)


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
    enough: StoppingRule | None = None,
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
    if resume and checkpoint is None:
        raise OptionError("--resume needs a checkpoint to resume from")
    specs = input_specs(model)
    size, measures = _checked_batch(batch_size, fixed_batch(specs)), _checked_measures(also)
    runtime = runtime or Runtime()
    with _engine(engine, runtime, workers) as found:
        job = Job(
            model=model,
            dataset=open_data(data, specs, images, found.executor),
            selection=Selection(shard or Shard()),
            batch_size=size,
            limit=limit,
            runtime=runtime,
            filters=filters,
            weighting=weighting,
            also=measures,
        )
        state = State()
        points = None if checkpoint is None else Checkpoint(checkpoint, job.run())
        if points is not None and resume:
            job, state = _resumed(job, points)
        elif points is not None:
            points.set_aside()
        return _measured(job, state, found, points, StoppingMonitor(enough) if enough is not None else None, progress)


def _measured(
    job: Job,
    state: State,
    engine: Engine,
    points: Checkpoint | None,
    looks: StoppingMonitor | None,
    progress: Callable[[Progress], None] | None,
) -> Statistics:
    """What the engine finds, added to the state of a run, until it ends or is exact enough."""
    already, jackknife = state.images, Jackknife()
    jackknife.watch(state.totals)

    def statistics(*, complete: bool) -> Statistics:
        return state.statistics(job, complete=complete, log_standard_errors=jackknife.log_standard_errors(state.totals))

    try:
        with closing(engine.measure(job)) as found:
            for measured in found:
                state = state.after(measured, job.selection)
                jackknife.watch(state.totals)
                if points is not None and state.totals and points.due():
                    points.write(state.statistics(job, complete=False, sources=False), state.done)
                if progress is not None:
                    progress(Progress(state.images, job.total, state.totals, already, jackknife))
                if looks is not None and state.totals and looks.enough(state.totals):
                    break
        return statistics(complete=True)
    except KeyboardInterrupt:
        if not state.images:
            raise
        if points is not None:
            points.write(state.statistics(job, complete=False, sources=False), state.done)
        raise Interrupted(statistics(complete=False)) from None


@contextmanager
def _engine(name: EngineName, runtime: Runtime, workers: int | None) -> Iterator[Engine]:
    if name == "local":
        if workers is not None:
            raise OptionError("--workers is for --engine ray; the local engine has --threads")
        yield LocalEngine()
    elif name == "ray":
        from onnxnorm.calibration.engines.ray.engine import connected

        with connected(runtime, workers) as engine:
            yield engine
    else:
        raise OptionError(f"--engine {name!r} is unknown; choose one of {', '.join(get_args(EngineName))}")


def _resumed(job: Job, points: Checkpoint) -> tuple[Job, State]:
    """The job that is left of a run, and what its checkpoint holds."""
    if not job.dataset.identity["digest"]:
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
