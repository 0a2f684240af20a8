"""`onnxnorm normalize MODEL DATA... -o OUT`."""

from __future__ import annotations

from onnxnorm import api
from onnxnorm.cli import options as o
from onnxnorm.cli.calibrate import image_words, tell_statistics
from onnxnorm.cli.rewrite import tell_rewritten
from onnxnorm.cli.terminal import Terminal

__all__ = ["NAME", "normalize"]

NAME = "normalize"


def normalize(
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
    statistic: o.StatisticChoice = "mean",
    strength: o.Strength = 1.0,
    target: o.Target = 1.0,
    power_of_two: o.PowerOfTwo = False,
    outputs: o.OutputChoice = "keep",
    verify: o.Verify = True,
    tolerance_output: o.ToleranceOutput = None,
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
    version: o.Version = False,
) -> None:
    """Calibrate, rewrite and verify in one go."""
    del version
    terminal = Terminal(quiet, verbose)
    with terminal.bar("measuring") as progress:
        done = api.normalize(
            model,
            list(data),
            output,
            statistic=statistic,
            strength=strength,
            target=target,
            power_of_two=power_of_two,
            outputs=outputs,
            filters=filters,
            verify=verify,
            tolerance_output=tolerance_output,
            batch_size=batch_size,
            limit=limit,
            provider=provider,
            threads=threads,
            tolerance=tolerance,
            tolerance_share=tolerance_share,
            progress=progress,
            **image_words(preset, size, resize, mean, std, channels, layout),
        )
    if done.statistics is not None:
        tell_statistics(terminal, done.statistics)
    tell_rewritten(terminal, done)
