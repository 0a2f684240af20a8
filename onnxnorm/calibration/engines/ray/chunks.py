"""Which samples go out together, and which are still to go.

**How large.** Chunks shrink towards the end, so that nobody is waited for: each is a small share of what is left
(guided self-scheduling; Polychronopoulos and Kuck, IEEE Transactions on Computers, 1987), from one batch to `_MOST`.
The driver takes in one result at a time; so from `_EASY` workers on chunks are larger in proportion, that it keeps up.
`tools/measurements/scaling.py` has the figures.

**Each once.** A sample is in one chunk only, and what comes back to be done again is the very chunk. With a limit, no
more samples are out than are still wanted; those that turn out to be unusable are made up for by the next ones.
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

OUTSTANDING = 2  # chunks at each worker, so that it never waits for the driver
_SHARES = 4
_MOST = 8
_EASY = 1000
_STRETCH = 1 << 16


def chunk_size(left: int, batch: int, workers: int) -> int:
    """Samples of the next chunk, if `left` are to be measured by `workers` in batches of `batch`."""
    scale = max(1, workers // _EASY)
    share = left // (_SHARES * OUTSTANDING * workers * batch)
    return batch * min(max(share, scale), _MOST * scale)


@dataclass
class ChunkQueue:
    """The chunks that are still to go out: lost ones first, then new ones in order."""

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
        """How many samples may still go out for the first time."""
        return max(0, int(min(self.open, self._ahead)))

    def __bool__(self) -> bool:
        return bool(self.lost or self.left)

    def next(self) -> tuple[Chunk, int]:
        """A chunk, and how often it was tried. There must be something to do."""
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
