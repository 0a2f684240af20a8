"""`onnxnorm normalize MODEL DATA... [-o OUT]`."""

from __future__ import annotations

from onnxnorm import api
from onnxnorm.api.options import NormalizeOptions
from onnxnorm.cli.arguments import DataPaths, ModelOut, ModelPath
from onnxnorm.cli.calibrate import summary as statistics_summary
from onnxnorm.cli.calibrate import tell_statistics
from onnxnorm.cli.defaults import model_target
from onnxnorm.cli.rewrite import summary, tell_next, tell_rewritten
from onnxnorm.cli.terminal import OutputOptions, Terminal

__all__ = ["EXAMPLES", "NAME", "normalize"]

NAME = "normalize"
EXAMPLES = (
    "onnxnorm normalize model.onnx photos/ --preset caffe",
    "onnxnorm normalize model.onnx photos/ --limit 20 --power-of-two -o exact.onnx",
    "onnxnorm normalize model.onnx photos/ --limit 20 --ceiling --allow attributes -o quiet.onnx",
)


def normalize(
    model: ModelPath,
    data: DataPaths,
    options: NormalizeOptions,
    output_options: OutputOptions,
    output: ModelOut = None,
) -> None:
    """Calibrate, rewrite and verify in one go."""
    terminal = Terminal(output_options)
    output = model_target(output, model, options.in_place)
    with terminal.bar("measuring") as progress:
        done = api.normalize(model, list(data), output, options=options, progress=progress)
    assert done.statistics is not None
    tell_statistics(terminal, done.statistics, options=options)
    tell_rewritten(terminal, done)
    tell_next(terminal, done, model, output)
    terminal.show_json(summary(done) | {"statistics": statistics_summary(done.statistics)})
