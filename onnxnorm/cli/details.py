"""What `--verbose` adds: the package's log on standard error, and tracebacks."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from onnxnorm.cli.escaping import escaped

__all__ = ["DETAILS", "details"]


@dataclass
class _Details:
    """Whether details are shown in this run."""

    shown: bool = False
    handler: logging.Handler | None = None

    def show(self) -> None:
        """Show the package's log from now on, each line with the seconds since the start; and tracebacks."""
        self.shown = True
        if self.handler is None:
            self.handler = logging.StreamHandler(sys.stderr)
            self.handler.setFormatter(_Seconds("%(seconds)8.2f s  %(message)s"))
            log = logging.getLogger("onnxnorm")
            log.addHandler(self.handler)
            log.setLevel(logging.INFO)


DETAILS = _Details()
"""The command line shows them at once; `verbose` of a file or variable is known only when a command starts."""


@contextmanager
def details(verbose: bool) -> Iterator[None]:
    """Leave the log as it was at the end of a run. Shows details from the start if `verbose` is set."""
    log = logging.getLogger("onnxnorm")
    level = log.level
    DETAILS.shown, DETAILS.handler = False, None
    if verbose:
        DETAILS.show()
    try:
        yield
    finally:
        if DETAILS.handler is not None:
            log.removeHandler(DETAILS.handler)
        log.setLevel(level)


class _Seconds(logging.Formatter):
    """Adds the seconds since `logging` was imported, which happens at the start."""

    def format(self, record: logging.LogRecord) -> str:
        record.seconds = record.relativeCreated / 1000
        return escaped(super().format(record))
