"""`onnxnorm verify ORIGINAL REWRITTEN [DATA...]`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from onnxnorm import api
from onnxnorm.api.options import VerifyOptions
from onnxnorm.cli.arguments import OptionalData
from onnxnorm.cli.defaults import find_stats
from onnxnorm.cli.images import tell_preparation
from onnxnorm.cli.misuse import Missing
from onnxnorm.cli.terminal import OutputOptions, Terminal
from onnxnorm.data.images.options import given_options
from onnxnorm.errors import ModelError, StatisticsError
from onnxnorm.report.terminal.fp16 import fp16_tables
from onnxnorm.verification import Verification

__all__ = ["EXAMPLES", "NAME", "verify"]

NAME = "verify"
EXAMPLES = (
    "onnxnorm verify model.onnx model-normalized.onnx",
    "onnxnorm verify model.onnx model-normalized.onnx other-photos/ --preset caffe --fp16",
    "onnxnorm verify model.onnx model-normalized.onnx --fp16",
)


def verify(
    original: Annotated[Path, typer.Argument(metavar="ORIGINAL", help="The original model.")],
    rewritten: Annotated[Path, typer.Argument(metavar="REWRITTEN", help="The rewritten model.")],
    options: VerifyOptions,
    output_options: OutputOptions,
    data: OptionalData = None,
    stats: Annotated[
        Path | None,
        typer.Option(
            "--stats",
            metavar="STATS",
            help="Of --fp16 without DATA: what calibrate --measure range wrote for ORIGINAL. Default: "
            "ORIGINAL.stats.safetensors in the current folder, else in that of ORIGINAL.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Say whether two models compute the same function and have the same graph. Exit code 3 if not the function."""
    if stats is not None and (data or not options.fp16):
        raise Missing("--stats is for --fp16 without DATA: with DATA, values are measured on it")
    terminal = Terminal(output_options)
    verification = _verified(terminal, original, rewritten, data, stats, options)
    tell_preparation(terminal, verification.preprocessing, options if data and not verification.as_calibrated else None)
    if verification.as_calibrated:
        given = given_options(options)
        own = f", but for {', '.join(given)}" if given else ""
        terminal.say(f"{rewritten} records that images were prepared in this way at the calibration{own}")
    terminal.show(f"verdict: {verification}")
    graph = verification.graph
    terminal.show(f"graph: {graph}")
    if verification.time_ratio is not None and not verification.graph_identical:
        terminal.show(f"time: {verification.time_ratio:.2f} times that of the original")
    if verification.fp16:
        if verification.fp16.images is None and not data:
            terminal.say(
                "float16: measured on random inputs, which say little; give DATA, or --stats FILE that has ranges: "
                "calibrate --measure range writes one"
            )
        terminal.show(*fp16_tables(verification.fp16.to_json()))
    terminal.show_json(verification.to_json())
    if not verification.same:
        raise typer.Exit(3)


def _verified(
    terminal: Terminal,
    original: Path,
    rewritten: Path,
    data: list[str] | None,
    stats: Path | None,
    options: VerifyOptions,
) -> Verification:
    """The verdict. Statistics that nobody named and that do not fit are left aside."""
    found = find_stats(stats, original) if options.fp16 and not data else None
    with terminal.status("verifying"):
        try:
            return api.verify(original, rewritten, data or None, statistics=found, options=options)
        except (StatisticsError, ModelError) as error:
            if found is None or stats is not None:
                raise
            terminal.say(f"{found} is left aside: {error}; choose others with --stats")
        return api.verify(original, rewritten, options=options)
