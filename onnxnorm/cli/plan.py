"""`onnxnorm plan MODEL [--stats STATS]`."""

from __future__ import annotations

from pathlib import Path

from onnxnorm import api
from onnxnorm.api.options import PlanOptions
from onnxnorm.cli.arguments import DefaultStats, ModelPath
from onnxnorm.cli.defaults import find_stats
from onnxnorm.cli.hints import suggested
from onnxnorm.cli.terminal import OutputOptions, Terminal
from onnxnorm.errors import StatisticsError
from onnxnorm.report.terminal.tables import plan_tables
from onnxnorm.scaling import Plan

__all__ = ["EXAMPLES", "NAME", "plan"]

NAME = "plan"
EXAMPLES = (
    "onnxnorm plan model.onnx",
    "onnxnorm plan model.onnx --outputs scale --json",
)


def plan(
    model: ModelPath,
    options: PlanOptions,
    output_options: OutputOptions,
    stats: DefaultStats = None,
) -> None:
    """Say which filters can be normalized, which share a scale, and why others cannot. Runs nothing."""
    terminal = Terminal(output_options)
    planned, found = _planned(terminal, model, stats, options)
    terminal.show(*plan_tables(planned))
    if found is None and not planned.nothing:
        terminal.say(suggested("calibrate", model, "PHOTOS"))
    terminal.show_json(planned.to_json())


def _planned(terminal: Terminal, model: Path, stats: Path | None, options: PlanOptions) -> tuple[Plan, Path | None]:
    """The plan, and the statistics for it. Those that nobody named and that do not fit are left aside."""
    found = find_stats(stats, model)
    try:
        return api.plan(model, found, options=options), found
    except StatisticsError as error:
        if found is None or stats is not None:
            raise
        terminal.say(f"{found} is left aside, so dead filters are not known: {error}; choose others with --stats")
        return api.plan(model, options=options), None
