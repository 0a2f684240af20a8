"""`onnxnorm calibrate MODEL DATA... -o STATS`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from onnxnorm import api
from onnxnorm.cli import options as o
from onnxnorm.cli.terminal import Terminal
from onnxnorm.statistics import Statistics

__all__ = ["NAME", "calibrate", "image_words", "tell_statistics"]

NAME = "calibrate"
_SKIPPED_SHOWN = 5


def calibrate(
    model: o.ModelPath,
    data: o.DataPaths,
    output: o.OutPath,
    preset: o.Preset = None,
    size: o.Size = None,
    resize: o.ResizeChoice = "shortest",
    mean: o.Mean = None,
    std: o.Std = None,
    channels: o.Channels = None,
    layout: o.LayoutChoice = "auto",
    batch_size: o.BatchSize = None,
    limit: o.Limit = None,
    provider: o.Provider = "auto",
    threads: o.Threads = None,
    tolerance: o.Tolerance = None,
    tolerance_share: o.ToleranceShare = 0.95,
    filters: o.FilterChoice = "conv",
    json: o.Json = False,
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
) -> None:
    """Measure the mean activation of every filter on images, and write it to STATS."""
    terminal = Terminal(quiet, verbose, json)
    start = time.perf_counter()
    with terminal.bar("measuring") as progress:
        statistics = api.calibrate(
            model,
            list(data),
            batch_size=batch_size,
            limit=limit,
            provider=provider,
            threads=threads,
            filters=filters,
            tolerance=tolerance,
            tolerance_share=tolerance_share,
            progress=progress,
            **image_words(preset, size, resize, mean, std, channels, layout),
        )
    statistics.save(output)
    tell_statistics(terminal, statistics, time.perf_counter() - start)
    terminal.say(f"next: onnxnorm rewrite {model} --stats {output} -o {_suggested(model)}")
    terminal.show_json(summary(statistics) | {"output": str(output)})


def image_words(
    preset: str | None,
    size: str | None,
    resize: str,
    mean: str | None,
    std: str | None,
    channels: str | None,
    layout: str,
) -> api.ImageWords:
    """The options about images, under the names that the API has for them."""
    return api.ImageWords(preset=preset, size=size, resize=resize, mean=mean, std=std, channels=channels, layout=layout)


def tell_statistics(terminal: Terminal, statistics: Statistics, seconds: float | None = None) -> None:
    """Say what was measured, on what, how exactly, and what was skipped."""
    rate = f", {statistics.images / seconds:.1f} images/s" if seconds else ""
    terminal.show(f"{statistics}{rate}")
    preprocessing = statistics.inputs.get("preprocessing")
    if preprocessing:
        from onnxnorm.calibration.preprocessing import Preprocessing

        terminal.show(f"images as {Preprocessing.from_json(preprocessing).describe()}")
    errors = relative_errors(statistics)
    if errors.size:
        median, most, worst = np.quantile(errors, [0.5, 0.95, 1.0])
        terminal.show(
            f"relative standard error of the means: {median:.1%} at the median, {most:.1%} at 95 %, "
            f"{worst:.1%} at worst"
        )
    for name, reason in statistics.skipped[:_SKIPPED_SHOWN]:
        terminal.say(f"skipped {name}: {reason}")
    if len(statistics.skipped) > _SKIPPED_SHOWN:
        terminal.say(f"... and {len(statistics.skipped) - _SKIPPED_SHOWN} more, all named in the statistics file")


def relative_errors(statistics: Statistics) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Relative standard errors of all live channels, where there are two images or more."""
    found = [np.empty(0)]
    for moments in statistics.values.values():
        live = moments.mean != 0
        if moments.images > 1:
            found.append(moments.standard_error[live] / np.abs(moments.mean[live]))
    return np.concatenate(found)


def summary(statistics: Statistics) -> dict[str, Any]:
    """What `--json` prints about statistics."""
    errors = relative_errors(statistics)
    quantiles = np.quantile(errors, [0.5, 0.95, 1.0]).tolist() if errors.size else [None] * 3
    return {
        "model": statistics.model,
        "images": statistics.images,
        "channels": sum(moments.channels for moments in statistics.values.values()),
        "relative_standard_error": dict(zip(("median", "p95", "max"), quantiles, strict=True)),
        "skipped": [{"name": name, "reason": reason} for name, reason in statistics.skipped],
        "values": [
            {
                "name": value.name,
                "measure": value.measure,
                "channels": moments.channels,
                "mean": float(moments.mean.mean()),
            }
            for value, moments in statistics.values.items()
        ],
    }


def _suggested(model: Path) -> Path:
    return Path(f"{model.stem}-normalized.onnx")
