"""Runs chunks of cases, each in a process of its own, and goes on after a case that ends its process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tools.fuzz.findings import ROOT, Finding, frames_of_dump
from tools.fuzz.worker import BASE, BEGUN, FAILED, FINDINGS, LOG, MEMORY, REFUSED, RESULTS, map_state, peak_memory

__all__ = ["SECONDS", "Tally", "run_cases"]

SECONDS = 10
"""Seconds that a case may take, unless others are given."""
_CHUNK = 50_000
_STARTING = 600.0  # seconds until a new process must have begun its first case
_WAITS = 6  # a machine that is busy with other things must not make findings
_TICK = 0.02  # seconds
_EXCERPT = 0.2  # seconds for a process to write its traceback

State: TypeAlias = NDArray[np.int64]


@dataclass
class Tally:
    """How the cases of a target ended.

    Attributes:
        outcomes: number of cases by outcome: "result", "refused", or the kind of a finding.
        findings: the first finding of each place.
        seconds: how long it took.
        after: the first seed after all that were begun.
    """

    outcomes: Counter[str] = field(default_factory=Counter)
    findings: dict[tuple[str, str, str], Finding] = field(default_factory=dict)
    seconds: float = 0.0
    after: int = 0

    @property
    def executions(self) -> int:
        """Number of cases."""
        return self.outcomes.total()

    def add(self, finding: Finding) -> bool:
        """Count a finding, and return whether it is the first one of its place."""
        self.outcomes[finding.kind] += 1
        return self.findings.setdefault(finding.key, finding) is finding


@dataclass(frozen=True)
class _Run:
    """What all chunks of a target have in common; each thread of `run_cases` runs one chunk after the other.

    Attributes:
        target: name of the target.
        limit: seconds of computing that a case may take, and `_WAITS` times as many on the clock until it waits.
        until: when the run ends, by the monotonic clock.
        found: called with the first finding of each place.
        tally: how the cases ended.
        lock: held while the tally is changed.
    """

    target: str
    limit: float
    until: float
    found: Callable[[Finding], None]
    tally: Tally
    lock: threading.Lock = field(default_factory=threading.Lock)

    def chunk(self, seeds: range) -> None:
        """Run cases, in several processes if cases end them."""
        while seeds and time.monotonic() < self.until:
            seeds = seeds[self._process(seeds) :]

    def _process(self, seeds: range) -> int:
        """Run cases in one process, count how they ended, and return how many did."""
        with _ram_folder() as name:
            folder = Path(name)
            state = map_state(folder)
            command = [sys.executable, "-m", "tools.fuzz.worker", self.target, str(seeds.start), str(len(seeds)), name]
            with subprocess.Popen(command, cwd=ROOT) as process:
                try:
                    last, finding = self._watch(process, state, folder / LOG)
                finally:
                    process.kill()
            entries = [json.loads(line) for line in (folder / FINDINGS).read_text("utf-8").splitlines()]
        begun, running = _progress(state)
        if running and finding and last == begun:
            entries.append({"seed": seeds[begun - 1]} | finding)
        elif running:  # ended from here, and not for what it did
            begun -= 1
        with self.lock:
            self._count(state, entries)
            self.tally.after = max(self.tally.after, seeds.start + begun)
        return begun

    def _watch(self, process: subprocess.Popen[bytes], state: State, log: Path) -> tuple[int, dict[str, Any]]:
        """Wait for the end of the process, or end it; return how many cases were begun, and what the last one did."""
        begun, since, used = 0, time.monotonic(), 0.0
        while (code := process.poll()) is None:
            time.sleep(_TICK)
            now, (latest, running) = time.monotonic(), _progress(state)
            if latest != begun or (begun and not running):
                begun, since, used = latest, now, _computing(process.pid)[0]
            if begun and now > self.until:
                return begun, {}
            took = now - since
            if not begun and took > _STARTING:
                raise RuntimeError(f"the fuzzer's own process does not start: {process.args!r}\n{_read(log)}")
            computed, waits = _computing(process.pid)
            late = computed - used > self.limit or (waits and took > _WAITS * self.limit)
            if begun and took > self.limit and late:
                return begun, _interrupted(process, log, "time")
            if running and peak_memory(process.pid) - state[BASE] > MEMORY:
                return begun, _interrupted(process, log, "memory")
        begun, running = _progress(state)
        if code and not running:
            raise RuntimeError(f"the fuzzer itself failed: {process.args!r}\n{_read(log)}")
        return begun, _finding("crash", log, f"exit status {code}")

    def _count(self, state: State, entries: Iterable[dict[str, Any]]) -> None:
        self.tally.outcomes.update(result=int(state[RESULTS]), refused=int(state[REFUSED]))
        for entry in entries:
            frames = [(file, line, name) for file, line, name in entry["frames"]]
            finding = Finding(self.target, entry["seed"], entry["kind"], entry["said"], frames, entry["text"])
            if self.tally.add(finding):
                self.found(finding)


def run_cases(
    target: str,
    first: int,
    cases: int | None,
    seconds: float,
    found: Callable[[Finding], None] = lambda _: None,
    limit: float = SECONDS,
    jobs: int = 1,
) -> Tally:
    """Run the cases with the seeds `first`, `first` + 1, ... of a target.

    Args:
        target: name of the target.
        first: seed of the first case.
        cases: number of cases; None for as many as the time allows.
        seconds: after this time the run ends.
        found: called with the first finding of each place.
        limit: seconds that a case may compute; waiting counts less.
        jobs: number of processes at a time; each takes the next chunk of seeds.
    """
    started = time.monotonic()
    run = _Run(target, limit, started + seconds, found, Tally(after=first))
    stop = sys.maxsize if cases is None else first + cases
    size = _CHUNK if cases is None else min(_CHUNK, -(-cases // jobs))
    starts = count(first, max(size, 1))

    def work(_: int) -> None:
        while (start := next(starts)) < stop and time.monotonic() < run.until:
            run.chunk(range(start, min(start + size, stop)))

    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(work, range(jobs)))
    run.tally.seconds = time.monotonic() - started
    return run.tally


def _ram_folder() -> tempfile.TemporaryDirectory[str]:
    """Return a folder of a file system in memory, where there is one: files of a case are small and live shortly."""
    ram = "/dev/shm"
    return tempfile.TemporaryDirectory(prefix="onnxnorm-fuzz-", dir=ram if os.access(ram, os.W_OK) else None)


def _computing(process: int) -> tuple[float, bool]:
    """Return the seconds that a process has computed, and whether it waits; where a system does not tell, the clock."""
    try:
        numbers = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return time.monotonic(), True
    return (int(numbers[11]) + int(numbers[12])) / os.sysconf("SC_CLK_TCK"), numbers[0] != "R"


def _progress(state: State) -> tuple[int, bool]:
    """Return how many cases were begun, and whether the last one still runs."""
    begun, ended = int(state[BEGUN]), int(state[RESULTS] + state[REFUSED] + state[FAILED])
    return begun, begun > ended


def _interrupted(process: subprocess.Popen[bytes], log: Path, kind: str) -> dict[str, Any]:
    """End a case over its limits, and return it with a traceback of what it was at."""
    if hasattr(signal, "SIGUSR1"):
        os.kill(process.pid, signal.SIGUSR1)
        time.sleep(_EXCERPT)
    process.kill()
    return _finding(kind, log)


def _finding(kind: str, log: Path, said: str = "") -> dict[str, Any]:
    text = _read(log)
    return {"kind": kind, "said": said, "frames": frames_of_dump(text), "text": text}


def _read(log: Path) -> str:
    return log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
