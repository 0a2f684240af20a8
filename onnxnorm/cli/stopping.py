"""Signals: Ctrl-C and SIGTERM end a run with one message, and so does a file that shrinks while it is read.

This module imports nothing that takes time, so that signals are handled before the rest is imported.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Timer

__all__ = ["INTERRUPTED", "Stopping", "stopping"]

INTERRUPTED = 130
# Seconds in which another Ctrl-C is ignored: the first one is being obeyed, results are saved and threads end.
_PATIENCE = 10.0
_SHRUNK = (
    "error: a file that was being read became shorter, or its disk failed; "
    "run the command again when nothing else writes to its inputs\n"
)


@dataclass
class Stopping:
    """What Ctrl-C and SIGTERM do.

    Attributes:
        importing: whether modules are still imported. An exception could leave one half imported, or be swallowed
            there, and nothing is written yet: so the process ends at once.
        first: time of the first signal, in seconds of `time.monotonic`; None if there was none.
        late: what stops runs of a network that go on for a while after a signal, so that nothing waits for them.
    """

    importing: bool = True
    first: float | None = None
    late: Timer | None = None

    def __call__(self, *_: object) -> None:
        """Raise KeyboardInterrupt, unless that happened a moment ago."""
        if self.importing:
            _leave("interrupted; nothing was written\n", INTERRUPTED)
        now = time.monotonic()
        if self.first is None or now - self.first >= _PATIENCE:
            self.first = now
            self.give_up()
            self.late = _stop_later()
            raise KeyboardInterrupt

    def give_up(self) -> None:
        """Do not stop runs any more."""
        if self.late is not None:
            self.late.cancel()


@contextmanager
def stopping() -> Iterator[Stopping]:
    """Handle the signals within a context. After a signal they stay ignored, because the process is about to end."""
    handler = Stopping()
    kinds = (signal.SIGINT, signal.SIGTERM)
    try:
        before = [signal.signal(kind, handler) for kind in kinds]
    except ValueError:  # not the main thread, which is the only one that gets signals
        handler.importing = False
        yield handler
        return
    try:
        with _bus_errors():
            yield handler
    finally:
        handler.give_up()
        for kind, old in zip(kinds, before, strict=True):
            signal.signal(kind, old if handler.first is None else signal.SIG_IGN)


@contextmanager
def _bus_errors() -> Iterator[None]:
    """Say what happened where the system ends a process that reads a memory map beyond the end of its file.

    A handler of Python's own would come too late: it runs between two instructions of Python, and the instruction that
    fails is repeated before that. This one is called at once, in the thread that failed, and does not return.
    """
    if not sys.platform.startswith("linux"):
        yield
        return
    import ctypes

    kind = ctypes.CFUNCTYPE(None, ctypes.c_int)
    handler = kind(lambda _: _leave(_SHRUNK, 1))
    install = ctypes.CDLL(None).signal
    install.restype, install.argtypes = ctypes.c_void_p, [ctypes.c_int, ctypes.c_void_p]
    old = install(signal.SIGBUS, ctypes.cast(handler, ctypes.c_void_p))
    try:
        yield
    finally:
        install(signal.SIGBUS, old)


def _stop_later() -> Timer:
    from onnxnorm.threads import stop_all

    timer = Timer(_PATIENCE, stop_all)
    timer.daemon = True
    timer.start()
    return timer


def _leave(message: str, code: int) -> None:
    """End the process at once with a message."""
    try:
        os.write(2, message.encode())
    finally:
        os._exit(code)
