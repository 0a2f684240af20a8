"""Arguments and options for files that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["DataPaths", "ModelPath", "OptionalData", "OptionalStats", "OutPath", "StatsPath"]

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
    typer.Argument(metavar="[DATA...]", help="What to feed; without it, seeded random inputs.", show_default=False),
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
