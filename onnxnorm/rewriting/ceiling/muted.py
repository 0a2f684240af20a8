"""Keeping a library that prints from C off the standard output, which belongs to what a command prints.

The solver behind `scipy.optimize.milp` prints a line in some cases, whatever its options say. C keeps it in a buffer of
its own, so that is emptied before the standard output is connected again.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["muted"]

_STDOUT = 1


@contextmanager
def muted() -> Iterator[None]:
    """Send what C code prints on the standard output of the process to nowhere."""
    try:
        saved = os.dup(_STDOUT)
    except OSError:  # it is closed
        yield
        return
    _flush()
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, _STDOUT)
    os.close(null)
    try:
        yield
    finally:
        _flush()
        os.dup2(saved, _STDOUT)
        os.close(saved)


def _flush() -> None:
    if os.name == "posix":
        ctypes.CDLL(None).fflush(None)
