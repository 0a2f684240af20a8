"""One clock for everyone who is measured; the standard library alone, for it also runs in PyTorch's interpreter."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

__all__ = ["Clock"]


class Clock:
    """Reads the time when a call begins, whenever a batch is done, and when all is.

    `ms` is the wall time per image once it runs: from the end of each thread's first batch to the end of the last one,
    over the images in between. `cpu` is the process's CPU time over the same images, in all its threads. `seconds`
    is the whole call: what it sets up before, the first batch, and what it makes of its numbers after the last one.
    """

    def __init__(self) -> None:
        self._begun = time.perf_counter()
        self._batches: list[tuple[float, float, int | None]] = []

    def batch(self, progress: object = None) -> None:
        """A batch is done; `progress.done`, if there is one, is how many images are done by now."""
        self._batches.append((time.perf_counter(), time.process_time(), getattr(progress, "done", None)))

    def report(self, given: Mapping[str, Any]) -> dict[str, float]:
        """The times, for all images that were to be measured."""
        ended = time.perf_counter()
        lanes = 1 if self._batches[0][2] is None else given["threads"]  # whose first batches end at the same time
        (first, first_cpu, done), (last, last_cpu, _) = self._batches[lanes - 1], self._batches[-1]
        images = given["images"]
        between = (images - (given["batch"] if done is None else done)) / 1000
        return {
            "ms": (last - first) / between,
            "cpu": (last_cpu - first_cpu) / between,
            "seconds": ended - self._begun,
            "images": images,
        }
