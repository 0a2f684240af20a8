"""The Ray engine: chunks of samples go out to actors, moments come back.

The driver lists the data; an actor holds one session, reads what its chunk names, and returns one `Measured`. **Each
sample is counted exactly once**: a chunk's moments are added only when its one outstanding call returns, and a call
that is lost with its actor (killed, out of memory, node gone) returns nothing, so its chunk goes out again, to a new
actor.

Every actor has two calls outstanding, so that it never waits for the driver. With a limit, no more samples are out than
are still wanted; those that turn out to be unusable are made up for by the next ones in order. So the samples that
count are those of the local engine, and the sums differ only in the order of addition.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from onnxnorm.calibration.batches import Batch, Skipped, regroup
from onnxnorm.calibration.jobs import Job
from onnxnorm.calibration.parts import Part
from onnxnorm.calibration.sessions import Runtime
from onnxnorm.calibration.shards import Indices
from onnxnorm.calibration.sources import check_enough
from onnxnorm.calibration.steps import (
    Calibration,
    Measured,
    Range,
    Totals,
    added,
    fixed_batch,
    prepare,
    ranges_of,
    sample_of,
)
from onnxnorm.errors import DataError, OptionError
from onnxnorm.model.files import Model
from onnxnorm.model.graph import input_specs
from onnxnorm.scaling.filters import FilterKind
from onnxnorm.statistics import Weighting

__all__ = ["Chunk", "Worker", "measure_on_ray"]

OUTSTANDING = 2
TRIES = 4
_BATCHES_A_CHUNK = 8
_MODEL_BY_PATH = 1 << 30


@dataclass(frozen=True)
class Chunk:
    """Some samples: parts of the data, and what to add to the indices in each."""

    indices: Indices = field(repr=False)
    parts: tuple[tuple[int, Part], ...] = field(repr=False)

    def blocks(self, size: int, threads: int, skipped: list[Skipped]) -> Iterator[Batch]:
        """Yield the usable samples, and note the others."""
        for offset, part in self.parts:
            for block in part.blocks(size, threads):
                if isinstance(block, Skipped):
                    skipped.append(block.shifted(offset))
                else:
                    yield block.shifted(offset)


class Worker:
    """What runs in an actor: one session for all chunks, opened with the first."""

    def __init__(
        self,
        model: bytes | str,
        runtime: Runtime,
        filters: FilterKind,
        weighting: Weighting,
        also: tuple[str, ...] = (),
    ) -> None:
        self.model = Model.open(model if isinstance(model, str) else onnx.ModelProto.FromString(model))
        self.runtime = runtime
        self.filters = filters
        self.weighting = weighting
        self.also = also
        self.calibration: Calibration | None = None

    def measure(self, chunk: Chunk, size: int) -> Measured:
        """Measure a chunk, in batches of `size`."""
        fixed = fixed_batch(input_specs(self.model))
        skipped: list[Skipped] = []
        totals: Totals = {}
        shapes: dict[str, tuple[int, ...]] = {}
        ranges: dict[str, Range] = {}
        images = 0
        for batch in regroup(chunk.blocks(size, self.runtime.threads or 1, skipped), size):
            shapes = shapes or sample_of(batch, fixed)
            ranges = ranges or ranges_of(batch)
            if self.calibration is None:
                self.calibration = prepare(self.model, shapes, self.filters, self.runtime, self.weighting, self.also)
            totals = added(totals, self.calibration.step(batch))
            images += batch.count
        return Measured(totals, images, tuple(chunk.indices.tolist()), tuple(skipped), shapes, ranges)


@dataclass
class _Todo:
    """The chunks that are still to go out: lost ones first, then new ones in order."""

    job: Job
    lost: deque[tuple[Chunk, int]] = field(default_factory=deque)
    open: float = float("inf")

    def __post_init__(self) -> None:
        self._indices = self._walk()
        if self.job.limit is not None:
            self.open = self.job.limit - self.job.selection.measured

    def next(self) -> tuple[Chunk, int] | None:
        """A chunk, and how often it was tried; None if there is none for now."""
        if self.lost:
            return self.lost.popleft()
        count = int(min(self.open, self.job.batch_size * _BATCHES_A_CHUNK))
        indices = np.fromiter(islice(self._indices, max(count, 0)), np.int64)
        if not len(indices):
            return None
        self.open -= len(indices)
        return Chunk(indices, tuple(self.job.dataset.picked(indices))), 0

    def _walk(self) -> Iterator[int]:
        total, stretch = self.job.dataset.total or 0, 65536
        for start in range(0, total, stretch):
            yield from self.job.selection.among(start, min(start + stretch, total)).tolist()


class _Pool:
    """Actors, and the calls that are out at each."""

    def __init__(self, ray: Any, job: Job, workers: int | None) -> None:
        self.ray = ray
        threads = job.runtime.threads or 1
        gpu = _wants_gpu(ray, job.runtime)
        runtime = Runtime(job.runtime.provider if gpu or job.runtime.provider != "auto" else "cpu", threads)
        self.kind = ray.remote(num_cpus=threads, num_gpus=1 if gpu else 0, max_restarts=0)(Worker)
        self.arguments = (_sent(ray, job.model), runtime, job.filters, job.weighting, job.also)
        room = ray.cluster_resources()
        fits = int(room.get("GPU", 0)) if gpu else int(room.get("CPU", 1)) // threads
        self.size = workers or max(1, fits)
        self.actors: list[Any] = []
        self.out: dict[Any, tuple[Any, Chunk, int]] = {}

    def give(self, todo: _Todo, batch_size: int) -> None:
        """Hand out chunks until every actor has enough."""
        load = Counter(actor for actor, _, _ in self.out.values())
        for _ in range(OUTSTANDING):
            for place in range(self.size):
                if place < len(self.actors) and load[self.actors[place]] >= OUTSTANDING:
                    continue
                item = todo.next()
                if item is None:
                    return
                if place >= len(self.actors):
                    self.actors.append(self.kind.remote(*self.arguments))
                actor = self.actors[place]
                self.out[actor.measure.remote(item[0], batch_size)] = (actor, *item)
                load[actor] += 1

    def take(self, todo: _Todo) -> Measured | None:
        """Wait for a call to end; None if it was lost, and its chunk is to be done again."""
        (done,), _ = self.ray.wait(list(self.out), num_returns=1)
        actor, chunk, tried = self.out.pop(done)
        try:
            found = self.ray.get(done)
        except self.ray.exceptions.RayTaskError as error:
            raise error.cause from error
        except (self.ray.exceptions.RayActorError, self.ray.exceptions.RaySystemError) as error:
            if tried + 1 >= TRIES:
                raise DataError(
                    f"{TRIES} workers were lost on the samples {chunk.indices[0]} to {chunk.indices[-1]} ({error}); "
                    "give them more memory, or a smaller --batch-size"
                ) from error
            self.actors = [other for other in self.actors if other is not actor]
            todo.lost.append((chunk, tried + 1))
            return None
        return found if isinstance(found, Measured) else None

    def close(self) -> None:
        """Let all actors go."""
        for actor in {id(actor): actor for actor in [*self.actors, *(out[0] for out in self.out.values())]}.values():
            self.ray.kill(actor)


def measure_on_ray(job: Job, workers: int | None) -> Generator[Measured, None, None]:
    """Measure a job on a Ray cluster: the one at RAY_ADDRESS, else the one of this machine, else a new local one."""
    if job.dataset.total is None:
        raise OptionError("--engine ray needs DATA whose samples can be counted: files, or arrays in a list")
    ray = _imported()
    mine = not ray.is_initialized()
    if mine:
        ray.init(log_to_driver=False, logging_level="warning")
    pool = None
    good, bad = job.selection.measured, list[Skipped]()
    try:
        pool = _Pool(ray, job, workers)
        todo = _Todo(job)
        pool.give(todo, job.batch_size)
        while pool.out:
            found = pool.take(todo)
            if found is not None:
                good += found.images
                bad.extend(found.skipped)
                todo.open += len(found.skipped)
                yield found
            pool.give(todo, job.batch_size)
    finally:
        if pool is not None:
            pool.close()
        if mine:
            ray.shutdown()
    check_enough(good, bad, job.selection)


def _imported() -> Any:
    try:
        return import_module("ray")
    except ImportError:
        raise OptionError("--engine ray needs Ray: pip install 'onnxnorm[ray]'") from None


def _wants_gpu(ray: Any, runtime: Runtime) -> bool:
    name = runtime.provider.partition(":")[0].lower()
    if name == "auto":
        return bool(ray.cluster_resources().get("GPU", 0) >= 1)
    return name in {"cuda", "tensorrt", "cudaexecutionprovider", "tensorrtexecutionprovider"}


def _sent(ray: Any, model: Model) -> Any:
    """The model for the workers: by value, or where it is too large for that, the path on a file system they share."""
    if model.path is not None and sum(bulk.length for bulk in model.bulks.values()) > _MODEL_BY_PATH:
        return str(Path(model.path).absolute())
    return ray.put(model.to_bytes())
