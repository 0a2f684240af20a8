"""The tasks that a process of a benchmark can be asked to do, by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["TASKS", "Given", "Report", "task"]

Given = dict[str, Any]
Report = dict[str, Any]

TASKS: dict[str, Callable[[Given], Report]] = {}


def task(function: Callable[[Given], Report]) -> Callable[[Given], Report]:
    """Register a task under the function's name."""
    TASKS[function.__name__] = function
    return function
