"""`onnxnorm merge STATS... -o STATS`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from onnxnorm import api
from onnxnorm.cli import options as o
from onnxnorm.cli.calibrate import summary, tell_statistics
from onnxnorm.cli.terminal import Terminal

__all__ = ["NAME", "merge"]

NAME = "merge"


def merge(
    stats: Annotated[list[Path], typer.Argument(metavar="STATS...", help="Statistics of one model.")],
    output: o.OutPath,
    json: o.Json = False,
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
    version: o.Version = False,
) -> None:
    """Add up statistics of one model over different images."""
    del version
    terminal = Terminal(quiet, verbose, json)
    merged = api.merge(list(stats))
    merged.save(output)
    tell_statistics(terminal, merged)
    terminal.show_json(summary(merged) | {"output": str(output)})
