"""Output of commands: results go to standard output, progress and messages to standard error."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from rich.console import RenderableType

from onnxnorm.api.progress import measuring_bar
from onnxnorm.calibration.calibrate import Progress
from onnxnorm.cli.escaping import EscapingConsole
from onnxnorm.options import Options, option

__all__ = ["OutputOptions", "Terminal"]


@dataclass(frozen=True, kw_only=True)
class OutputOptions(Options):
    """How much a command prints."""

    json: bool = option(False, "Print one JSON object and nothing else.")
    quiet: bool = option(False, "Print results only.", short="-q")
    verbose: bool = option(False, "Say more; show tracebacks.", short="-v")


@dataclass
class Terminal:
    """The output of one command."""

    options: OutputOptions = field(default_factory=OutputOptions)
    out: EscapingConsole = field(default_factory=lambda: EscapingConsole(highlight=False, width=_width(sys.stdout)))
    err: EscapingConsole = field(
        default_factory=lambda: EscapingConsole(stderr=True, highlight=False, width=_width(sys.stderr))
    )

    def say(self, message: str) -> None:
        """Print a message for people; nothing with --quiet."""
        if not self.options.quiet:
            self.err.print(message, markup=False, soft_wrap=True)

    def show(self, *results: RenderableType) -> None:
        """Print results for people; nothing with --json."""
        if not self.options.json:
            for result in results:
                self.out.print(result, markup=False, soft_wrap=isinstance(result, str))

    def show_json(self, result: dict[str, Any]) -> None:
        """Print the result for programs; only with --json."""
        if self.options.json:
            print(json.dumps(_plain(result), allow_nan=False))  # noqa: T201 - standard output is the interface

    def bar(self, title: str) -> AbstractContextManager[Callable[[Progress], None]]:
        """Show a progress bar with images/s and time left; yields the callback that a calibration updates it by.

        Hidden with --quiet and where standard error is not a terminal.
        """
        return measuring_bar(title, self.err, self.options.quiet)

    @contextmanager
    def status(self, title: str) -> Iterator[None]:
        """Show that something is going on; hidden like the progress bar."""
        if self.options.quiet or not self.err.is_terminal:
            yield
            return
        with self.err.status(title):
            yield


def _width(stream: Any) -> int | None:
    """Width of lines; None for that of the terminal. Output to a file is not cut at a terminal's width."""
    return None if stream.isatty() else 160


def _plain(value: Any) -> Any:
    """The same value in types that JSON has: no NumPy numbers, and None instead of infinities and NaN."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value
