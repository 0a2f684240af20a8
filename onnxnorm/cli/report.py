"""`onnxnorm report MODEL [REWRITTEN [DATA...]] [--stats STATS] -o PAGE`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from onnxnorm import api
from onnxnorm.api.options import ReportOptions
from onnxnorm.cli.arguments import DefaultStats, ModelPath, OutPath
from onnxnorm.cli.defaults import find_stats, naming, stats_name
from onnxnorm.cli.hints import shell_line, suggested, tell_ending
from onnxnorm.cli.misuse import Missing
from onnxnorm.cli.terminal import OutputOptions, Terminal
from onnxnorm.model.files import Model

__all__ = ["EXAMPLES", "NAME", "report"]

NAME = "report"
EXAMPLES = (
    "onnxnorm report model.onnx -o before.html",
    "onnxnorm report model.onnx model-normalized.onnx photos/ --fp16 -o report.html",
)


def report(
    model: ModelPath,
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
            metavar="DATA...",
            help="What both run on, prepared as STATS says; without it, seeded random inputs.",
            show_default=False,
        ),
    ] = None,
    stats: DefaultStats = None,
) -> None:
    """Write a page, one HTML file, with plots and tables. Exit code 3 if REWRITTEN is not the same function."""
    if options.fp16 and rewritten is None:
        raise Missing("--fp16 shows two models side by side: give REWRITTEN too")
    if (options.fp16 or data) and not options.verify:
        raise Missing("--fp16 and DATA are for running the models: leave out --no-verify")
    chosen = find_stats(stats, model)
    if chosen is None:
        Model.open(model)  # a model that is not there is told first
        raise Missing(
            f"there is no {stats_name(model)} here or beside MODEL: "
            f"make it with {shell_line('calibrate', model, 'PHOTOS')}, or give --stats"
        )
    terminal = Terminal(output_options)
    with terminal.status("reading, running and drawing"), naming(chosen, stats):
        done = api.write_report(model, chosen, output, rewritten=rewritten, data=data or None, options=options)
    if rewritten is not None:
        terminal.show(f"verdict: {done.verification or 'not verified'}")
    terminal.show(f"written to {done.path}")
    tell_ending(terminal, output, ".html")
    if rewritten is None:
        terminal.say(suggested("rewrite", model, *(["--stats", stats] if stats else [])))
    verification = done.verification.to_json() if done.verification else None
    terminal.show_json({"output": str(done.path), "verification": verification})
    if done.verification and not done.verification.same:
        raise typer.Exit(3)
