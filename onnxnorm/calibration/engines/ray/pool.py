"""A pool of actors, and the chunks that are sent to them.

**Each sample is counted exactly once.** A chunk has one outstanding call at a time, and its moments are yielded only
when that call returns. A call that is lost (because its worker was killed or ran out of memory, or because its node or
the result on that node is gone) returns nothing; its chunk is sent again, to another actor. An actor that loses a call
is killed.

An actor receives chunks only after it has answered a first call. So actors for which the cluster has no room do not
delay the others, and take part as soon as there is room. Ray's own thread puts calls that have ended into a queue, so
the cost of a result does not depend on the number of outstanding calls.
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
    """An outstanding call: to measure a chunk that was lost `tried` times, or, without one, the actor's first call."""

    actor: Any
    chunk: Chunk | None = None
    tried: int = 0


class Pool:
    """At most `size` actors, which `start` makes, that measure the pending chunks."""

    def __init__(self, ray: Any, start: Callable[[], Any], size: int, pending: ChunkQueue, needs: str) -> None:
        """`needs` says for messages what an actor needs and what the cluster has."""
        self.ray = ray
        self.start = start
        self.size = min(size, -(-pending.left // pending.job.batch_size))
        self.pending = pending
        self.needs = needs
        self.actors: dict[int, Any] = {}
        self.free: deque[Any] = deque()
        self.outstanding = 0
        self.failures = 0
        self.ended: SimpleQueue[tuple[_Call, Any]] = SimpleQueue()

    def measured(self) -> Iterator[Increment]:
        """Yield the results of chunks, until all are measured.

        Raises ProviderError if workers cannot be started, and DataError if a chunk is lost again and again.
        """
        self._fill()
        while self.outstanding or self.pending:
            call, result = self._next()
            if call.chunk is None:
                self._answered(call, result)
            else:
                self.outstanding -= 1
                increment = self._returned(call, call.chunk, result)
                if increment is not None:
                    self.pending.open += len(increment.skipped)
                    yield increment
            self._fill()

    def close(self) -> None:
        """Kill all actors."""
        for actor in self.actors.values():
            self.ray.kill(actor)

    def _fill(self) -> None:
        """Start the actors that are missing, and send chunks to the actors that are free."""
        while self.pending and len(self.actors) < self.size:
            actor = self.start()
            self.actors[id(actor)] = actor
            self._call(_Call(actor), actor.version.remote())
        while self.free and self.pending:
            actor = self.free.popleft()
            chunk, tried = self.pending.next()
            self.outstanding += 1
            self._call(_Call(actor, chunk, tried), actor.measure.remote(chunk))

    def _call(self, call: _Call, reference: Any) -> None:
        reference.future().add_done_callback(partial(_put, self.ended, call))

    def _next(self) -> tuple[_Call, Any]:
        """Wait for a call to end; warn if no actor starts for a long time."""
        if not self.outstanding and not self.free:
            try:
                return self.ended.get(timeout=PATIENCE)
            except Empty:
                text = f"no worker of the Ray cluster has started for {PATIENCE:.0f} s; {self.needs}; still waiting"
                warnings.warn(ProviderWarning(text), stacklevel=2)
        return self.ended.get()

    def _answered(self, call: _Call, result: Any) -> None:
        """Handle the first answer of an actor, or the error that it could not be started."""
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
        """Return what was measured; None if the call was lost."""
        try:
            increment: Increment = result()
        except self.ray.exceptions.RayTaskError as error:
            raise error.cause from error
        except self.ray.exceptions.RayError as error:
            self._drop(call.actor)
            if call.tried + 1 >= TRIES:
                raise DataError(
                    f"{TRIES} workers were lost on the samples {chunk.indices[0]} to {chunk.indices[-1]} "
                    f"({_last_line(error)}); give them more memory, or a smaller --batch-size; or files became shorter "
                    "while they were read"
                ) from error
            self.pending.lost.append((chunk, call.tried + 1))
            return None
        if id(call.actor) in self.actors:
            self.free.append(call.actor)
        return increment

    def _drop(self, actor: Any) -> None:
        """Kill an actor; its other calls are lost with it."""
        if self.actors.pop(id(actor), None) is not None:
            self.ray.kill(actor)
        self.free = deque(other for other in self.free if other is not actor)


def _put(ended: SimpleQueue[tuple[_Call, Any]], call: _Call, future: Any) -> None:
    ended.put((call, future.result))


def _last_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1].strip()
