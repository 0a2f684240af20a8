"""Runs a calibration: DATA → job → engine → increments → state → statistics.

An engine measures the samples of a `Job`, in any order and in any process, and yields `Increment`s: the local engine
one after every batch, the engine on a cluster one after every chunk. They are added up here. Each increment replaces
the whole `State`, so that at any time, even at Ctrl-C, the moments and the samples that are done are consistent.
Checkpoints and the statistics of an interrupted run are made from this state.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from onnxnorm.calibration.checkpoint import Checkpoint
from onnxnorm.calibration.engines.local import LocalEngine
from onnxnorm.calibration.job import Job, State
from onnxnorm.calibration.opened import opened_model
from onnxnorm.calibration.options import CalibrationOptions
from onnxnorm.calibration.step import Increment
from onnxnorm.data.batches import usual_batch
from onnxnorm.data.dataset import Dataset
from onnxnorm.data.files.listing import Executor
from onnxnorm.data.opening import Data, open_inputs
from onnxnorm.data.options import DEFAULT_BATCH
from onnxnorm.data.selection import Selection, Shard
from onnxnorm.errors import OptionError
from onnxnorm.model.files import Model
from onnxnorm.statistics import Moments, Statistics, Value
from onnxnorm.statistics.jackknife import Jackknife
from onnxnorm.statistics.stopping import StoppingMonitor

__all__ = ["Engine", "Interrupted", "Progress", "calibrate_model"]

_log = logging.getLogger(__name__)


class Engine(Protocol):
    """Measures the samples of a job, in this process or elsewhere."""

    @property
    def executor(self) -> Executor:
        """Lists the folders of DATA in parallel."""

    def measure(self, job: Job) -> Generator[Increment, None, None]:
        """Measure each sample of a job once, and yield the results."""


@dataclass(frozen=True)
class Progress:
    """The progress of a calibration.

    Attributes:
        done: number of images measured.
        total: number of samples there are at most; None if it is not known.
        values: the moments so far.
        resumed: how many of the images an earlier run measured.
        jackknife: estimates the standard errors of forecasts.
    """

    done: int
    total: int | None
    values: Mapping[Value, Moments] = field(repr=False)
    resumed: int = 0
    jackknife: Jackknife = field(default_factory=Jackknife, repr=False)


class Interrupted(KeyboardInterrupt):
    """Ctrl-C was pressed after at least one image; `statistics` holds the results so far, marked incomplete."""

    def __init__(self, statistics: Statistics) -> None:
        super().__init__(f"interrupted after {statistics.images:,} images")
        self.statistics = statistics


def calibrate_model(
    model: Model,
    data: Data | Dataset,
    options: CalibrationOptions | None = None,
    *,
    progress: Callable[[Progress], None] | None = None,
) -> Statistics:
    """Measure every filter of a model on images or arrays.

    Args:
        model: the model.
        data: what to measure on: DATA, or a `Dataset` that is open already.
        options: what to measure, on how many samples, and with which engine.
        progress: called after every batch, or on a cluster after every chunk.

    Returns:
        The statistics. If there is a checkpoint, the caller removes it once the statistics are saved.

    Raises:
        DataError: if the data cannot be read, or does not fit the model.
        ModelError: if the model cannot be run or measured.
        OptionError: if an option is invalid.
        ProviderError: if the execution provider, or a worker, cannot be started.
        StatisticsError: if the checkpoint is of another run, or cannot be read or renamed.
        Interrupted: on Ctrl-C, once an image is measured; it has the statistics so far.
    """
    options = options or CalibrationOptions()
    if options.resume and options.checkpoint is None:
        raise OptionError("--resume needs a checkpoint to resume from")
    model = model.fed(options.settings)
    shard = Shard() if options.shard is None else Shard.parse(options.shard)
    monitor = None if options.rule is None else StoppingMonitor(options.rule)
    with _engine(options) as engine:
        model, dataset = open_inputs(model, data, options, engine.executor)
        batch_size = usual_batch(model, options.batch_size, tell=False)
        opened = opened_model(model, options) if batch_size == 1 else None
        if opened:
            model, batch_size = opened, DEFAULT_BATCH
        elif batch_size == 1:
            usual_batch(model, options.batch_size)  # says why
        _log.info("DATA: %s; batches of %d", dataset.describe(), batch_size)
        job = Job(model, dataset, Selection(shard), batch_size, options, opened=opened is not None)
        state = State()
        checkpoint = None if options.checkpoint is None else Checkpoint(Path(options.checkpoint), job.run())
        if checkpoint is not None and options.resume:
            job, state = _resumed(job, checkpoint)
        elif checkpoint is not None:
            checkpoint.set_aside()
        return _run(job, state, engine, checkpoint, monitor, progress)


def _run(
    job: Job,
    state: State,
    engine: Engine,
    checkpoint: Checkpoint | None,
    monitor: StoppingMonitor | None,
    progress: Callable[[Progress], None] | None,
) -> Statistics:
    """Add what the engine measures to the state of a run, until the data ends or the means are precise enough."""
    resumed, jackknife = state.images, Jackknife()
    jackknife.watch(state.totals)

    def statistics(*, complete: bool) -> Statistics:
        return state.statistics(job, complete=complete, log_standard_errors=jackknife.log_standard_errors(state.totals))

    try:
        with closing(engine.measure(job)) as increments:
            for increment in increments:
                state = state.after(increment, job.selection)
                jackknife.watch(state.totals)
                if checkpoint is not None and state.totals and checkpoint.due():
                    checkpoint.write(state.statistics(job, complete=False, sources=False), state.done)
                if progress is not None:
                    progress(Progress(state.images, job.total, state.totals, resumed, jackknife))
                if monitor is not None and state.totals and monitor.enough(state.totals):
                    break
        return statistics(complete=True)
    except KeyboardInterrupt:
        if not state.images:
            raise
        if checkpoint is not None:
            checkpoint.write(state.statistics(job, complete=False, sources=False), state.done)
        raise Interrupted(statistics(complete=False)) from None


@contextmanager
def _engine(options: CalibrationOptions) -> Iterator[Engine]:
    """Open the engine that the options name, for the duration of a context."""
    if options.engine == "local":
        if options.workers is not None:
            raise OptionError("--workers is for --engine ray; the local engine has --threads")
        yield LocalEngine()
    else:
        from onnxnorm.calibration.engines.ray.engine import connected

        with connected(options.runtime, options.workers) as engine:
            yield engine


def _resumed(job: Job, checkpoint: Checkpoint) -> tuple[Job, State]:
    """Return the rest of the job, and the state that the checkpoint holds."""
    if not job.dataset.identity["digest"]:
        raise OptionError("--resume needs DATA that are files: arrays in memory are not known again")
    saved = checkpoint.read()
    if saved is None:
        return job, State()
    state = State.resumed(*saved)
    limit = job.options.limit
    if limit is not None and state.images > limit:
        raise OptionError(f"{checkpoint.path} has {state.images:,} images already, more than --limit {limit}")
    selection = replace(job.selection, done=state.done, measured=state.images, unusable=len(state.skipped))
    return replace(job, selection=selection), state
