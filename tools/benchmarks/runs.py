"""Measuring side by side: every measurement is a process of its own, and rounds take turns (A B C A B C ...).

A process reports its own times as one line of JSON; its peak memory is what the kernel says about it (`wait4`), all
that was resident, libraries and mapped files included. On Linux a child starts with the peak of the process that
spawned it, so this module, and whoever uses it, loads nothing large.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["Case", "Machine", "MeasurementError", "Result", "Results", "compare", "mebibytes", "perform", "table"]

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Machine:
    """Where and how measurements run: threads for everyone, rounds, and the interpreters."""

    threads: int
    rounds: int
    quick: bool
    work: Path
    torch_python: str | None


@dataclass(frozen=True)
class Case:
    """One thing to measure: a worker's task with its arguments, or a command, which reports only if `reports`.

    `rounds` caps how often it is measured, `limit` is the time in seconds after which it is given up.
    """

    name: str
    task: str = ""
    given: Mapping[str, Any] = field(default_factory=dict)
    command: tuple[str, ...] = ()
    reports: bool = True
    rounds: int = 1 << 30
    limit: float = 300


@dataclass(frozen=True)
class Result:
    """What one process came to: its wall time, its peak memory in bytes, and the numbers that it reported itself."""

    wall: float
    memory: int
    report: Mapping[str, Any]


class MeasurementError(Exception):
    """A measurement that did not come to an end; the message says why."""


@dataclass
class Results:
    """All rounds of some cases, by name; `failed` says why a case has none."""

    rounds: dict[str, list[Result]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    def has(self, name: str) -> bool:
        """Whether the case was measured."""
        return bool(self.rounds.get(name))

    def reports(self, name: str, key: str) -> bool:
        """Whether the case's processes report this number."""
        return all(key in result.report for result in self.rounds[name])

    def numbers(self, name: str, key: str) -> list[float]:
        """One number per round: `wall`, `memory`, or what the process reported under this name."""
        own = {"wall", "memory"}
        return [float(getattr(r, key) if key in own else r.report[key]) for r in self.rounds.get(name, [])]

    def median(self, name: str, key: str) -> float:
        """The median over the rounds."""
        return statistics.median(self.numbers(name, key))

    def ratio(self, name: str, other: str, key: str) -> float:
        """The median over the rounds of the ratio of two cases, each round by itself, since machines drift."""
        pairs = zip(self.numbers(name, key), self.numbers(other, key), strict=False)
        return statistics.median(mine / theirs for mine, theirs in pairs)

    def notes(self) -> list[str]:
        """One line per case that failed."""
        return [f"*{name}* was not measured: {reason}." for name, reason in self.failed.items()]


def compare(cases: Sequence[Case], rounds: int) -> Results:
    """Measure all cases in turns. A case that fails once is left out from then on."""
    results = Results()
    for number in range(rounds):
        for case in cases:
            if case.name in results.failed or number >= case.rounds:
                continue
            try:
                result = perform(case)
            except MeasurementError as error:
                results.failed[case.name] = str(error)
                print(f"  round {number + 1}: {case.name}: {error}", flush=True)
                continue
            results.rounds.setdefault(case.name, []).append(result)
            print(f"  round {number + 1}: {case.name}: {_short(result)}", flush=True)
    return results


def perform(case: Case) -> Result:
    """Run one case in a process of its own. Raises MeasurementError."""
    command = case.command or (sys.executable, "-m", "tools.benchmarks.workers", case.task, json.dumps(case.given))
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = dict(os.environ) | {"PYTHONPATH": os.pathsep.join(paths)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed package is compiled once
    os.sync()  # so that nobody pays for what another one wrote
    with tempfile.TemporaryFile() as said, tempfile.TemporaryFile() as complained:
        started = time.perf_counter()
        child = subprocess.Popen(command, stdout=said, stderr=complained, env=environment)
        timer = threading.Timer(case.limit, child.kill)
        timer.start()
        try:
            _, status, usage = os.wait4(child.pid, 0)
        except BaseException:
            child.kill()
            raise
        finally:
            timer.cancel()
        wall = time.perf_counter() - started
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode:
            late = f"given up after {case.limit:.0f} s"
            raise MeasurementError(
                late if wall >= case.limit else _last_line(complained) or f"exit code {child.returncode}"
            )
        report = json.loads(_last_line(said)) if case.reports else {}
    return Result(wall, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024), report)


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; all columns but the first are numbers."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def mebibytes(size: float) -> str:
    """A size in MiB."""
    return f"{size / 2**20:,.0f}"


def _short(result: Result) -> str:
    numbers = [f"{key} {value:.4g}" for key, value in result.report.items() if isinstance(value, int | float)]
    return ", ".join([f"{result.wall:.2f} s", f"{mebibytes(result.memory)} MiB", *numbers])


def _last_line(stream: Any) -> str:
    stream.seek(0)
    lines = stream.read().decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else ""
