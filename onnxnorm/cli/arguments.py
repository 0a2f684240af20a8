"""Arguments and options for files that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["DataPaths", "DefaultStats", "ModelOut", "ModelPath", "OptionalData", "OutPath", "StatsOut"]

ModelPath = Annotated[Path, typer.Argument(metavar="MODEL", help="The ONNX model.")]
DataPaths = Annotated[
    list[str],
    typer.Argument(
        metavar="DATA...",
        help="Images, folders of them (also as URIs), archives (.tar, .zip), @list.txt or @- (a path a line), "
        ".npy or .npz arrays of inputs.",
    ),
]
OptionalData = Annotated[
    list[str] | None,
    typer.Argument(metavar="DATA...", help="What to feed; without it, seeded random inputs.", show_default=False),
]
OutPath = Annotated[Path, typer.Option("--output", "-o", metavar="OUT", help="Where to write.", show_default=False)]
StatsOut = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        metavar="STATS",
        help="Where to write. Default: MODEL.stats.safetensors in the current folder.",
        show_default=False,
    ),
]
ModelOut = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        metavar="OUT",
        help="Where to write. Default: MODEL-normalized.onnx in the current folder.",
        show_default=False,
    ),
]
DefaultStats = Annotated[
    Path | None,
    typer.Option(
        "--stats",
        metavar="STATS",
        help="Statistics from onnxnorm calibrate. Default: MODEL.stats.safetensors in the current folder, else in "
        "that of MODEL.",
        show_default=False,
    ),
]
