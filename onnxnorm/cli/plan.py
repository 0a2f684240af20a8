"""`onnxnorm plan MODEL [--stats STATS]`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from onnxnorm import api
from onnxnorm.cli import options as o
from onnxnorm.cli.terminal import Terminal
from onnxnorm.report.terminal.tables import plan_tables

__all__ = ["NAME", "plan"]

NAME = "plan"


def plan(
    model: o.ModelPath,
    stats: Annotated[
        Path | None, typer.Option("--stats", metavar="STATS", help="Also find dead filters.", show_default=False)
    ] = None,
    size: o.Size = None,
    outputs: o.OutputChoice = "keep",
    filters: o.FilterChoice | None = None,
    json: o.Json = False,
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
    version: o.Version = False,
) -> None:
    """Say which filters can be normalized, which share a scale, and why others cannot. Runs nothing."""
    del version
    terminal = Terminal(quiet, verbose, json)
    found = api.plan(model, stats, filters=filters, outputs=outputs, size=size)
    terminal.show(*plan_tables(found))
    if stats is None:
        terminal.say(f"next: onnxnorm calibrate {model} PHOTOS -o stats.safetensors")
    terminal.show_json(found.to_json())
