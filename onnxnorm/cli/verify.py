"""`onnxnorm verify ORIGINAL REWRITTEN [DATA...]`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from onnxnorm import api
from onnxnorm.cli import options as o
from onnxnorm.cli.calibrate import image_words
from onnxnorm.cli.terminal import Terminal
from onnxnorm.report.terminal.fp16 import fp16_tables

__all__ = ["NAME", "verify"]

NAME = "verify"


def verify(
    original: Annotated[Path, typer.Argument(metavar="ORIGINAL", help="The original model.")],
    rewritten: Annotated[Path, typer.Argument(metavar="REWRITTEN", help="The rewritten model.")],
    data: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[DATA...]", help="What to feed; without it, seeded random inputs.", show_default=False),
    ] = None,
    fp16: Annotated[
        bool, typer.Option("--fp16", help="Show the headroom in float16, and what float16 does to the outputs.")
    ] = False,
    preset: o.Preset = None,
    size: o.Size = None,
    resize: o.ResizeChoice = "shortest",
    mean: o.Mean = None,
    std: o.Std = None,
    channels: o.Channels = None,
    layout: o.LayoutChoice = "auto",
    batch_size: o.BatchSize = None,
    limit: o.Limit = None,
    provider: o.Provider = "auto",
    threads: o.Threads = None,
    tolerance_output: o.ToleranceOutput = None,
    json: o.Json = False,
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
    version: o.Version = False,
) -> None:
    """Say whether two models compute the same function and have the same graph. Exit code 3 if not the function."""
    del version
    terminal = Terminal(quiet, verbose, json)
    with terminal.status("verifying"):
        found = api.verify(
            original,
            rewritten,
            list(data) if data else None,
            fp16=fp16,
            batch_size=batch_size,
            limit=limit,
            tolerance_output=tolerance_output,
            provider=provider,
            threads=threads,
            **image_words(preset, size, resize, mean, std, channels, layout),
        )
    terminal.show(f"verdict: {found}")
    graph = "the same but for constants' values" if found.graph_identical else "not the same"
    terminal.show(f"graph: {graph}")
    if found.fp16:
        terminal.show(*fp16_tables(found.fp16.to_json()))
    terminal.show_json(found.to_json())
    if not found.same:
        raise typer.Exit(3)
