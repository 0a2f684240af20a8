"""`onnxnorm report MODEL [REWRITTEN [DATA...]] --stats STATS -o PAGE`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from onnxnorm import api
from onnxnorm.api.options import ReportOptions
from onnxnorm.cli.arguments import ModelPath, OutPath, StatsPath
from onnxnorm.cli.rewrite import Missing
from onnxnorm.cli.terminal import OutputOptions, Terminal

__all__ = ["NAME", "report"]

NAME = "report"


def report(
    model: ModelPath,
    stats: StatsPath,
    output: OutPath,
    options: ReportOptions,
    output_options: OutputOptions,
    rewritten: Annotated[
        Path | None,
        typer.Argument(
            metavar="REWRITTEN",
            help="The rewritten model; without it the page shows what a rewrite would do.",
            show_default=False,
        ),
    ] = None,
    data: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="DATA",
            help="What both run on, prepared as STATS says; without it, seeded random inputs.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Write a page, one HTML file, with plots and tables. Exit code 3 if REWRITTEN is not the same function."""
    if options.fp16 and rewritten is None:
        raise Missing("--fp16 shows two models side by side: give REWRITTEN too")
    if (options.fp16 or data) and not options.verify:
        raise Missing("--fp16 and DATA are for running the models: leave out --no-verify")
    terminal = Terminal(output_options)
    with terminal.status("reading, running and drawing"):
        done = api.write_report(model, stats, output, rewritten=rewritten, data=data or None, options=options)
    if rewritten is not None:
        terminal.show(f"verdict: {done.verification or 'not verified'}")
    terminal.show(f"written to {done.path}")
    if rewritten is None:
        terminal.say(f"next: onnxnorm rewrite {model} --stats {stats} -o {model.stem}-normalized.onnx")
    verification = done.verification.to_json() if done.verification else None
    terminal.show_json({"output": str(done.path), "verification": verification})
    if done.verification and not done.verification.same:
        raise typer.Exit(3)
