"""What the pool of actors does when things go wrong, in memory: a Ray that is put on, and actors that are told what."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxnorm.calibration.engines.ray.chunks import ChunkQueue, chunk_size
from onnxnorm.calibration.engines.ray.pool import TRIES, Pool
from onnxnorm.calibration.engines.ray.worker import Chunk
from onnxnorm.calibration.job import Job
from onnxnorm.calibration.options import CalibrationOptions
from onnxnorm.calibration.step import Increment
from onnxnorm.data.batches import Skipped
from onnxnorm.data.opening import open_data
from onnxnorm.data.selection import Ranges, Selection, Shard
from onnxnorm.errors import DataError, ProviderError, ProviderWarning
from onnxnorm.model.files import Model
from onnxnorm.model.graph import input_specs
from onnxnorm.version import VERSION
from tests.helpers.calibrations import net
from tests.helpers.graphs import rand

Answer = Callable[[], Any]


class RayError(Exception):
    """Of which all of Ray's errors are."""


class LostError(RayError):
    """A result that is gone with its node."""


class TaskError(RayError):
    """An error of what ran in the actor."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(str(cause))
        self.cause = cause


class Ray:
    """Calls end one by one, the latest or the earliest first, when the pool waits for one."""

    exceptions = SimpleNamespace(RayError=RayError, RayTaskError=TaskError)

    def __init__(self, *, earliest: bool = False) -> None:
        self.earliest = earliest
        self.killed: list[Any] = []
        self.running: deque[tuple[Future[Any], Answer]] = deque()

    def kill(self, actor: Any) -> None:
        self.killed.append(actor)

    def call(self, answer: Answer) -> Any:
        future: Future[Any] = Future()
        self.running.append((future, answer))
        return SimpleNamespace(future=lambda: future)

    def end_one(self) -> None:
        future, answer = self.running.popleft() if self.earliest else self.running.pop()
        try:
            future.set_result(answer())
        except RayError as error:
            future.set_exception(error)


class Actor:
    """Measures by naming what it was given; `lose` says which calls are lost, by how many there were before."""

    def __init__(
        self, ray: Ray, version: Answer = lambda: VERSION, lose: Callable[[int], Any] = lambda _: None
    ) -> None:
        self.ray, self.lose = ray, lose
        self.version = SimpleNamespace(remote=lambda: ray.call(version))
        self.measure = SimpleNamespace(remote=self.called)
        self.ray = ray
        self.calls = 0

    def called(self, chunk: Chunk) -> Any:
        assert self not in self.ray.killed, "an actor that was done away with gets no work"
        return self.ray.call(lambda: self.measured(chunk))

    def measured(self, chunk: Chunk) -> Increment:
        self.calls += 1
        self.lose(self.calls)
        bad = tuple(Skipped("bad", "so", int(index)) for index in chunk.indices if index % 7 == 3)
        return Increment({}, len(chunk.indices) - len(bad), tuple(chunk.indices.tolist()), bad)


def job(total: int, limit: int | None = None, batch: int = 2, selection: Selection | None = None) -> Job:
    model = Model.open(net())
    dataset = open_data([rand(total, 3, 4, 4)], input_specs(model))
    return Job(model, dataset, selection or Selection(), batch, CalibrationOptions(limit=limit))


class Ended(SimpleQueue[Any]):
    """Whoever waits for the end of a call makes one end."""

    def __init__(self, ray: Ray) -> None:
        self.ray = ray

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        if not self.ray.running:
            raise Empty
        self.ray.end_one()
        return super().get(timeout=5)


def pool_of(start: Callable[[], Any], size: int, what: Job, ray: Ray) -> Pool:
    found = Pool(ray, start, size, ChunkQueue(what, size), "each needs 1 CPU(s) and 1 GPU(s)")
    found.ended = Ended(ray)
    return found


def done(pool: Pool) -> list[int]:
    found = [index for measured in pool.measured() for index in measured.indices]
    pool.close()
    return found


def test_every_sample_once_and_all_actors_go() -> None:
    ray = Ray()
    pool = pool_of(lambda: Actor(ray), 3, job(101), ray)
    assert sorted(done(pool)) == list(range(101))
    assert len(ray.killed) == 3


def test_no_more_actors_than_batches() -> None:
    ray = Ray()
    pool = pool_of(lambda: Actor(ray), 64, job(5), ray)
    assert sorted(done(pool)) == list(range(5))
    assert len(ray.killed) == 3


@given(st.lists(st.booleans(), min_size=1, max_size=40), st.integers(1, 4), st.booleans())
@settings(deadline=None)
def test_calls_that_are_lost_are_done_again(losses: list[bool], workers: int, earliest: bool) -> None:
    """Whichever are lost, as long as none is lost four times, each sample counts once."""
    lost, ray = deque(losses), Ray(earliest=earliest)

    def lose(_: int) -> None:
        if lost and lost.popleft() and len(ray.killed) < TRIES - 1:
            raise LostError("the node is gone")

    assert sorted(done(pool_of(lambda: Actor(ray, lose=lose), workers, job(60), ray))) == list(range(60))


def test_a_chunk_that_kills_its_workers_is_named() -> None:
    ray = Ray()

    def lose(_: int) -> None:
        raise LostError("out of memory")

    pool = pool_of(lambda: Actor(ray, lose=lose), 1, job(8), ray)
    with pytest.raises(DataError, match=r"4 workers were lost on the samples \d to \d \(out of memory\)"):
        done(pool)


def test_errors_of_the_work_itself_end_it() -> None:
    ray = Ray()

    def lose(_: int) -> None:
        raise TaskError(DataError("infinite"))

    pool = pool_of(lambda: Actor(ray, lose=lose), 2, job(8), ray)
    with pytest.raises(DataError, match=r"^infinite$"):
        done(pool)


def test_workers_that_cannot_be_started() -> None:
    ray = Ray()

    def version() -> str:
        raise RayError("creation failed\nModuleNotFoundError: No module named 'onnxnorm'")

    pool = pool_of(lambda: Actor(ray, version), 2, job(8), ray)
    with pytest.raises(ProviderError, match=r"could not be started \(ModuleNotFoundError.*the extra ray"):
        done(pool)
    other = pool_of(lambda: Actor(ray, lambda: "0.0.1"), 2, job(8), ray)
    with pytest.raises(ProviderError, match=r"has onnxnorm 0\.0\.1"):
        done(other)


def test_waiting_for_room_is_said() -> None:
    ray = Ray()
    """An actor that has no room does not answer. Here the wait then ends with an error, there it goes on."""
    actor = SimpleNamespace(version=SimpleNamespace(remote=lambda: SimpleNamespace(future=Future)))
    pool = pool_of(lambda: actor, 1, job(8), ray)
    with (
        pytest.warns(ProviderWarning, match=r"for 30 s; each needs 1 CPU\(s\) and 1 GPU"),
        pytest.raises(Empty),
    ):
        done(pool)


@pytest.mark.parametrize(("total", "limit", "workers"), [(200, 50, 4), (200, 1, 9), (30, 29, 2), (64, 64, 3)])
def test_a_limit_counts_usable_samples(total: int, limit: int, workers: int) -> None:
    """Every seventh cannot be used; what counts are the first usable ones, as on one machine."""
    ray = Ray()
    pool = pool_of(lambda: Actor(ray), workers, job(total, limit), ray)
    found = sorted(done(pool))
    usable = [index for index in range(total) if index % 7 != 3][:limit]
    assert [index for index in found if index % 7 != 3] == usable
    assert len(set(found)) == len(found)


def test_what_is_done_and_other_shards_stay_out() -> None:
    ray = Ray()
    selection = Selection(Shard(1, 3), Ranges(((0, 5), (8, 9))), measured=6)
    pool = pool_of(lambda: Actor(ray), 2, job(100, selection=selection), ray)
    shard = range(1, 100, 3)
    assert sorted(done(pool)) == [shard[place] for place in range(len(shard)) if place not in {0, 1, 2, 3, 4, 8}]


@pytest.mark.parametrize(("workers", "batch"), [(1, 8), (10, 8), (1000, 1), (5000, 8), (10_000, 8)])
def test_chunks_shrink_towards_the_end(workers: int, batch: int) -> None:
    left, sizes = 100 * max(1, workers // 1000) * workers * batch + 3, []
    while left > 0:
        size = chunk_size(left, batch, workers)
        assert size > 0
        assert size % batch == 0
        sizes.append(size)
        left -= size
    assert sizes == sorted(sizes, reverse=True)
    scale = max(1, workers // 1000)
    assert (sizes[0], sizes[-1]) == (8 * batch * scale, batch * scale)
    assert max(sizes[-workers:]) <= 2 * batch * scale
