"""Run a command of onnxnorm in this process, as the console script does."""

from __future__ import annotations

import io
import json
import os
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from onnxnorm.cli import main

ROOT = Path(__file__).resolve().parents[2]
DEMO = ROOT / "models" / "demo_vgg.onnx"
IMAGES = ROOT / "models" / "images"
SOME = sorted(IMAGES.iterdir())[:6]


@dataclass(frozen=True)
class Ran:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """The one object on standard output."""
        assert self.out.count("\n") == 1, self.out
        found: dict[str, Any] = json.loads(self.out, parse_constant=lambda name: 1 / 0)
        return found

    @property
    def error(self) -> str:
        """The message of a command that failed: one or two lines, nothing on standard output, no traceback."""
        assert self.out == ""
        assert "Traceback" not in self.err
        assert self.err.startswith("error: ")
        assert self.err.count("\n") <= 2
        assert self.err.endswith("\n")
        assert "bug" not in self.err
        return self.err


def run(*words: str | os.PathLike[str]) -> Ran:
    """Run `onnxnorm words...`."""
    out, err = io.StringIO(), io.StringIO()
    argv = ["onnxnorm", *(str(os.fspath(word)) for word in words)]
    with mock.patch.object(sys, "argv", argv), redirect_stdout(out), redirect_stderr(err):
        try:
            main()
            code: Any = 0
        except SystemExit as exit_:
            code = exit_.code
    return Ran(0 if code is None else code, out.getvalue(), err.getvalue())


def succeeded(*words: str | os.PathLike[str]) -> Ran:
    """Run a command that must succeed."""
    ran = run(*words)
    assert ran.code == 0, ran.err
    return ran
