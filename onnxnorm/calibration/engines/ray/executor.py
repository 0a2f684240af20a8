"""Folders are listed by tasks of the cluster, some folders in each, by threads there.

What comes back is small (`listing.Opened`): bare names and 17 bytes a file. A task that is lost with its worker is done
again by Ray; it only reads.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from onnxnorm.data.files.listing import LocalExecutor
from onnxnorm.errors import DataError

__all__ = ["RayExecutor"]

T = TypeVar("T")
R = TypeVar("R")

_TASKS_A_WORKER = 4  # of a level, for folders differ
_MOST = 1024


@dataclass(frozen=True)
class RayExecutor:
    """As many tasks at a time as there are workers, and as many that wait for them."""

    ray: Any
    processes: int

    def map(self, function: Callable[[T], R], items: Sequence[T], threads: int) -> Iterator[R]:
        """The results."""
        task, given = self.ray.remote(num_cpus=1)(_listed), self.ray.put(function)
        each = min(max(1, -(-len(items) // (_TASKS_A_WORKER * self.processes))), _MOST)
        running: deque[Any] = deque()
        for start in range(0, len(items), each):
            running.append(task.remote(given, items[start : start + each], threads))
            if len(running) >= 2 * self.processes:
                yield from self._got(running.popleft())
        while running:
            yield from self._got(running.popleft())

    def _got(self, reference: Any) -> Any:
        try:
            return self.ray.get(reference)
        except self.ray.exceptions.RayTaskError as error:
            cause = error.cause
            if isinstance(cause, DataError):
                raise DataError(f"{cause}, says a worker of the cluster; all workers must reach DATA") from error
            raise cause from error


def _listed(function: Callable[[T], R], items: Sequence[T], threads: int) -> list[R]:
    """What one task does."""
    return list(LocalExecutor().map(function, items, threads))
