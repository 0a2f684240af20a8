"""Batches: samples of equal shape, put together.

Sources hand over blocks of any size, in order: one image, or some rows of an array. `regroup` cuts and joins them into
batches of one size. Samples of different shapes never share a batch; the shapes that are still incomplete wait in a
buffer that is bounded, by samples and by bytes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

__all__ = ["Batch", "Skipped", "pad_batch", "regroup"]

Array = npt.NDArray[np.generic]
Key = tuple[tuple[str, tuple[int, ...]], ...]

_WAITING_BATCHES = 4
_WAITING_BYTES = 256 * 2**20


@dataclass(frozen=True)
class Batch:
    """Some samples, ready to be fed.

    `feeds` maps each input name to an array `(count, *sample)`; `names` says where each sample came from, `indices`
    which it is, counted over all of DATA.
    """

    feeds: dict[str, Array]
    count: int
    names: tuple[str, ...]
    indices: tuple[int, ...] = ()

    @property
    def nbytes(self) -> int:
        """Bytes of all feeds."""
        return sum(array.nbytes for array in self.feeds.values())

    def split(self, at: int) -> tuple[Batch, Batch]:
        """Return the first `at` samples and the rest, both views."""
        head = {name: array[:at] for name, array in self.feeds.items()}
        tail = {name: array[at:] for name, array in self.feeds.items()}
        return (
            Batch(head, at, self.names[:at], self.indices[:at]),
            Batch(tail, self.count - at, self.names[at:], self.indices[at:]),
        )

    def select(self, rows: npt.NDArray[np.int64]) -> Batch:
        """Some of the samples, by their numbers in this batch."""
        feeds = {name: array[rows] for name, array in self.feeds.items()}
        return Batch(feeds, len(rows), tuple(self.names[i] for i in rows), tuple(self.indices[i] for i in rows))

    def shifted(self, offset: int) -> Batch:
        """The same, with indices counted from `offset`."""
        return replace(self, indices=tuple(index + offset for index in self.indices)) if offset else self


@dataclass(frozen=True)
class Skipped:
    """A sample that could not be used, and why."""

    name: str
    reason: str
    index: int = field(default=-1, compare=False)

    def shifted(self, offset: int) -> Skipped:
        """The same, with the index counted from `offset`."""
        return replace(self, index=self.index + offset) if offset else self


@dataclass
class _Queue:
    """The blocks of one shape that wait for a full batch."""

    blocks: deque[Batch] = field(default_factory=deque)
    count: int = 0
    nbytes: int = 0

    def put(self, block: Batch) -> None:
        self.blocks.append(block)
        self.count += block.count
        self.nbytes += block.nbytes

    def take(self, count: int) -> Batch:
        """Remove the oldest `count` samples, joined."""
        self.count -= count
        select = []
        while count > 0:
            block = self.blocks.popleft()
            if block.count > count:
                block, rest = block.split(count)
                self.blocks.appendleft(rest)
            select.append(block)
            count -= block.count
        joined = _joined(select)
        self.nbytes -= joined.nbytes
        return joined


def regroup(blocks: Iterable[Batch], size: int) -> Iterator[Batch]:
    """Cut and join `blocks` into batches of `size` samples of equal shape.

    Within a shape the order is kept. A shape is flushed before it is full only when too much waits, fullest first, and
    at the end; such a batch has its true count.
    """
    queues: dict[Key, _Queue] = {}
    for block in blocks:
        key = _shapes(block)
        queue = queues.setdefault(key, _Queue())
        queue.put(block)
        while queue.count >= size:
            yield queue.take(size)
        if not queue.count:
            del queues[key]
        yield from _relieved(queues, size)
    for queue in queues.values():
        yield queue.take(queue.count)


def _relieved(queues: dict[Key, _Queue], size: int) -> Iterator[Batch]:
    """Flush the fullest queues until what waits is within bounds; a single shape never waits for more than a batch."""
    while len(queues) > 1 and _is_too_much(queues, size):
        fullest = max(queues, key=lambda key: queues[key].count)
        queue = queues.pop(fullest)
        yield queue.take(queue.count)


def _is_too_much(queues: dict[Key, _Queue], size: int) -> bool:
    if sum(queue.count for queue in queues.values()) > _WAITING_BATCHES * size:
        return True
    return sum(queue.nbytes for queue in queues.values()) > _WAITING_BYTES


def _shapes(block: Batch) -> Key:
    return tuple((name, array.shape[1:]) for name, array in block.feeds.items())


def _joined(blocks: list[Batch]) -> Batch:
    """Join blocks of equal shape; the arrays are contiguous."""
    first = blocks[0]
    if len(blocks) == 1:
        feeds = {name: np.ascontiguousarray(array) for name, array in first.feeds.items()}
    else:
        feeds = {name: np.concatenate([block.feeds[name] for block in blocks]) for name in first.feeds}
    names = tuple(name for block in blocks for name in block.names)
    return Batch(feeds, len(names), names, tuple(index for block in blocks for index in block.indices))


def pad_batch(array: Array, size: int) -> Array:
    """A batch `(n, ...)` with its last sample repeated until there are `size`."""
    missing = size - len(array)
    return array if missing <= 0 else np.concatenate([array, np.repeat(array[-1:], missing, axis=0)])
