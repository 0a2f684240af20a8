"""Computing items in threads ahead of their consumer, in order and at most a given number ahead."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import repeat
from typing import TypeVar

__all__ = ["RunConcurrency", "available_threads", "map_ahead", "run_ahead"]

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class RunConcurrency:
    """How samples are run through a network.

    Attributes:
        runs: number of runs at a time.
        size: number of samples in each run.
        threads: number of threads of each run; None for one per core.
    """

    runs: int
    size: int
    threads: int | None


def available_threads() -> int:
    """Number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def map_ahead(function: Callable[[T], R], items: Iterable[T], *, threads: int, ahead: int) -> Generator[R, None, None]:
    """Yield `function(item)` for every item, in order, with at most `ahead` results computed before they are asked for.

    Closing the generator cancels calls that have not begun and waits for those that have.
    """
    pending: deque[Future[R]] = deque()
    executor = ThreadPoolExecutor(threads, thread_name_prefix="onnxnorm-data")
    try:
        for item in items:
            pending.append(executor.submit(function, item))
            if len(pending) > ahead:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


def run_ahead(items: Generator[T, None, None], *, ahead: int) -> Generator[T, None, None]:
    """Yield the items (never None) of a generator that runs in a thread of its own and is closed with this one."""
    steps = map_ahead(lambda _: next(items, None), repeat(None), threads=1, ahead=ahead)
    try:
        for item in steps:
            if item is None:
                return
            yield item
    finally:
        steps.close()
        items.close()
