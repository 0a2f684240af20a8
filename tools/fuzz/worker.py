"""Runs cases of one target in a process of its own, and says of each how it ended, one JSON object a line.

    python -m tools.fuzz.worker TARGET FIRST COUNT SECONDS LOG

A case that takes longer than SECONDS ends the process, and so may one that crashes; tracebacks of those go to the file
LOG. The process that started this one watches its memory, and asks for a traceback by SIGUSR1 before it ends it.
"""

from __future__ import annotations

import faulthandler
import json
import os
import signal
import sys
import tempfile
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from onnxnorm.errors import OnnxnormError
from tools.fuzz.target import Files, Target, generator, load_target

__all__ = ["MEMORY", "SECONDS", "main", "peak_memory"]

SECONDS = 10
"""Seconds that a case may take, unless others are given."""
MEMORY = 1 << 30
"""Bytes of memory that a case may take, beyond what the process has before it."""
_ADDRESSES = 6 << 30  # of address space; more is refused, so that no case takes the memory of the machine


def peak_memory(process: int) -> int:
    """Return the largest memory of a process since it was last reset, in bytes; 0 on systems that do not tell."""
    try:
        text = Path(f"/proc/{process}/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith("VmHWM")), 0)


def main() -> int:
    """Run the cases FIRST, FIRST + 1, ... of a target."""
    name, first, count, seconds, log = sys.argv[1], *map(int, sys.argv[2:5]), sys.argv[5]
    target = load_target(name)
    with Path(log).open("w", encoding="utf-8") as stream, _said_aloud() as out:
        target.seeds()  # made before the first case, and no part of it
        _limit_addresses()
        faulthandler.enable(stream)
        if hasattr(faulthandler, "register"):
            faulthandler.register(signal.SIGUSR1, stream, all_threads=True)
        warnings.simplefilter("ignore")
        try:
            for seed in range(first, first + count):
                for entry in _run_case(target, seed, seconds, stream):
                    print(json.dumps(entry), file=out, flush=True)
        except Exception:
            traceback.print_exc(file=stream)
            raise
    return 0


def _said_aloud() -> IO[str]:
    """Return a stream for standard output, and send all else that is written there, by any library, nowhere."""
    kept = os.dup(1)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    return os.fdopen(kept, "w", encoding="utf-8")


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


def _run_case(target: Target, seed: int, seconds: int, log: IO[str]) -> Iterator[dict[str, Any]]:
    """Run a case, and yield its beginning and its end."""
    random = generator(target.name, seed)
    files = target.damage(random)
    _reset_peak()
    before = peak_memory(os.getpid())
    yield {"start": seed, "memory": before}
    with tempfile.TemporaryDirectory(prefix="onnxnorm-fuzz-") as folder:
        _write(Path(folder), files)
        log.seek(0)
        log.truncate()
        faulthandler.dump_traceback_later(seconds, exit=True, file=log)
        try:
            target.read(Path(folder), random)
            entry: dict[str, Any] = {"outcome": "result"}
        except OnnxnormError:
            entry = {"outcome": "refused"}
        except BaseException as error:  # noqa: BLE001 - whatever is raised here is what is looked for
            entry = _finding(error)
        finally:
            faulthandler.cancel_dump_traceback_later()
    if peak_memory(os.getpid()) - before > MEMORY:
        entry = {"outcome": "memory", "text": entry.get("text", ""), "frames": entry.get("frames", [])}
    yield entry | {"end": seed}


def _finding(error: BaseException) -> dict[str, Any]:
    frames = [(frame.filename, frame.lineno, frame.name) for frame in traceback.extract_tb(error.__traceback__)]
    text = "".join(traceback.format_exception(error))
    said = " ".join(str(error).split())[:200]
    return {"outcome": type(error).__name__, "said": said, "frames": frames, "text": text}


def _write(folder: Path, files: Files) -> None:
    for name, content in files.items():
        (folder / name).write_bytes(content)


def _reset_peak() -> None:
    """Let the peak of this process's memory begin anew; only Linux can."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return


if __name__ == "__main__":
    sys.exit(main())
