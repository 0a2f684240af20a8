"""Actors, and the chunks that are out at them.

**Each sample is counted exactly once**: a chunk's moments are handed over only when its one outstanding call returns,
and a call that is lost (its worker killed or out of memory, its node gone, or the result with the node) returns
nothing, so its chunk goes out again, to another actor. An actor of which a call was lost is done away with.

An actor gets chunks once it has answered. So those for which the cluster has no room hold nothing up, and take part as
soon as there is room. What has ended is put into a queue by Ray's own thread: what a result costs here does not depend
on how many are out.
"""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any

from onnxnorm.calibration.engines.ray.chunks import OUTSTANDING, ChunkQueue
from onnxnorm.calibration.engines.ray.worker import Chunk
from onnxnorm.calibration.step import Increment
from onnxnorm.errors import DataError, ProviderError, ProviderWarning
from onnxnorm.version import VERSION

__all__ = ["Pool"]

TRIES = 4
PATIENCE = 30.0


@dataclass(frozen=True)
class _Call:
    """A call that is out: a chunk, and how often it was lost; without one, the question whether the actor is there."""

    actor: Any
    chunk: Chunk | None = None
    tried: int = 0


class Pool:
    """At most `size` actors that `start` makes, and what is to be done."""

    def __init__(self, ray: Any, start: Callable[[], Any], size: int, todo: ChunkQueue, needs: str) -> None:
        self.ray = ray
        self.start = start
        self.size = min(size, -(-todo.left // todo.job.batch_size))
        self.todo = todo
        self.needs = needs
        self.actors: dict[int, Any] = {}
        self.free: deque[Any] = deque()
        self.out = 0
        self.failures = 0
        self.ended: SimpleQueue[tuple[_Call, Any]] = SimpleQueue()

    def measured(self) -> Iterator[Increment]:
        """Yield what comes back, until there is nothing more to do."""
        self._fill()
        while self.out or self.todo:
            call, result = self._next()
            if call.chunk is None:
                self._answered(call, result)
            else:
                self.out -= 1
                found = self._returned(call, call.chunk, result)
                if found is not None:
                    self.todo.open += len(found.skipped)
                    yield found
            self._fill()

    def close(self) -> None:
        """Let all actors go."""
        for actor in self.actors.values():
            self.ray.kill(actor)

    def _fill(self) -> None:
        """Start actors that are missing, and hand out chunks while there are actors free."""
        while self.todo and len(self.actors) < self.size:
            actor = self.start()
            self.actors[id(actor)] = actor
            self._call(_Call(actor), actor.version.remote())
        while self.free and self.todo:
            actor = self.free.popleft()
            chunk, tried = self.todo.next()
            self.out += 1
            self._call(_Call(actor, chunk, tried), actor.measure.remote(chunk))

    def _call(self, call: _Call, reference: Any) -> None:
        reference.future().add_done_callback(partial(_put, self.ended, call))

    def _next(self) -> tuple[_Call, Any]:
        """Wait for a call to end; where no actor starts, say so once."""
        if not self.out and not self.free:
            try:
                return self.ended.get(timeout=PATIENCE)
            except Empty:
                text = f"no worker of the Ray cluster has started for {PATIENCE:.0f} s; {self.needs}; still waiting"
                warnings.warn(ProviderWarning(text), stacklevel=2)
        return self.ended.get()

    def _answered(self, call: _Call, result: Any) -> None:
        """An actor is there, or could not be started."""
        if id(call.actor) not in self.actors:
            return
        try:
            version = result()
        except self.ray.exceptions.RayError as error:
            self.failures += 1
            self._drop(call.actor)
            if self.failures >= TRIES:
                raise ProviderError(
                    f"{TRIES} workers of the Ray cluster could not be started ({_last_line(error)}); every node needs "
                    f"onnxnorm {VERSION} with the extra ray"
                ) from error
            return
        if version != VERSION:
            raise ProviderError(
                f"a worker of the Ray cluster has onnxnorm {version}, not {VERSION}; make them the same"
            )
        self.failures = 0
        self.free.extend([call.actor] * OUTSTANDING)

    def _returned(self, call: _Call, chunk: Chunk, result: Any) -> Increment | None:
        """What was measured; None if it was lost."""
        try:
            found: Increment = result()
        except self.ray.exceptions.RayTaskError as error:
            raise error.cause from error
        except self.ray.exceptions.RayError as error:
            self._drop(call.actor)
            if call.tried + 1 >= TRIES:
                raise DataError(
                    f"{TRIES} workers were lost on the samples {chunk.indices[0]} to {chunk.indices[-1]} "
                    f"({_last_line(error)}); give them more memory, or a smaller --batch-size"
                ) from error
            self.todo.lost.append((chunk, call.tried + 1))
            return None
        if id(call.actor) in self.actors:
            self.free.append(call.actor)
        return found

    def _drop(self, actor: Any) -> None:
        """Do away with an actor; its other calls are lost with it."""
        if self.actors.pop(id(actor), None) is not None:
            self.ray.kill(actor)
        self.free = deque(other for other in self.free if other is not actor)


def _put(ended: SimpleQueue[tuple[_Call, Any]], call: _Call, future: Any) -> None:
    ended.put((call, future.result))


def _last_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1].strip()
