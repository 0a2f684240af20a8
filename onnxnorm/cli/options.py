"""Options that several commands share, with one meaning each."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from onnxnorm.version import VERSION

__all__ = [
    "BatchSize",
    "Channels",
    "DataPaths",
    "EngineChoice",
    "FilterChoice",
    "Json",
    "LayoutChoice",
    "Limit",
    "Mean",
    "MeasureChoice",
    "ModelPath",
    "OptionalStats",
    "OutPath",
    "OutputChoice",
    "PowerOfTwo",
    "Preset",
    "Provider",
    "Quiet",
    "ResizeChoice",
    "Resume",
    "ShardChoice",
    "Size",
    "StatisticChoice",
    "StatsPath",
    "Std",
    "Strength",
    "Target",
    "Threads",
    "Tolerance",
    "ToleranceOutput",
    "ToleranceShare",
    "Verbose",
    "Verify",
    "Version",
    "WeightingChoice",
    "Workers",
]

_IMAGES, _RUN, _WHAT = "Images", "Running", "What is normalized"

ModelPath = Annotated[Path, typer.Argument(metavar="MODEL", help="The ONNX model.")]
DataPaths = Annotated[
    list[str],
    typer.Argument(metavar="DATA...", help="Images, folders of them (also as URIs), .npy or .npz arrays of inputs."),
]
OutPath = Annotated[Path, typer.Option("--output", "-o", metavar="OUT", help="Where to write.", show_default=False)]
StatsPath = Annotated[
    Path, typer.Option("--stats", metavar="STATS", help="Statistics from onnxnorm calibrate.", show_default=False)
]

OptionalStats = Annotated[
    Path | None,
    typer.Option(
        "--stats",
        metavar="STATS",
        help="Statistics from onnxnorm calibrate; --statistic weights and bn need none.",
        show_default=False,
    ),
]

Preset = Annotated[
    Literal["imagenet", "caffe", "tf", "unit", "raw"] | None,
    typer.Option(
        help="imagenet: RGB, /255, ImageNet mean and std. caffe: BGR, 0..255 minus 103.939, 116.779, 123.68. "
        "tf: RGB to [-1, 1]. unit: RGB/255. raw: RGB 0..255. Default: imagenet, for one channel unit.",
        show_default=False,
        rich_help_panel=_IMAGES,
    ),
]
Size = Annotated[
    str | None,
    typer.Option(
        metavar="HxW", help="Default: the model's own size, else 224x224.", show_default=False, rich_help_panel=_IMAGES
    ),
]
ResizeChoice = Annotated[
    Literal["shortest", "squash", "none"],
    typer.Option("--resize", help="shortest: to the size, then crop the centre.", rich_help_panel=_IMAGES),
]
Mean = Annotated[
    str | None,
    typer.Option(metavar="M[,M,M]", help="In the preset's units.", show_default=False, rich_help_panel=_IMAGES),
]
Std = Annotated[
    str | None,
    typer.Option(metavar="S[,S,S]", help="In the preset's units.", show_default=False, rich_help_panel=_IMAGES),
]
Channels = Annotated[
    Literal["rgb", "bgr", "gray"] | None,
    typer.Option(help="Default: the preset's.", show_default=False, rich_help_panel=_IMAGES),
]
LayoutChoice = Annotated[
    Literal["auto", "nchw", "nhwc"], typer.Option("--layout", help="Of the model's input.", rich_help_panel=_IMAGES)
]

BatchSize = Annotated[
    int | None,
    typer.Option(
        "--batch-size", min=1, help="Default: the model's own, else 8.", show_default=False, rich_help_panel=_RUN
    ),
]
Limit = Annotated[
    int | None,
    typer.Option(min=1, help="Use at most this many samples.", show_default=False, rich_help_panel=_RUN),
]
Provider = Annotated[
    str,
    typer.Option(
        help="cpu, cuda, tensorrt, or a name; auto: cuda where a device is. Its own options follow it: "
        "cuda:device_id=1,cudnn_conv_algo_search=HEURISTIC.",
        rich_help_panel=_RUN,
    ),
]
Threads = Annotated[
    int | None,
    typer.Option(min=1, help="Default: one per core.", show_default=False, rich_help_panel=_RUN),
]
Tolerance = Annotated[
    float | None,
    typer.Option(
        metavar="R",
        help="Stop when the relative standard error of the mean is at most R.",
        show_default=False,
        rich_help_panel=_RUN,
    ),
]
ToleranceShare = Annotated[
    float,
    typer.Option("--tolerance-share", metavar="Q", help="... for this share of live filters.", rich_help_panel=_RUN),
]

Resume = Annotated[
    bool,
    typer.Option("--resume", help="Go on where an interrupted run of this command stopped.", rich_help_panel=_RUN),
]
ShardChoice = Annotated[
    str | None,
    typer.Option(
        "--shard",
        metavar="I/N",
        help="Every N-th sample, from the I-th on (counted from 0); onnxnorm merge puts shards together.",
        show_default=False,
        rich_help_panel=_RUN,
    ),
]
EngineChoice = Annotated[
    Literal["local", "ray"], typer.Option("--engine", help="ray: on a Ray cluster.", rich_help_panel=_RUN)
]
Workers = Annotated[
    int | None,
    typer.Option(
        min=1, help="Of --engine ray. Default: as many as there is room for.", show_default=False, rich_help_panel=_RUN
    ),
]

WeightingChoice = Annotated[
    Literal["position", "image"],
    typer.Option(
        "--weighting", help="What counts the same: each position, or each image however large.", rich_help_panel=_WHAT
    ),
]
MeasureChoice = Annotated[
    list[str] | None,
    typer.Option(
        "--measure",
        metavar="rms|p99.9",
        help="What to measure beside means and maxima, for rewrite --statistic; may be repeated. p99.9: slower, for it "
        "needs every activation.",
        show_default=False,
        rich_help_panel=_WHAT,
    ),
]
FilterChoice = Annotated[
    Literal["conv", "all"],
    typer.Option("--filters", help="conv: convolutions. all: dense layers too.", rich_help_panel=_WHAT),
]
StatisticChoice = Annotated[
    Literal["mean", "rms", "max", "p99.9", "weights", "bn"],
    typer.Option(
        "--statistic",
        help="What is brought to the target. mean, max, and, after calibrate --measure, rms and p99.9: of activations. "
        "Without images: weights (balance of the weights before and behind), bn (means that BatchNormalizations "
        "imply).",
        rich_help_panel=_WHAT,
    ),
]
Strength = Annotated[
    float,
    typer.Option(metavar="A", help="The power that it is raised to; 0.5 goes half the way.", rich_help_panel=_WHAT),
]
Target = Annotated[float, typer.Option(metavar="T", help="What it is brought to.", rich_help_panel=_WHAT)]
PowerOfTwo = Annotated[
    bool,
    typer.Option(
        "--power-of-two",
        help="Round every scale to a power of two: the output stays the same bit for bit.",
        rich_help_panel=_WHAT,
    ),
]
OutputChoice = Annotated[
    Literal["keep", "scale"],
    typer.Option(
        "--outputs", help="scale: normalize graph outputs too; their scales are recorded.", rich_help_panel=_WHAT
    ),
]

Verify = Annotated[bool, typer.Option("--verify/--no-verify", help="Compare outputs before anything is written.")]
ToleranceOutput = Annotated[
    float | None,
    typer.Option(
        "--tolerance-output",
        metavar="R",
        help="Default: that of the dtype, or three times the runtime's own noise.",
        show_default=False,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print results only.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Say more; show tracebacks.")]


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"onnxnorm {VERSION}")  # noqa: T201 - what was asked for
        raise typer.Exit


Version = Annotated[
    bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
]
