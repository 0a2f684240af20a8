"""Runs cases of one target in a process of its own, and tells the process that started it how they end.

    python -m tools.fuzz.worker TARGET FIRST COUNT FOLDER

What is told is in FOLDER, so that a case costs no message: `state`, a few numbers that both processes map; `findings`,
one JSON object a line; and `log`, the traceback of a crash, or the one that is asked for by SIGUSR1. The files of each
case are written to FOLDER/case. The other process watches time and memory, and ends this one where a case exceeds them.
"""

from __future__ import annotations

import faulthandler
import json
import os
import shutil
import signal
import sys
import traceback
import warnings
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from onnxnorm import threads
from onnxnorm.errors import OnnxnormError
from tools.fuzz.target import Files, Target, generator, load_target

__all__ = [
    "BASE",
    "BEGUN",
    "FAILED",
    "FINDINGS",
    "LOG",
    "MEMORY",
    "REFUSED",
    "RESULTS",
    "main",
    "map_state",
    "peak_memory",
]

MEMORY = 1 << 30
"""Bytes of memory that a case may take, beyond what the process has before it."""
FINDINGS, LOG, _STATE, _CASE = "findings", "log", "state", "case"
BEGUN, RESULTS, REFUSED, FAILED, BASE = range(5)
"""Places in the state: the numbers of cases begun, and by how they ended; and the memory before the one that runs."""
_ADDRESSES = 6 << 30  # of address space; more is refused, so that no case takes the memory of the machine
_STEP = 16 << 20  # the peak of the memory begins anew after a case that raised it by more, which is not done each time


def main() -> int:
    """Run the cases FIRST, FIRST + 1, ... of a target."""
    name, first, count, folder = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])
    target = load_target(name)
    with (folder / LOG).open("w", encoding="utf-8") as log, (folder / FINDINGS).open("w", encoding="utf-8") as findings:
        _silence()
        try:
            warnings.simplefilter("ignore")
            vars(threads)["ThreadPoolExecutor"] = _AtOnce
            (folder / _CASE).mkdir()
            _warm_up(target, folder / _CASE)
            _limit_addresses()
            faulthandler.enable(log)
            if hasattr(faulthandler, "register"):
                faulthandler.register(signal.SIGUSR1, log, all_threads=True)
            _run_cases(target, range(first, first + count), folder, findings)
        except Exception:
            traceback.print_exc(file=log)
            raise
    return 0


def map_state(folder: Path) -> NDArray[np.int64]:
    """Return the state, which both processes map; it is made where it is not there."""
    path = folder / _STATE
    return np.memmap(path, np.int64, "r+" if path.exists() else "w+", shape=(BASE + 1,)).view(np.ndarray)


def peak_memory(process: int) -> int:
    """Return the largest memory of a process since it was last reset, in bytes; 0 on systems that do not tell.

    `getrusage` tells more than that: a process begins with the largest memory of the one that started it.
    """
    try:
        text = Path(f"/proc/{process}/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith("VmHWM")), 0)


def _silence() -> None:
    """Send all that is written to the standard streams, by any library, nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)


class _AtOnce(ThreadPoolExecutor):
    """Calls functions at once, in the thread that asks: a case that reads one file ahead would mostly wait."""

    def submit(self, function: Callable[..., Any], /, *items: Any, **named: Any) -> Future[Any]:
        """Call the function, and return what it returns or raises."""
        future: Future[Any] = Future()
        try:
            future.set_result(function(*items, **named))
        except BaseException as error:  # noqa: BLE001 - as in a thread
            future.set_exception(error)
        return future


def _warm_up(target: Target, case: Path) -> None:
    """Read all seeds, so that no case pays for imports and for tables that are made once."""
    for number, files in enumerate(target.seeds().values()):
        _run_case(target, case, files, generator(target.name, number))


def _limit_addresses() -> None:
    try:
        import resource
    except ImportError:  # Windows
        return
    resource.setrlimit(resource.RLIMIT_AS, (_used_addresses() + _ADDRESSES, resource.RLIM_INFINITY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _used_addresses() -> int:
    try:
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * os.sysconf("SC_PAGESIZE")
    except OSError:
        return 1 << 36


def _run_cases(target: Target, seeds: range, folder: Path, findings: IO[str]) -> None:
    state, case = map_state(folder), folder / _CASE
    state[BASE] = _reset_peak()
    parent = os.getppid()
    for seed in seeds:
        if os.getppid() != parent:
            return  # it was killed, so nobody watches
        random = generator(target.name, seed)
        files = target.damage(random)
        state[BEGUN] += 1
        outcome, finding = _run_case(target, case, files, random)
        peak = peak_memory(os.getpid())
        if peak - state[BASE] > MEMORY:
            outcome, finding = FAILED, finding | {"kind": "memory", "said": ""}
        if peak - state[BASE] > _STEP:
            state[BASE] = _reset_peak()
        if outcome == FAILED:
            print(json.dumps({"seed": seed} | finding), file=findings, flush=True)
        state[outcome] += 1


def _run_case(target: Target, folder: Path, files: Files, random: np.random.Generator) -> tuple[int, dict[str, Any]]:
    """Read the files of a case, and return how it ended, and what is to be said about it."""
    for name, content in files.items():
        with open(os.path.join(folder, name), "wb") as stream:
            stream.write(content)
    try:
        target.read(folder, random)
    except OnnxnormError:
        return REFUSED, {}
    except BaseException as error:  # noqa: BLE001 - whatever is raised here is what is looked for
        return FAILED, _said(error)
    finally:
        _empty(folder)
    return RESULTS, {}


def _said(error: BaseException) -> dict[str, Any]:
    frames = [(frame.filename, frame.lineno, frame.name) for frame in traceback.extract_tb(error.__traceback__)]
    text = "".join(traceback.format_exception(error))
    return {"kind": type(error).__name__, "said": " ".join(str(error).split())[:200], "frames": frames, "text": text}


def _empty(folder: Path) -> None:
    for name in os.listdir(folder):
        path = os.path.join(folder, name)
        try:
            os.unlink(path)
        except OSError:
            shutil.rmtree(path)


def _reset_peak() -> int:
    """Let the peak of this process's memory begin anew, which only Linux can, and return it."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return 0
    return peak_memory(os.getpid())


if __name__ == "__main__":
    sys.exit(main())
