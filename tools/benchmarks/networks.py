"""The networks that are calibrated, and the folders of photographs and arrays that they get."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.benchmarks.photographs import repeated
from tools.benchmarks.runs import Case, Machine, perform

__all__ = ["ACTIVATIONS", "BATCH", "Network", "embedded_vgg", "networks", "prepared", "svhn"]

BATCH = 8
ACTIVATIONS = ["Relu", "LeakyRelu"]
SURPLUS = 4 * BATCH


@dataclass(frozen=True)
class Network:
    """A network to calibrate, and how its photographs are preprocessed.

    `few` are the images of the short version. `peers` tells whether others run it, too. `limit` is how many times the
    time of bare inference is asked for, where something is. In a `small` network decoding is said to dominate.
    """

    name: str
    path: Path
    preset: str
    size: tuple[int, int]
    images: int
    few: int
    peers: bool = True
    limit: float | None = None
    small: bool = False

    @property
    def title(self) -> str:
        """Its name, with the file and the size of the input."""
        return f"{self.name} ({self.path.name}, {'x'.join(map(str, self.size))})"


def networks(models: Path, zoo: Path, embedded: Path) -> Iterator[Network]:
    """Those that stand beside other calibrators; of the zoo only if it is there, else the embedded one."""
    features, full = models / "vgg16_features.onnx", models / "vgg16_4096.onnx"
    yield Network("VGG-16, 13 convolutions", features, "caffe", (224, 224), 64, 24, limit=1.08)
    yield Network("VGG-16 with its dense head", full, "caffe", (224, 224), 64, 48, peers=False, limit=1.0)
    if zoo.is_dir():
        waifu2x, mnist = zoo / "models" / "waifu2x_vgg7_rgb.onnx", zoo / "models" / "ccexam_mnist_tinyvgg.onnx"
        yield Network("waifu2x vgg7", waifu2x, "unit", (128, 128), 96, 24)
        yield svhn(zoo)
        yield Network("mnist tinyvgg", mnist, "unit", (28, 28), 2048, 128, small=True)
    else:
        yield embedded_vgg(embedded)


def svhn(zoo: Path) -> Network:
    """Six convolutions with BatchNormalization."""
    return Network("svhn vggbn", zoo / "models" / "ccexam_svhn_vggbn.onnx", "unit", (32, 32), 2048, 128, small=True)


def embedded_vgg(embedded: Path) -> Network:
    """The one that is always there."""
    return Network("the embedded VGG", embedded / "demo_vgg.onnx", "unit", (64, 64), 2048, 128, small=True)


def prepared(machine: Machine, network: Network, sources: list[Path], images: int) -> dict[str, Any]:
    """What every task about this network is given; raises MeasurementError if its inputs cannot be made.

    There are more photographs than are measured, so that those who decode ahead have something to decode until the end.
    """
    folder = machine.work / network.path.stem
    given: dict[str, Any] = {
        "model": str(network.path),
        "photos": str(repeated(sources, images + SURPLUS, folder)),
        "arrays": str(folder.with_suffix(".npy")),
        "images": images,
        "batch": BATCH,
        "threads": machine.threads,
        "preset": network.preset,
        "size": network.size,
    }
    report = perform(Case("preprocessing", "preprocess", given)).report
    return given | {"recipe": report["recipe"]}
