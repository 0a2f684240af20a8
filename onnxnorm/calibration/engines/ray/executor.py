"""Lists folders in tasks of the cluster, several folders in each task, with threads.

Results are small (`listing.Opened`): a bare name and 17 bytes for each file. Ray repeats a task that is lost with its
worker, which is safe because tasks only read.
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

_TASKS_A_WORKER = 4  # tasks for each worker in one level: several, because some folders take longer
_MOST = 1024


@dataclass(frozen=True)
class RayExecutor:
    """Runs listing tasks on the cluster: as many as there are workers, and as many that wait."""

    ray: Any
    processes: int

    def map(self, function: Callable[[T], R], items: Sequence[T], threads: int) -> Iterator[R]:
        """Yield the results in order. Raises DataError if a worker cannot read the data."""
        task, shared = self.ray.remote(num_cpus=1)(_listed), self.ray.put(function)
        each = min(max(1, -(-len(items) // (_TASKS_A_WORKER * self.processes))), _MOST)
        running: deque[Any] = deque()
        for start in range(0, len(items), each):
            running.append(task.remote(shared, items[start : start + each], threads))
            if len(running) >= 2 * self.processes:
                yield from self._result(running.popleft())
        while running:
            yield from self._result(running.popleft())

    def _result(self, reference: Any) -> Any:
        try:
            return self.ray.get(reference)
        except self.ray.exceptions.RayTaskError as error:
            cause = error.cause
            if isinstance(cause, DataError):
                raise DataError(f"{cause}, says a worker of the cluster; all workers must reach DATA") from error
            raise cause from error


def _listed(function: Callable[[T], R], items: Sequence[T], threads: int) -> list[R]:
    """Run one task: call the function for some items."""
    return list(LocalExecutor().map(function, items, threads))
