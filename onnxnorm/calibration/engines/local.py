"""The local engine: images → batches → session → moments, with decoding and inference in parallel."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from itertools import chain

from onnxnorm.calibration.job import Job
from onnxnorm.calibration.probe_session import DeviceBatch, ProbeSession, RunResult
from onnxnorm.calibration.ranges import Range
from onnxnorm.calibration.step import Increment, prepare, sample_of
from onnxnorm.data.batches import Batch
from onnxnorm.data.files.listing import Executor, LocalExecutor
from onnxnorm.model.graph import input_specs
from onnxnorm.model.inputs import InputSpec, fixed_batch
from onnxnorm.runtime import RunConcurrency
from onnxnorm.statistics.moments import Totals
from onnxnorm.threads import map_ahead

__all__ = ["LocalEngine"]

# Ranges of inputs need only few images: a verification without images makes inputs that are roughly similar.
_SAMPLED = 64


@dataclass(frozen=True)
class LocalEngine:
    """Measures in threads of this process."""

    executor: Executor = field(default_factory=LocalExecutor)

    def measure(self, job: Job) -> Generator[Increment, None, None]:
        """Yield an increment after every batch."""
        reported = 0
        options = job.options
        specs = input_specs(job.model)
        fixed = fixed_batch(specs)
        concurrency = job.options.runtime.concurrency(job.together, fixed, job.dataset.sample_bytes)
        with (
            closing(job.dataset.batches(job.together, options.limit, options.threads, job.selection)) as batches,
            closing(_steps(job, concurrency, specs, batches)) as steps,
        ):
            for batch, totals, ranges in steps:
                skipped = tuple(job.dataset.skipped_after(reported))
                reported += len(skipped)
                yield Increment(
                    totals=totals,
                    images=batch.count,
                    indices=(*batch.indices, *(item.index for item in skipped)),
                    skipped=skipped,
                    shapes=sample_of(batch, specs),
                    ranges=ranges,
                )
        skipped = tuple(job.dataset.skipped_after(reported))
        if skipped:
            yield Increment({}, 0, tuple(item.index for item in skipped), skipped)


def _steps(
    job: Job, concurrency: RunConcurrency, specs: Sequence[InputSpec], batches: Generator[Batch, None, None]
) -> Generator[tuple[Batch, Totals, Mapping[str, Range]], None, None]:
    """Measure batches, several runs at a time, and yield them in order; the next batch is copied to a device ahead.

    The ranges of inputs are found for the first samples only.
    """
    first = next(batches, None)
    if first is None:
        return
    runtime = replace(job.options.runtime, threads=concurrency.threads)
    shapes, one_size = sample_of(first, specs), job.dataset.one_size
    probe = prepare(job.model, shapes, job.options, runtime, one_size=one_size, most=concurrency.size)
    every = chain([first], batches)
    on_device = bool(probe.current().device)
    placed = map_ahead(probe.place, every, threads=1, ahead=1) if on_device else (probe.place(b) for b in every)
    measured = _by_batch if concurrency.size >= job.together else _by_run
    images, ranges = 0, dict[str, Range]()
    with closing(placed), closing(measured(probe, placed, concurrency.runs)) as steps:
        for batch, totals in steps:
            if images < _SAMPLED:
                ranges = probe.ranges(batch, ranges)
            yield batch, totals, ranges
            images += batch.count


def _by_batch(
    probe: ProbeSession, placed: Iterable[DeviceBatch], threads: int
) -> Generator[tuple[Batch, Totals], None, None]:
    """Measure batches, each in one thread, and yield them with their moments, in order.

    Where samples are small, what surrounds a run takes the time, and to share runs would take more of it.
    """

    def measure(batch: DeviceBatch) -> tuple[Batch, Totals]:
        return batch.batch, probe.whole(batch)

    return map_ahead(measure, placed, threads=threads, ahead=2 * threads)


def _by_run(
    probe: ProbeSession, placed: Iterable[DeviceBatch], threads: int
) -> Generator[tuple[Batch, Totals], None, None]:
    """Measure batches, the runs of which threads share, so that none is left with a batch of its own at the end."""

    def measure(run: tuple[DeviceBatch, int]) -> tuple[DeviceBatch, list[RunResult] | None]:
        batch, index = run
        return batch, probe.measure(batch, range(index, index + 1))

    runs = ((batch, index) for batch in placed for index in range(len(batch.runs)))
    parts = list[list[RunResult] | None]()
    with closing(map_ahead(measure, runs, threads=threads, ahead=2 * threads)) as measured:
        for batch, part in measured:
            parts.append(part)
            if len(parts) == len(batch.runs):
                yield batch.batch, probe.total(batch, parts)
                parts = []
