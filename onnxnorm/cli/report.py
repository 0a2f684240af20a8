"""`onnxnorm report MODEL [REWRITTEN [DATA...]] --stats STATS -o PAGE`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from onnxnorm import api
from onnxnorm.cli import options as o
from onnxnorm.cli.rewrite import Missing
from onnxnorm.cli.terminal import Terminal

__all__ = ["NAME", "report"]

NAME = "report"


def report(
    model: o.ModelPath,
    stats: o.StatsPath,
    output: o.OutPath,
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
    fp16: Annotated[
        bool, typer.Option("--fp16", help="Show the headroom in float16, and what float16 does to the outputs.")
    ] = False,
    verify: Annotated[bool, typer.Option("--verify/--no-verify", help="Run both models and compare outputs.")] = True,
    tolerance_output: o.ToleranceOutput = None,
    batch_size: o.BatchSize = None,
    limit: o.Limit = None,
    provider: o.Provider = "auto",
    threads: o.Threads = None,
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
    version: o.Version = False,
) -> None:
    """Write a page, one HTML file, with plots and tables. Exit code 3 if REWRITTEN is not the same function."""
    del version
    if fp16 and rewritten is None:
        raise Missing("--fp16 shows two models side by side: give REWRITTEN too")
    if (fp16 or data) and not verify:
        raise Missing("--fp16 and DATA are for running the models: leave out --no-verify")
    terminal = Terminal(quiet, verbose)
    with terminal.status("reading, running and drawing"):
        done = api.write_report(
            model,
            stats,
            output,
            rewritten=rewritten,
            data=list(data) if data else None,
            fp16=fp16,
            verify=verify,
            tolerance_output=tolerance_output,
            batch_size=batch_size,
            limit=limit,
            provider=provider,
            threads=threads,
        )
    if rewritten is not None:
        terminal.show(f"verdict: {done.verification or 'not verified'}")
    terminal.show(f"written to {done.path}")
    if rewritten is None:
        terminal.say(f"next: onnxnorm rewrite {model} --stats {stats} -o {model.stem}-normalized.onnx")
    if done.verification and not done.verification.same:
        raise typer.Exit(3)
