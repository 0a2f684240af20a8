"""Runs chunks of cases, each in a process of its own, and goes on after a case that ends its process."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from tools.fuzz.findings import ROOT, Finding, frames_of_dump
from tools.fuzz.worker import MEMORY, SECONDS, peak_memory

__all__ = ["Tally", "run_cases"]

_CHUNK = 2000
_STARTING = 120.0  # seconds until a new process must have started its first case
_GRACE = 5.0  # seconds beyond a case's own limit, until its process is ended from here
_TICK = 0.02
_EXCERPT = 0.2  # seconds for a process to write its traceback


@dataclass
class Tally:
    """How the cases of a target ended.

    Attributes:
        outcomes: number of cases by outcome: "result", "refused", or the kind of a finding.
        findings: the first finding of each place.
        seconds: how long it took.
    """

    outcomes: Counter[str] = field(default_factory=Counter)
    findings: dict[tuple[str, str, str], Finding] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def executions(self) -> int:
        """Number of cases."""
        return self.outcomes.total()

    def add(self, finding: Finding) -> bool:
        """Count a finding, and return whether it is the first one of its place."""
        self.outcomes[finding.kind] += 1
        return self.findings.setdefault(finding.key, finding) is finding


def run_cases(
    target: str,
    first: int,
    cases: int | None,
    seconds: float,
    found: Callable[[Finding], None] = lambda _: None,
    limit: int = SECONDS,
) -> Tally:
    """Run the cases with the seeds `first`, `first` + 1, ... of a target.

    Args:
        target: name of the target.
        first: seed of the first case.
        cases: number of cases; None for as many as the time allows.
        seconds: after this time no case is begun.
        found: called with the first finding of each place.
        limit: seconds that a case may take.
    """
    tally, started = Tally(), time.monotonic()
    seed, stop = first, None if cases is None else first + cases
    while (stop is None or seed < stop) and time.monotonic() - started < seconds:
        count = _CHUNK if stop is None else min(_CHUNK, stop - seed)
        for entry in _chunk(target, seed, count, limit, started + seconds):
            seed = entry["end"] + 1
            if entry["outcome"] in {"result", "refused"}:
                tally.outcomes[entry["outcome"]] += 1
                continue
            frames = [(file, line, name) for file, line, name in entry["frames"]]
            finding = Finding(target, entry["end"], entry["outcome"], entry.get("said", ""), frames, entry["text"])
            if tally.add(finding):
                found(finding)
    tally.seconds = time.monotonic() - started
    return tally


def _chunk(target: str, first: int, count: int, limit: int, until: float) -> Iterator[dict[str, Any]]:
    """Yield how each case ended, in order; the last one is that which ended the process, if one did."""
    with tempfile.TemporaryDirectory(prefix="onnxnorm-fuzz-") as folder:
        log = Path(folder) / "log"
        numbers = map(str, (first, count, limit))
        command = [sys.executable, "-m", "tools.fuzz.worker", target, *numbers, str(log)]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
            try:
                yield from _entries(process, log, limit, until)
            finally:
                process.kill()


def _entries(process: subprocess.Popen[str], log: Path, limit: int, until: float) -> Iterator[dict[str, Any]]:
    assert process.stdout is not None
    lines: queue.Queue[str | None] = queue.Queue()
    threading.Thread(target=_pass_on, args=(process.stdout, lines), daemon=True).start()
    running: dict[str, Any] | None = None
    since, allowed = time.monotonic(), _STARTING
    while True:
        try:
            line = lines.get(timeout=_TICK)
        except queue.Empty:
            over = _over_limit(process, running, time.monotonic() - since > allowed)
            if over and running is None:
                raise RuntimeError(f"the fuzzer's own process does not start: {process.args!r}") from None
            if over and running is not None:
                yield _interrupted(process, log, running["start"], over)
                return
            continue
        if line is None:
            break
        entry = json.loads(line)
        if "end" in entry:
            running = None
            yield entry
            if time.monotonic() > until:
                return
        else:
            running, since, allowed = entry, time.monotonic(), limit + _GRACE
    code = process.wait()
    if running is not None:
        yield _ended(log, running["start"], code)
    elif code:
        raise RuntimeError(f"the fuzzer itself failed: {process.args!r}\n{log.read_text('utf-8')}")


def _pass_on(stream: IO[str], lines: queue.Queue[str | None]) -> None:
    for line in stream:
        lines.put(line)
    lines.put(None)


def _over_limit(process: subprocess.Popen[str], running: dict[str, Any] | None, late: bool) -> str:
    """Return which limit the case exceeds, in a word; an empty one for none."""
    if running is not None and peak_memory(process.pid) - running["memory"] > MEMORY:
        return "memory"
    return "time" if late else ""


def _interrupted(process: subprocess.Popen[str], log: Path, seed: int, kind: str) -> dict[str, Any]:
    """End a case over its limits, and return it with a traceback of what it was at."""
    if hasattr(signal, "SIGUSR1"):
        os.kill(process.pid, signal.SIGUSR1)
        time.sleep(_EXCERPT)
    process.kill()
    text = log.read_text(encoding="utf-8", errors="replace")
    return {"end": seed, "outcome": kind, "frames": frames_of_dump(text), "text": text}


def _ended(log: Path, seed: int, code: int) -> dict[str, Any]:
    """Return the case that ended its process, by taking too long or by a crash."""
    text = log.read_text(encoding="utf-8", errors="replace")
    kind = "time" if text.startswith("Timeout") else "crash"
    said = "" if kind == "time" else f"exit status {code}"
    return {"end": seed, "outcome": kind, "said": said, "frames": frames_of_dump(text), "text": text}
