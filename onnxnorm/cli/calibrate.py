"""`onnxnorm calibrate MODEL DATA... [-o STATS]`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from onnxnorm import api
from onnxnorm.api.common import check_output
from onnxnorm.atomic import check_target
from onnxnorm.calibration.calibrate import Interrupted
from onnxnorm.calibration.options import CalibrationOptions
from onnxnorm.cli.arguments import DataPaths, ModelPath, StatsOut
from onnxnorm.cli.defaults import find_stats, stats_target
from onnxnorm.cli.hints import suggested, tell_ending
from onnxnorm.cli.images import tell_preparation
from onnxnorm.cli.precision import WORST_SHOWN, Clock, forecast_text, tell_stop
from onnxnorm.cli.terminal import OutputOptions, Terminal
from onnxnorm.data.images.options import ImageOptions
from onnxnorm.model.files import Model
from onnxnorm.model.input_records import described
from onnxnorm.statistics import GIVEN, Moments, Statistics
from onnxnorm.statistics.measures import measured
from onnxnorm.statistics.precision import RelativeErrors, forecast

__all__ = ["EXAMPLES", "NAME", "calibrate", "summary", "tell_images", "tell_statistics"]

NAME = "calibrate"
EXAMPLES = (
    "onnxnorm calibrate model.onnx photos/ --preset caffe",
    "onnxnorm calibrate model.onnx photos/ --tolerance 0.05 --measure rms",
    "onnxnorm calibrate model.onnx inputs.npy -o arrays.safetensors",
)
_SKIPPED_SHOWN = 5
_INTERRUPTED = 130


def calibrate(
    model: ModelPath,
    data: DataPaths,
    options: CalibrationOptions,
    output_options: OutputOptions,
    output: StatsOut = None,
) -> None:
    """Measure the mean activation of every filter on images, and write it to STATS."""
    terminal = Terminal(output_options)
    output = stats_target(output, model)
    check_output(output, Model.open(model), *data)
    checkpoint = output.with_name(output.name + ".partial")
    check_target(checkpoint)
    _tell_checkpoint(terminal, checkpoint, options.resume)
    clock = Clock(terminal)
    try:
        with terminal.bar("measuring") as progress:
            running = replace(options, checkpoint=checkpoint)
            statistics = api.calibrate(model, list(data), options=running, progress=clock.watching(progress))
    except Interrupted as stop:
        stop.statistics.save(output)
        tell_statistics(terminal, stop.statistics, clock.seconds(stop.statistics.images), options)
        terminal.say(f"interrupted: what was measured is in {output}; the same command with --resume goes on")
        terminal.show_json(summary(stop.statistics) | {"output": str(output)})
        raise SystemExit(_INTERRUPTED) from None
    statistics.save(output)
    checkpoint.unlink(missing_ok=True)
    tell_statistics(terminal, statistics, clock.seconds(statistics.images), options)
    if options.rule is not None:
        tell_stop(terminal, statistics, options.rule)
    terminal.show(f"written to {output}")
    tell_ending(terminal, output, ".safetensors")
    terminal.say(suggested("rewrite", model, *_stats_words(output, model)))
    terminal.show_json(summary(statistics) | {"output": str(output)})


def _tell_checkpoint(terminal: Terminal, checkpoint: Path, resume: bool) -> None:
    if checkpoint.exists() and not resume:
        terminal.say(
            f"an unfinished run is set aside as {checkpoint.name}.old; to continue it instead, stop, give it back the "
            f"name {checkpoint.name}, and use --resume"
        )
    elif resume and not checkpoint.exists():
        terminal.say(f"there is no {checkpoint}, so this run starts from the beginning")


def tell_statistics(
    terminal: Terminal, statistics: Statistics, seconds: float | None = None, options: ImageOptions | None = None
) -> None:
    """Show what was measured, on how many images, how precisely, and which files were skipped."""
    tell_images(terminal, statistics, seconds, options)
    errors = RelativeErrors.of(statistics.values)
    if statistics.images == 1:
        terminal.show(f"relative standard error of the means: {errors}")
    elif errors.relative.size:
        terminal.show(
            f"relative standard error of the means: {errors}", forecast_text(errors, statistics.log_standard_errors)
        )


def tell_images(
    terminal: Terminal, statistics: Statistics, seconds: float | None = None, options: ImageOptions | None = None
) -> None:
    """Show what was measured, on how many images, how they were prepared, and which files were skipped."""
    rate = f", {statistics.images / seconds:.1f} images/s" if seconds else ""
    terminal.show(f"{statistics}{rate}")
    tell_preparation(terminal, statistics.inputs.get("preprocessing"), options)
    if given := described(statistics.inputs.get(GIVEN)):
        terminal.show(f"inputs: {given}")
    if left_out := _left_out(str(statistics.inputs.get("data", ""))):
        terminal.say(f"of DATA: {left_out}")
    for name, reason in statistics.skipped[:_SKIPPED_SHOWN]:
        terminal.say(f"skipped {name}: {reason}")
    if len(statistics.skipped) > _SKIPPED_SHOWN:
        terminal.say(f"... and {len(statistics.skipped) - _SKIPPED_SHOWN} more, all named in the statistics file")


def _left_out(description: str) -> str:
    """The parts of a description of DATA that say what was not read."""
    return ", ".join(part for part in description.split(", ") if "ignored" in part or "not followed" in part)


def summary(statistics: Statistics) -> dict[str, Any]:
    """What `--json` prints about statistics, as plain data."""
    errors = RelativeErrors.of(statistics.values)
    return {
        "model": statistics.model,
        "images": statistics.images,
        "complete": statistics.complete,
        "weighting": statistics.weighting,
        "measures": ["mean", *statistics.measures],
        "channels": sum(moments.channels for moments in statistics.means.values()),
        "relative_standard_error": {
            name: errors.quantile(share) for name, share in (("median", 0.5), ("p95", 0.95), ("max", 1.0))
        },
        "least_certain": [
            {"name": value.name, "channel": channel, "relative_standard_error": error}
            for value, channel, error in errors.worst(WORST_SHOWN)
        ],
        "forecast": [item.to_json() for item in forecast(errors, log_standard_errors=statistics.log_standard_errors)],
        "skipped": [{"name": name, "reason": reason} for name, reason in statistics.skipped],
        "values": [
            {
                "name": value.name,
                "measure": value.measure,
                "channels": moments.channels,
                "mean": float(moments.mean.mean()),
            }
            | _beyond_means(moments)
            for value, moments in statistics.values.items()
        ],
    }


def _beyond_means(moments: Moments) -> dict[str, float]:
    """The largest of the maxima, and the mean over all channels of each percentile, if they were measured."""
    entries = [entry for entry in measured().values() if entry.part and entry.known(moments)]
    found = {entry: entry.read(moments)[0] for entry in entries}
    return {entry.name: float(x.max() if entry.part == "largest" else x.mean()) for entry, x in found.items()}


def _stats_words(output: Path, model: Path) -> list[object]:
    """What names these statistics to a command that reads them; nothing if it finds them by itself."""
    found = find_stats(None, model)
    return [] if found is not None and found.resolve() == output.resolve() else ["--stats", output]
