"""`onnxnorm merge STATS... -o STATS`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from onnxnorm import api
from onnxnorm.atomic import check_target
from onnxnorm.cli.arguments import OutPath
from onnxnorm.cli.calibrate import summary, tell_statistics
from onnxnorm.cli.hints import tell_ending
from onnxnorm.cli.terminal import OutputOptions, Terminal

__all__ = ["EXAMPLES", "NAME", "merge"]

NAME = "merge"
EXAMPLES = ("onnxnorm merge shard0.safetensors shard1.safetensors -o model.stats.safetensors",)


def merge(
    stats: Annotated[list[Path], typer.Argument(metavar="STATS...", help="Statistics of one model.")],
    output: OutPath,
    output_options: OutputOptions,
) -> None:
    """Add up statistics of one model over different images."""
    terminal = Terminal(output_options)
    check_target(output, stats)
    merged = api.merge(list(stats))
    result = summary(merged) | {"output": str(output)}
    tell_statistics(terminal, merged)
    merged.save(output)  # last, so that statistics that cannot be shown leave no file behind
    terminal.show(f"written to {output}")
    tell_ending(terminal, output, ".safetensors")
    terminal.show_json(result)
