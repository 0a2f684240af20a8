"""`onnxnorm export MODEL -o FILE`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from onnxnorm import api
from onnxnorm.cli.arguments import DefaultStats, ModelPath
from onnxnorm.cli.defaults import find_stats
from onnxnorm.cli.misuse import Missing
from onnxnorm.cli.terminal import OutputOptions, Terminal
from onnxnorm.errors import OptionError
from onnxnorm.exporting import ExportOptions, ThresholdOptions

__all__ = ["EXAMPLES", "NAME", "export"]

NAME = "export"
EXAMPLES = (
    "onnxnorm export normalized.onnx -o normalized.safetensors",
    "onnxnorm export vgg16-normalized.onnx --layout torchvision -o vgg16_normalized.pth",
    "onnxnorm export vgg19-normalized.onnx --layout keras -o vgg19_norm_weights.h5",
    "onnxnorm export model.onnx --thresholds --statistic mean -o thresholds.json",
)


def export(
    model: ModelPath,
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Where to write; the format follows the ending: .safetensors, .npz, .h5, .pth; .json "
            "with --thresholds.",
            show_default=False,
        ),
    ],
    options: ExportOptions,
    threshold_options: ThresholdOptions,
    output_options: OutputOptions,
    stats: DefaultStats = None,
) -> None:
    """Write the constants of a model for another framework, or with --thresholds one number per layer.

    A .h5 file needs the extra h5, a .pth file the extra torch.
    """
    terminal = Terminal(output_options)
    if threshold_options.thresholds:
        _export_thresholds(terminal, model, output, stats, threshold_options.statistic or "max", options)
        return
    if stats is not None:
        raise OptionError("--stats are for --thresholds only; leave them out to export constants")
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


def _export_thresholds(
    terminal: Terminal, model: Path, output: Path, stats: Path | None, statistic: str, options: ExportOptions
) -> None:
    if options != ExportOptions():
        raise OptionError("--layout is for constants, and --thresholds writes none; give one of the two")
    found = find_stats(stats, model)
    if found is None:
        raise Missing("--thresholds come from statistics: give --stats, which onnxnorm calibrate MODEL makes")
    done = api.export_thresholds(model, found, output, statistic=statistic)
    terminal.show(str(done))
    terminal.show_json({"output": str(output), **done.content})
