"""`onnxnorm export MODEL -o FILE`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from onnxnorm import api
from onnxnorm.cli.arguments import ModelPath
from onnxnorm.cli.terminal import OutputOptions, Terminal
from onnxnorm.exporting import ExportOptions

__all__ = ["EXAMPLES", "NAME", "export"]

NAME = "export"
EXAMPLES = (
    "onnxnorm export normalized.onnx -o normalized.safetensors",
    "onnxnorm export vgg16-normalized.onnx --layout torchvision -o vgg16_normalized.pth",
    "onnxnorm export vgg19-normalized.onnx --layout keras -o vgg19_norm_weights.h5",
)


def export(
    model: ModelPath,
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Where to write; the format follows the ending: .safetensors, .npz, .h5, .pth.",
            show_default=False,
        ),
    ],
    options: ExportOptions,
    output_options: OutputOptions,
) -> None:
    """Write the constants of a model for another framework.

    A .h5 file needs the extra h5, a .pth file the extra torch.
    """
    terminal = Terminal(output_options)
    with terminal.status("exporting"):
        done = api.export(model, output, options=options)
    terminal.show(str(done))
    terminal.show_json(
        {
            "output": str(output),
            "layout": done.layout,
            "arrays": {name: list(shape) for name, shape in done.arrays.items()},
            "constants": done.sources,
            "left_out": list(done.left_out),
            "notes": list(done.notes),
        }
    )
