"""Divides the samples into chunks, and records which chunks are still to be sent to workers.

**Size.** Chunks shrink towards the end, so that no worker finishes long after the others: each chunk is a small share
of the samples left, from one batch to `_MOST` batches. The driver adds up one result at a time; from `_EASY` workers
on, chunks are larger in proportion, so that the driver keeps up. `tools/measurements/scaling.py` measures this.

**Each sample once.** A sample is in one chunk only, and a lost chunk is sent again unchanged. With a limit, no more
samples are sent than may still be measured; for each one that turns out to be unusable, another is sent.

Source: guided self-scheduling; Polychronopoulos and Kuck, IEEE Transactions on Computers, 1987.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice

import numpy as np

from onnxnorm.calibration.engines.ray.worker import Chunk
from onnxnorm.calibration.job import Job

__all__ = ["OUTSTANDING", "ChunkQueue", "chunk_size"]

OUTSTANDING = 2  # chunks sent to each worker at a time, so that it never waits for the driver
_SHARES = 4
_MOST = 8
_EASY = 1000
_STRETCH = 1 << 16


def chunk_size(left: int, batch: int, workers: int) -> int:
    """Return the number of samples in the next chunk.

    Args:
        left: number of samples still to be sent.
        batch: number of samples in a batch.
        workers: number of workers.
    """
    scale = max(1, workers // _EASY)
    share = left // (_SHARES * OUTSTANDING * workers * batch)
    return batch * min(max(share, scale), _MOST * scale)


@dataclass
class ChunkQueue:
    """The chunks that are still to be sent: lost ones first, then new ones in order.

    Attributes:
        job: the job.
        workers: number of workers.
        lost: chunks to be sent again, and how often each was lost.
        open: number of samples that the limit still allows.
    """

    job: Job
    workers: int
    lost: deque[tuple[Chunk, int]] = field(default_factory=deque)
    open: float = float("inf")

    def __post_init__(self) -> None:
        total, selection = self.job.dataset.total or 0, self.job.selection
        self._indices = self._walk(total)
        self._ahead = selection.shard.size(total) - len(selection.done)
        if self.job.options.limit is not None:
            self.open = self.job.options.limit - selection.measured

    @property
    def left(self) -> int:
        """Number of samples that may still be sent for the first time."""
        return max(0, int(min(self.open, self._ahead)))

    def __bool__(self) -> bool:
        return bool(self.lost or self.left)

    def next(self) -> tuple[Chunk, int]:
        """Remove a chunk, and return it with the number of times it was lost. The queue must not be empty."""
        if self.lost:
            return self.lost.popleft()
        count = min(self.left, chunk_size(self.left, self.job.batch_size, self.workers))
        indices = np.fromiter(islice(self._indices, count), np.int64)
        self.open -= len(indices)
        self._ahead -= len(indices)
        return Chunk(indices, tuple(self.job.dataset.select(indices))), 0

    def _walk(self, total: int) -> Iterator[int]:
        for start in range(0, total, _STRETCH):
            yield from self.job.selection.among(start, min(start + _STRETCH, total)).tolist()
