"""`onnxnorm restore REWRITTEN -o OUT`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from onnxnorm import api
from onnxnorm.cli.arguments import OutPath
from onnxnorm.cli.hints import tell_ending
from onnxnorm.cli.terminal import OutputOptions, Terminal
from onnxnorm.rewriting import Restored

__all__ = ["EXAMPLES", "NAME", "restore"]

NAME = "restore"
_SHOWN = 3  # constants
EXAMPLES = ("onnxnorm restore model-normalized.onnx -o original.onnx",)


def restore(
    rewritten: Annotated[Path, typer.Argument(metavar="REWRITTEN", help="A model that onnxnorm rewrote.")],
    output: OutPath,
    output_options: OutputOptions,
    scales: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The record of the scales, where it is not in the model. Default: REWRITTEN.scales.safetensors.",
            show_default=False,
        ),
    ] = None,
    verify: Annotated[
        bool, typer.Option("--verify/--no-verify", help="Refuse to write what must be the original and is not.")
    ] = True,
    in_place: Annotated[
        bool, typer.Option("--in-place", help="Allow OUT to be REWRITTEN itself, which is lost then.")
    ] = False,
) -> None:
    """Give the original back: bit for bit after --power-of-two (exit code 3 if it is not), to rounding otherwise."""
    terminal = Terminal(output_options)
    with terminal.status("restoring"):
        done = api.restore(rewritten, output, scales=scales, verify=verify, in_place=in_place)
    terminal.show(str(done), f"written to {output}")
    tell_ending(terminal, output, ".onnx")
    if done.lossy and not done.same:
        more = f" and {len(done.lossy) - _SHOWN} more" if len(done.lossy) > _SHOWN else ""
        terminal.say(
            f"numbers in {', '.join(done.lossy[:_SHOWN])}{more} may differ by more: the rewrite made them so small "
            "that their type kept fewer digits, or none"
        )
    terminal.show_json(_summary(done) | {"output": str(output)})


def _summary(done: Restored) -> dict[str, Any]:
    return {
        "digest": done.digest,
        "original": done.rewrites[-1].get("original"),
        "bit_identical": done.same,
        "power_of_two": done.exact,
        "max_relative_error": 0.0 if done.same else done.bound,
        "changed": list(done.changed),
        "rewrites": [
            {key: value for key, value in entries.items() if key not in {"scales", "previous"}}
            for entries in done.rewrites
        ],
    }
