"""Ctrl-C at any time, once or twice, and a file that shrinks: one message that is true, and no traceback."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from onnxnorm.atomic import files_written
from onnxnorm.cli.stopping import Stopping, stopping
from tests.helpers.commands import DEMO
from tests.helpers.graphs import model, rand

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals are those of POSIX")
# A module that is imported with the commands stops there until the signal comes.
IMPORTING = """
import builtins, os, signal
from onnxnorm.cli import main
usual = builtins.__import__
def importing(name, *rest):
    if name == "numpy":
        os.kill(os.getpid(), signal.SIG)
    return usual(name, *rest)
builtins.__import__ = importing
main()
"""
# The command is interrupted by one signal, and then by more of them while it stops.
TWICE = """
import os, signal, sys
from onnxnorm import api
from onnxnorm.cli import main
def rewrite(*words, **options):
    try:
        if done:
            usual(*words, **options)
        os.kill(os.getpid(), signal.SIG)
    finally:
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGTERM)
usual, api.rewrite = api.rewrite, rewrite
done = sys.argv.pop() == "done"
main()
"""
# The command is interrupted while the runtime computes.
RUNNING = """
import os, signal, threading
from onnxnorm.cli import main
from onnxnorm.runtime import Session
def run(*words):
    threading.Timer(1, os.kill, (os.getpid(), signal.SIGTERM)).start()
    return usual(*words)
usual, Session._run = Session._run, run
main()
"""
SHRINKING = """
import hashlib, mmap, os, sys
from onnxnorm.cli.stopping import stopping
with stopping(), open(sys.argv[1], "r+b") as file:
    data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    file.truncate(100)
    hashlib.sha256(data) if sys.argv[2] == "free" else data.find(b"x")
"""


def ended(code: str, *words: object) -> tuple[int, str, str]:
    command = [sys.executable, "-c", code, *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("kind", ["SIGINT", "SIGTERM"])
def test_during_imports(kind: str) -> None:
    assert ended(IMPORTING.replace("SIG)", f"{kind})"), "plan", DEMO) == (130, "", "interrupted; nothing was written\n")


@pytest.mark.parametrize("kind", ["SIGINT", "SIGTERM"])
def test_twice(kind: str, tmp_path: Path) -> None:
    out = tmp_path / "out.onnx"
    words = ["rewrite", DEMO, "--statistic", "weights", "-o", out]
    code = TWICE.replace("signal.SIG)", f"signal.{kind})")
    assert ended(code, *words, "not") == (130, "", "interrupted; nothing was written\n")
    assert list(tmp_path.iterdir()) == []
    assert ended(code, *words, "done") == (130, "", f"interrupted; written by then: {out}\n")
    assert [path.name for path in tmp_path.iterdir()] == ["out.onnx"]


def test_a_signal_that_was_swallowed_does_not_make_a_run_unstoppable() -> None:
    handler = Stopping(importing=False)
    with pytest.raises(KeyboardInterrupt):
        handler()
    handler()
    assert handler.first is not None
    handler.first -= 11
    with pytest.raises(KeyboardInterrupt):
        handler()
    handler.give_up()


@pytest.mark.parametrize("command", ["verify", "calibrate"])
def test_a_network_that_runs_without_end(command: str, tmp_path: Path) -> None:
    """The runtime sees no signals; here it is in the main thread, and there in others."""
    body = "body = b(int64 i, bool go, float v) => (bool on, float o) { on = Identity(go) o = Add(v, v) }"
    constants = {"n": np.int64(2**60), "t": np.array(True), "one": np.float32(1), "w": rand(1, 1, 3, 3)}
    proto = model(f"l = Loop(n, t, one)<{body}> c = Mul(x, l) z = Conv(c, w)", {"x": ("n", 1, 8, 8)}, constants)
    path = tmp_path / "m.onnx"
    onnx.save(proto, path)
    np.save(tmp_path / "x.npy", rand(1, 1, 8, 8))
    words = [command, path, path if command == "verify" else tmp_path / "x.npy", "--provider", "cpu"]
    assert ended(RUNNING, *words) == (130, "", "interrupted; nothing was written\n")


def test_handlers_are_given_back() -> None:
    before = [signal.getsignal(kind) for kind in (signal.SIGINT, signal.SIGTERM)]
    with stopping():
        assert signal.getsignal(signal.SIGTERM) not in before
    assert [signal.getsignal(kind) for kind in (signal.SIGINT, signal.SIGTERM)] == before
    assert isinstance(files_written, dict)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux is known to allow it")
@pytest.mark.parametrize("lock", ["free", "held"])
def test_a_file_that_shrinks_while_it_is_read(lock: str, tmp_path: Path) -> None:
    """The system ends a process that reads a map beyond the end of its file: with a message, at least."""
    (tmp_path / "a").write_bytes(bytes(1 << 20))
    code, _, err = ended(SHRINKING, tmp_path / "a", lock)
    assert (code, err.count("\n")) == (1, 1)
    assert "a file that was being read became shorter" in err
