"""`onnxnorm verify ORIGINAL REWRITTEN [DATA...]`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from onnxnorm import api
from onnxnorm.api.options import VerifyOptions
from onnxnorm.cli.arguments import OptionalData
from onnxnorm.cli.terminal import OutputOptions, Terminal
from onnxnorm.report.terminal.fp16 import fp16_tables

__all__ = ["EXAMPLES", "NAME", "verify"]

NAME = "verify"
EXAMPLES = (
    "onnxnorm verify model.onnx model-normalized.onnx",
    "onnxnorm verify model.onnx model-normalized.onnx other-photos/ --preset caffe --fp16",
)


def verify(
    original: Annotated[Path, typer.Argument(metavar="ORIGINAL", help="The original model.")],
    rewritten: Annotated[Path, typer.Argument(metavar="REWRITTEN", help="The rewritten model.")],
    options: VerifyOptions,
    output_options: OutputOptions,
    data: OptionalData = None,
) -> None:
    """Say whether two models compute the same function and have the same graph. Exit code 3 if not the function."""
    terminal = Terminal(output_options)
    with terminal.status("verifying"):
        verification = api.verify(original, rewritten, data or None, options=options)
    terminal.show(f"verdict: {verification}")
    graph = verification.graph
    terminal.show(f"graph: {graph}")
    if verification.time_ratio is not None and not verification.graph_identical:
        terminal.show(f"time: {verification.time_ratio:.2f} times that of the original")
    if verification.fp16:
        terminal.show(*fp16_tables(verification.fp16.to_json()))
    terminal.show_json(verification.to_json())
    if not verification.same:
        raise typer.Exit(3)
