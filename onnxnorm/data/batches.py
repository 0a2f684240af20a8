"""Batches: samples of equal shape, joined along their first axis. `model_feeds` makes of one what a model is fed.

Readers yield blocks of any size, in order: one image, or some rows of an array. `regroup` cuts and joins them into
batches of one size. Samples of different shapes never share a batch; incomplete batches wait in a buffer that is
bounded both in samples and in bytes.
"""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from onnxnorm.data.options import DEFAULT_BATCH
from onnxnorm.errors import BatchWarning, OptionError
from onnxnorm.model.files import Model
from onnxnorm.model.graph import input_specs
from onnxnorm.model.inputs import InputSpec, fixed_batch
from onnxnorm.model.single import why_single

__all__ = ["Batch", "Skipped", "check_batch", "model_feeds", "pad_batch", "regroup", "usual_batch"]

Array = npt.NDArray[np.generic]
Key = tuple[tuple[str, tuple[int, ...]], ...]

_WAITING_BATCHES = 4
_WAITING_BYTES = 256 * 2**20


@dataclass(frozen=True)
class Batch:
    """Samples that are ready to be fed to a model.

    Attributes:
        feeds: an array of shape `(count, *sample)` for each input name.
        count: number of samples.
        names: where each sample came from, for messages.
        indices: the index of each sample, counted over all of DATA.
    """

    feeds: dict[str, Array]
    count: int
    names: tuple[str, ...]
    indices: tuple[int, ...] = ()

    @property
    def nbytes(self) -> int:
        """Size of all feeds in bytes."""
        return sum(array.nbytes for array in self.feeds.values())

    def part(self, start: int, stop: int) -> Batch:
        """Return the samples from `start` to before `stop`, as views."""
        names, indices = self.names[start:stop], self.indices[start:stop]
        return Batch({name: array[start:stop] for name, array in self.feeds.items()}, len(names), names, indices)

    def split(self, at: int) -> tuple[Batch, Batch]:
        """Return the first `at` samples and the rest, both as views."""
        return self.part(0, at), self.part(at, self.count)

    def select(self, rows: npt.NDArray[np.int64]) -> Batch:
        """Return the samples at the positions `rows` of this batch."""
        feeds = {name: array[rows] for name, array in self.feeds.items()}
        return Batch(feeds, len(rows), tuple(self.names[i] for i in rows), tuple(self.indices[i] for i in rows))

    def shifted(self, offset: int) -> Batch:
        """Return the same batch with `offset` added to its indices."""
        return replace(self, indices=tuple(index + offset for index in self.indices)) if offset else self


@dataclass(frozen=True)
class Skipped:
    """A sample that could not be used, and the reason."""

    name: str
    reason: str
    index: int = field(default=-1, compare=False)

    def shifted(self, offset: int) -> Skipped:
        """Return the same entry with `offset` added to its index."""
        return replace(self, index=self.index + offset) if offset else self


@dataclass
class _Queue:
    """Blocks of one shape that wait until they fill a batch."""

    blocks: deque[Batch] = field(default_factory=deque)
    count: int = 0
    nbytes: int = 0

    def put(self, block: Batch) -> None:
        self.blocks.append(block)
        self.count += block.count
        self.nbytes += block.nbytes

    def pop(self, count: int) -> Batch:
        """Remove the oldest `count` samples and return them as one batch."""
        self.count -= count
        removed = []
        while count > 0:
            block = self.blocks.popleft()
            if block.count > count:
                block, rest = block.split(count)
                self.blocks.appendleft(rest)
            removed.append(block)
            count -= block.count
        joined = _joined(removed)
        self.nbytes -= joined.nbytes
        return joined


def regroup(blocks: Iterable[Batch], size: int) -> Iterator[Batch]:
    """Cut and join `blocks` into batches of `size` samples of equal shape.

    The order of samples of one shape is kept. A batch has fewer samples than `size` only at the end, or when too many
    samples of different shapes are waiting: then the shapes with most samples are flushed first.
    """
    queues: dict[Key, _Queue] = {}
    for block in blocks:
        key = _shapes(block)
        queue = queues.setdefault(key, _Queue())
        queue.put(block)
        while queue.count >= size:
            yield queue.pop(size)
        if not queue.count:
            del queues[key]
        yield from _overflow(queues, size)
    for queue in queues.values():
        yield queue.pop(queue.count)


def _overflow(queues: dict[Key, _Queue], size: int) -> Iterator[Batch]:
    """Flush the fullest queues until the rest is within bounds. A single queue never holds more than a batch."""
    while len(queues) > 1 and _exceed_bounds(queues, size):
        fullest = max(queues, key=lambda key: queues[key].count)
        queue = queues.pop(fullest)
        yield queue.pop(queue.count)


def _exceed_bounds(queues: dict[Key, _Queue], size: int) -> bool:
    if sum(queue.count for queue in queues.values()) > _WAITING_BATCHES * size:
        return True
    return sum(queue.nbytes for queue in queues.values()) > _WAITING_BYTES


def _shapes(block: Batch) -> Key:
    return tuple((name, array.shape[1:]) for name, array in block.feeds.items())


def _joined(blocks: list[Batch]) -> Batch:
    """Join blocks of equal shape into one batch of contiguous arrays."""
    first = blocks[0]
    if len(blocks) == 1:
        feeds = {name: np.ascontiguousarray(array) for name, array in first.feeds.items()}
    else:
        feeds = {name: np.concatenate([block.feeds[name] for block in blocks]) for name in first.feeds}
    names = tuple(name for block in blocks for name in block.names)
    return Batch(feeds, len(names), names, tuple(index for block in blocks for index in block.indices))


def pad_batch(array: Array, size: int) -> Array:
    """Return an array `(n, *sample)` with its last sample repeated until there are `size` samples."""
    missing = size - len(array)
    return array if missing <= 0 else np.concatenate([array, np.repeat(array[-1:], missing, axis=0)])


def model_feeds(specs: Sequence[InputSpec], feeds: Mapping[str, Array], size: int) -> dict[str, Array]:
    """Return what a model is fed for samples: each input padded to `size` samples, on its own axis of samples.

    Inputs that have one value for all samples are added.
    """
    fed: dict[str, Array] = {}
    for spec in specs:
        if spec.value is not None:
            fed[spec.name] = spec.repeated(size)
        else:
            array = pad_batch(feeds[spec.name], size)
            fed[spec.name] = np.ascontiguousarray(np.moveaxis(array, 0, spec.batch)) if spec.batch else array
    return fed


def check_batch(model: Model, asked: int | None) -> int | None:
    """Return the batch size that the model fixes, None if it leaves that open. Raises OptionError as `usual_batch`."""
    fixed = fixed_batch(input_specs(model))
    if fixed is not None and asked not in {None, fixed}:
        raise OptionError(
            f"--batch-size {asked} does not fit the model, whose batch is fixed to {fixed}; leave --batch-size out"
        )
    return fixed


def usual_batch(model: Model, asked: int | None, *, tell: bool = True) -> int:
    """Return how many samples a model is fed at a time: what was asked for, its own number, 1 if it needs that, else 8.

    With `tell`, there is a warning if it needs one sample at a time.

    Raises OptionError if the model fixes another number than was asked for.
    """
    fixed = check_batch(model, asked)
    if asked or fixed:
        return asked or fixed or DEFAULT_BATCH
    reason = why_single(model)
    if reason is None:
        return DEFAULT_BATCH
    if tell:
        warnings.warn(BatchWarning(reason), stacklevel=3)
    return 1
