"""`onnxnorm features MODEL --layers L1,L2,... -o OUT`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from onnxnorm import api
from onnxnorm.cli.arguments import ModelPath, OutPath
from onnxnorm.cli.hints import tell_ending
from onnxnorm.cli.terminal import OutputOptions, Terminal
from onnxnorm.extraction import FeatureOptions

__all__ = ["EXAMPLES", "NAME", "features"]

NAME = "features"
EXAMPLES = (
    "onnxnorm features vgg16.onnx --layers relu1_1,relu2_1,relu3_1 -o features.onnx",
    "onnxnorm features vgg16.onnx --layers relu4_2 --pool average -o gatys.onnx",
    "onnxnorm features vgg19.onnx --layers relu4_1 --padding reflect --fold-preprocessing caffe -o adain.onnx",
)


def features(
    model: ModelPath,
    layers: Annotated[
        str,
        typer.Option(
            metavar="L1,L2,...",
            help="Names of values, of nodes, or those of the VGG literature (relu3_1, conv4_2, pool5).",
            show_default=False,
        ),
    ],
    output: OutPath,
    options: FeatureOptions,
    output_options: OutputOptions,
) -> None:
    """Make chosen activations the outputs of a model, and cut the rest away.

    The changes are recorded in OUT. They alter what filters measure, so they come before the calibration.
    """
    terminal = Terminal(output_options)
    with terminal.status("cutting"):
        done = api.features(model, layers, output, options=options)
    terminal.show(str(done))
    tell_ending(terminal, output, ".onnx")
    if done.preset is not None:
        terminal.say(f"the preprocessing is in the network: from now on the preset is {done.preset}")
    terminal.say(f"next: {next_command(output, done.preset)}")
    terminal.show_json(
        {
            "output": str(output),
            "layers": done.layers,
            "outputs": done.outputs,
            "changes": list(done.changes),
            "preset": done.preset,
            "nodes": dict(zip(("before", "after"), done.nodes, strict=True)),
            "constant_bytes": dict(zip(("before", "after"), done.constants, strict=True)),
        }
    )


def next_command(output: Path, preset: str | None) -> str:
    """The command that normalizes the features; outputs are scaled too, since the chosen layers are outputs now."""
    target = output.with_name(f"{output.stem}-normalized.onnx").name
    words = ["onnxnorm", "normalize", str(output), "PHOTOS", "--preset", preset or "PRESET"]
    return shlex.join([*words, "--outputs", "scale", "-o", target])
