"""Running something that is killed before each of its renames, links and removals in turn."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

_LOOP = """
import os, shutil, sys
from itertools import count
folder, states = sys.argv[1:]
{prepare}
shutil.copytree(folder, states + "/before")

def killing(function, left):
    def call(*args, **keywords):
        if not left:
            os._exit(9)
        left.pop()
        return function(*args, **keywords)
    return call

for steps in count():
    child = os.fork()
    if not child:
        left = [None] * steps
        for name in ("replace", "link", "unlink"):
            setattr(os, name, killing(getattr(os, name), left))
        try:
            {run}
        except BaseException:
            import traceback
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    shutil.move(folder, f"{{states}}/{{steps}}")
    shutil.copytree(states + "/before", folder)
    if code != 9:
        sys.exit(code)
"""


def states_after_kills(folder: Path, states: Path, prepare: str, run: str) -> list[Path]:
    """The states of a folder after kills, each later than the one before; the last one is that of a finished run.

    Args:
        folder: where `run` writes.
        states: a folder for the states.
        prepare: Python code that comes first. Both see the variable `folder`.
        run: a Python expression.
    """
    states.mkdir()
    code = _LOOP.format(prepare=prepare, run=run)
    done = subprocess.run([sys.executable, "-c", code, folder, states], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [states / str(number) for number in range(len(list(states.iterdir())) - 1)]
