"""Style transfer with the original and the normalized VGG-16 at the same layer weights; writes the figures of the docs.

    python -m tools.models.fetch
    python -m tools.style_transfer.run PHOTOS

The first 100 of PHOTOS, in an order drawn by a fixed seed, calibrate; the others are those on which means are measured
again. Prints the tables of docs/style-transfer.md. Needs the extras `torch` and `report`.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import onnxnorm
from onnxnorm.data.images.options import ImageOptions
from tools.measurements.vgg16 import preprocessed
from tools.style_transfer import figures
from tools.style_transfer.network import STYLE, load
from tools.style_transfer.pictures import picture, read
from tools.style_transfer.transfer import Transferred, losses_of, transfer

ROOT = Path(__file__).resolve().parents[2]
IMAGES = ROOT / "models" / "images"
CALIBRATE = 100

Means = dict[str, NDArray[np.float64]]


@dataclass(frozen=True)
class Run:
    """What one network did: the Gram matrices of the style, and the transfer."""

    grams: Means
    transferred: Transferred


def main() -> None:
    given = arguments()
    for folder in (given.work, given.output):
        folder.mkdir(parents=True, exist_ok=True)
    original = given.models / "vgg16_features.onnx"
    normalized = given.work / "normalized.onnx"
    draw_means(original, normalized, given)
    runs = {name: run(model, given) for name, model in (("original", original), ("normalized", normalized))}
    figures.grams(runs["original"].grams, runs["normalized"].grams, given.output / "grams.png")
    before, after = (style_losses(done.transferred) for done in runs.values())
    figures.losses(before, after, given.output / "losses.png")
    pictures = {"content": read(given.content, given.size), "style": read(given.style, given.style_size)}
    pictures |= {f"with the {name} VGG-16": done.transferred.image for name, done in runs.items()}
    figures.images({name: picture(image) for name, image in pictures.items()}, given.output / "transfer.jpg")
    print_table(runs)


def draw_means(original: Path, normalized: Path, given: argparse.Namespace) -> None:
    """Normalize the network, and draw every filter's mean before and after."""
    inputs = preprocessed(original, given.photos, ImageOptions(preset="caffe"))
    fitting, other = inputs[:CALIBRATE], inputs[CALIBRATE:]
    statistics = onnxnorm.calibrate(original, fitting)
    onnxnorm.rewrite(original, statistics, normalized, outputs="scale")
    after, elsewhere = (means(onnxnorm.calibrate(normalized, images)) for images in (fitting, other))
    figures.means(means(statistics), after, elsewhere, (len(fitting), len(other)), given.output / "means.png")
    print(f"means on {len(fitting)} photographs, at the quantiles 0, 5 %, 50 %, 95 %, 100 % of all filters:")
    for name, layers in (("original", means(statistics)), ("normalized", after), ("elsewhere", elsewhere)):
        every = np.concatenate(list(layers.values()))
        print(f"  {name}: {', '.join(f'{value:.4g}' for value in np.quantile(every, [0, 0.05, 0.5, 0.95, 1]))}")


def means(statistics: onnxnorm.Statistics) -> Means:
    """The means of every layer."""
    return {value.name: moments.mean for value, moments in statistics.values.items()}


def run(model: Path, given: argparse.Namespace) -> Run:
    """Transfer the style with one network."""
    content, style = read(given.content, given.size), read(given.style, given.style_size)
    losses = losses_of(load(model), content, style, given.content_share)
    grams = {name: value.double().numpy().ravel() for name, value in losses.grams.items()}
    return Run(grams, transfer(losses, content, given.iterations))


def style_losses(done: Transferred) -> dict[str, Sequence[float]]:
    """The losses of the style layers."""
    return {name: done.losses[name] for name in STYLE}


def print_table(runs: dict[str, Run]) -> None:
    """Gram matrices and losses, as Markdown."""
    print("| layer | Gram: original | normalized | first loss: original | normalized | left: original | normalized |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for name in STYLE:
        grams = [f"{np.median(done.grams[name]):.3g}" for done in runs.values()]
        losses = [done.transferred.losses[name] for done in runs.values()]
        starts, left = [f"{loss[0]:.2g}" for loss in losses], [f"{loss[-1] / loss[0]:.1%}" for loss in losses]
        print(f"| {' | '.join([name, *grams, *starts, *left])} |")


def arguments() -> Any:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path, help="folder of photographs to calibrate on, more than 100")
    parser.add_argument("--content", type=Path, default=IMAGES / "windmill_rhodes.jpg", help="what the picture shows")
    parser.add_argument("--style", type=Path, default=IMAGES / "clownfish.jpg", help="how the picture looks")
    parser.add_argument("--size", type=int, default=224, help="pixels a side of the picture")
    parser.add_argument("--style-size", type=int, default=144, help="pixels a side of the style")
    parser.add_argument("--content-share", type=float, default=0.03, help="how much the content counts")
    parser.add_argument("--iterations", type=int, default=150, help="iterations of L-BFGS")
    parser.add_argument("--models", type=Path, default=ROOT / "build" / "models", help="folder of the fetched model")
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "style", help="folder of the normalized model")
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "images", help="folder of the figures")
    return parser.parse_args()


if __name__ == "__main__":
    main()
