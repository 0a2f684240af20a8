"""`onnxnorm check FILE DATA...`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from onnxnorm import api
from onnxnorm.api import Checked, CheckOptions, LayerMeans
from onnxnorm.cli.arguments import DataPaths
from onnxnorm.cli.calibrate import tell_images
from onnxnorm.cli.terminal import OutputOptions, Terminal
from onnxnorm.display import min_median_max

__all__ = ["EXAMPLES", "NAME", "check"]

NAME = "check"
EXAMPLES = (
    "onnxnorm check vgg16_normalized.pth photos/",
    "onnxnorm check vgg19_norm_weights.h5 photos/ --limit 20 --preset caffe",
)


def check(
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="Weights of a VGG: .pth, .h5, .npz or .safetensors."),
    ],
    data: DataPaths,
    options: CheckOptions,
    output_options: OutputOptions,
) -> None:
    """Say whether the VGG in a file of weights is normalized: its mean activations. Exit code 3 if it is not.

    The names in it are those of Caffe, Keras, torchvision or AdaIN. No file can run code.
    A .h5 file needs the extra h5, a .pth file the extra torch.
    """
    terminal = Terminal(output_options)
    with terminal.bar("measuring") as progress:
        found = api.check(file, list(data), options=options, progress=progress)
    tell_images(terminal, found.statistics, options=None if found.guessed else options)
    if found.guessed is not None:
        terminal.say(f"the preset {found.guessed} is a guess from the names in {file}; --preset gives another")
    terminal.show(_table(found), str(found))
    terminal.show_json(_summary(found))
    if not found.normalized:
        raise typer.Exit(3)


def _table(found: Checked) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("layer")
    for name in ("filters", "dead", "mean: min", "median", "max"):
        table.add_column(name, justify="right", no_wrap=True)
    for layer in found.layers:
        dead = len(layer.means) - len(layer.live)
        numbers = ["-" if value is None else f"{value:.4g}" for value in _spread(layer).values()]
        table.add_row(layer.name, f"{len(layer.means):,}", f"{dead:,}" if dead else "", *numbers)
    return table


def _spread(layer: LayerMeans) -> dict[str, float | None]:
    """The smallest, the median and the largest mean of the filters that are not dead; None if all are."""
    return dict(zip(("min", "median", "max"), min_median_max(layer.live) or (None, None, None), strict=True))


def _summary(found: Checked) -> dict[str, object]:
    return {
        "normalized": found.normalized,
        "share": found.share,
        "images": found.statistics.images,
        "preset_guessed": found.guessed,
        "layers": [
            {"name": layer.name, "filters": len(layer.means), "dead": len(layer.means) - len(layer.live)}
            | _spread(layer)
            for layer in found.layers
        ],
    }
