"""Working ahead: in order, bounded, and stopped by closing."""

from __future__ import annotations

import threading
import time
from collections.abc import Generator

import pytest

from onnxnorm.threads import available_threads, map_ahead, run_ahead


def data_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("onnxnorm-data")]


def test_results_come_in_order_however_long_they_take() -> None:
    def slow_when_even(number: int) -> int:
        time.sleep(0.005 * (number % 2 == 0))
        return number

    assert list(map_ahead(slow_when_even, range(20), threads=4, ahead=6)) == list(range(20))


def test_no_more_than_the_bound_is_begun() -> None:
    begun: list[int] = []
    results = map_ahead(begun.append, range(1000), threads=4, ahead=5)
    for _ in range(3):
        next(results)
    results.close()
    assert len(begun) <= 3 + 5


def test_closing_ends_the_threads() -> None:
    results = map_ahead(str, range(1000), threads=4, ahead=5)
    next(results)
    assert data_threads()
    results.close()
    assert not data_threads()


def test_an_error_arrives_in_its_place() -> None:
    results = map_ahead(lambda number: 1 / number, [1, 1, 0, 1], threads=2, ahead=4)
    assert [next(results), next(results)] == [1, 1]
    with pytest.raises(ZeroDivisionError):
        next(results)
    assert not data_threads()


def test_a_generator_runs_ahead_and_is_closed() -> None:
    closed = False

    def numbers() -> Generator[int, None, None]:
        nonlocal closed
        try:
            yield from range(100)
        finally:
            closed = True

    assert list(run_ahead(numbers(), ahead=3)) == list(range(100))
    assert closed
    closed = False
    items = run_ahead(numbers(), ahead=3)
    assert next(items) == 0
    items.close()
    assert closed


def test_there_is_a_core() -> None:
    assert available_threads() >= 1
