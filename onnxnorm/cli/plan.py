"""`onnxnorm plan MODEL [--stats STATS]`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from onnxnorm import api
from onnxnorm.api.options import PlanOptions
from onnxnorm.cli.arguments import ModelPath
from onnxnorm.cli.terminal import OutputOptions, Terminal
from onnxnorm.report.terminal.tables import plan_tables

__all__ = ["NAME", "plan"]

NAME = "plan"


def plan(
    model: ModelPath,
    options: PlanOptions,
    output_options: OutputOptions,
    stats: Annotated[
        Path | None, typer.Option("--stats", metavar="STATS", help="Also find dead filters.", show_default=False)
    ] = None,
) -> None:
    """Say which filters can be normalized, which share a scale, and why others cannot. Runs nothing."""
    terminal = Terminal(output_options)
    planned = api.plan(model, stats, options=options)
    terminal.show(*plan_tables(planned))
    if stats is None and not planned.nothing:
        terminal.say(f"next: onnxnorm calibrate {model} PHOTOS -o stats.safetensors")
    terminal.show_json(planned.to_json())
