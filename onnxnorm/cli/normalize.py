"""`onnxnorm normalize MODEL DATA... -o OUT`."""

from __future__ import annotations

from onnxnorm import api
from onnxnorm.api.options import NormalizeOptions
from onnxnorm.cli.arguments import DataPaths, ModelPath, OutPath
from onnxnorm.cli.calibrate import summary as statistics_summary
from onnxnorm.cli.calibrate import tell_statistics
from onnxnorm.cli.rewrite import summary, tell_rewritten
from onnxnorm.cli.terminal import OutputOptions, Terminal

__all__ = ["NAME", "normalize"]

NAME = "normalize"


def normalize(
    model: ModelPath, data: DataPaths, output: OutPath, options: NormalizeOptions, output_options: OutputOptions
) -> None:
    """Calibrate, rewrite and verify in one go."""
    terminal = Terminal(output_options)
    with terminal.bar("measuring") as progress:
        done = api.normalize(model, list(data), output, options=options, progress=progress)
    assert done.statistics is not None
    tell_statistics(terminal, done.statistics)
    tell_rewritten(terminal, done)
    terminal.show_json(summary(done) | {"statistics": statistics_summary(done.statistics)})
