"""Findings: cases that ended in neither a result nor an OnnxnormError, one for each place where they arose."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tools.fuzz.target import Files

__all__ = ["Finding", "Frame", "frames_of_dump", "save_finding"]

ROOT = Path(__file__).resolve().parents[2]
_PACKAGE = str(ROOT / "onnxnorm")
_DUMPED = re.compile(r'^  File "(.*)", line (\d+) in (.*)$', re.MULTILINE)

Frame = tuple[str, int, str]
"""File, line, and name of a function; in a list of them the innermost is the last."""


@dataclass(frozen=True)
class Finding:
    """A case that failed.

    Attributes:
        target: name of the target.
        seed: the seed that repeats it.
        kind: the name of an exception, or "time", "memory", "crash".
        said: what the exception said.
        frames: the functions that ran.
        text: the traceback.
    """

    target: str
    seed: int
    kind: str
    said: str
    frames: Sequence[Frame]
    text: str

    @property
    def raised(self) -> str:
        """Where it arose, as `file:line`."""
        return _place(self.frames[-1]) if self.frames else "?"

    @property
    def ours(self) -> str:
        """The innermost place in onnxnorm."""
        inside = [frame for frame in self.frames if frame[0].startswith(_PACKAGE)]
        return _place(inside[-1]) if inside else "?"

    @property
    def key(self) -> tuple[str, str, str]:
        """What two findings of one place have in common; a case over its limits is interrupted anywhere."""
        return (self.kind, "" if self.kind in {"time", "memory"} else self.raised, self.ours)

    @property
    def command(self) -> str:
        """The command that repeats it."""
        return f"python -m tools.fuzz.run --target {self.target} --seed {self.seed} --cases 1"

    def __str__(self) -> str:
        where = self.ours if self.raised == self.ours else f"{self.ours} ({self.raised})"
        return f"{self.kind} at {where}, seed {self.seed}: {self.said}".rstrip(": ")


def frames_of_dump(text: str) -> list[Frame]:
    """Return the functions of the thread of the case in a dump by faulthandler, the innermost last."""
    threads = re.split(r"^(?:Current thread|Thread) .*$", text, flags=re.MULTILINE)
    dumps = [[(file, int(line), name) for file, line, name in _DUMPED.findall(thread)] for thread in threads]
    return next((frames for frames in dumps if any(name == "_run_case" for _, _, name in frames)), [])[::-1]


def save_finding(finding: Finding, files: Files, folder: Path) -> None:
    """Write the files of the case, and a report with its traceback, below `folder`."""
    place = re.sub(r"[^\w.]+", "-", f"{finding.kind}-{Path(finding.ours).name}")
    target = folder / finding.target / f"{place}-{finding.seed}"
    target.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (target / name).write_bytes(content)
    (target / "report.txt").write_text(f"{finding}\n{finding.command}\n\n{finding.text}", encoding="utf-8")


def _place(frame: Frame) -> str:
    file = frame[0].removeprefix(f"{ROOT}/")
    return f"{file.rpartition('/site-packages/')[2]}:{frame[1]}"
