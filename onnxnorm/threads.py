"""Threads: items computed ahead of their consumer, in order and at most a given number; native code that can end."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import repeat
from typing import TypeVar

__all__ = ["RunConcurrency", "available_threads", "map_ahead", "run_ahead", "stop_all", "stoppable"]

T = TypeVar("T")
R = TypeVar("R")

_stops: dict[object, Callable[[], None]] = {}
_stopped = threading.Event()


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


def stoppable(call: Callable[[], R], stop: Callable[[], None]) -> R:
    """Call native code so that a signal ends it: it sees none itself, and Python's handlers would wait for its end.

    Args:
        call: calls it. Where this is the main thread, which is the one that handles signals, it is called in another.
        stop: lets it end soon, with any error. It is called from another thread, after a KeyboardInterrupt in the main
            thread or by `stop_all`.

    Raises:
        KeyboardInterrupt: after `stop_all`.
    """
    if _stopped.is_set():
        raise KeyboardInterrupt
    key = object()
    _stops[key] = stop
    try:
        if threading.current_thread() is not threading.main_thread():
            return call()
        with ThreadPoolExecutor(1, thread_name_prefix="onnxnorm-native") as pool:
            future = pool.submit(call)
            try:
                return future.result()
            except KeyboardInterrupt:
                stop()
                raise
    finally:
        del _stops[key]


def stop_all() -> None:
    """Stop whatever `stoppable` calls at this moment, and let it call nothing more, since the process is to end."""
    _stopped.set()
    for stop in list(_stops.values()):
        stop()
