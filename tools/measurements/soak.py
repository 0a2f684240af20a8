"""Soak: a million small images and two million rows of arrays through `onnxnorm calibrate`.

    python -m tools.measurements.soak [--images 1000000] [--rows 2000000]

The files are made in a temporary folder, which is removed: images of 8x8 in folders of a thousand, hard links to a few
hundred different ones, half of them PNG and half JPEG, and one in ten thousand damaged; rows in `.npy` files of ten
thousand. While the command runs, its memory and its file descriptors are read from /proc, so it takes Linux.

All inputs and weights are small integers and an image has 64 positions, so every moment has an exact value in float64,
and the statistics must hold it to the last bit. It is computed here with NumPy alone. Exits with 1 if any of it
differs, if memory grows by more than GROWTH after the first quarter of the run, or if descriptors pile up.
"""

from __future__ import annotations

import argparse
import io
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from PIL import Image

from onnxnorm.statistics import Moments, Statistics

__all__ = ["Expected", "Sample", "check_flat", "check_result", "main"]

Floats = NDArray[np.float64]

SIDE, POSITIONS, CHANNELS = 8, 64, 6
DISTINCT, FOLDER, ROWS = 500, 1000, 10_000
DAMAGED = 10_000  # one image in so many is cut short
GROWTH = 16  # MiB
DESCRIPTORS = 2
WEIGHTS = np.random.default_rng(1).integers(-2, 4, (CHANNELS, 3)).astype(np.float32)
BIAS = np.arange(CHANNELS, dtype=np.float32) * 10 - 20


@dataclass(frozen=True)
class Sample:
    """A process at a moment: MiB of memory of its own, MiB in all, with mapped files, and open descriptors."""

    seconds: float
    own: float
    resident: float
    descriptors: int


@dataclass
class Expected:
    """The moments of the one measured value, added up in float64; arrays have shape `(CHANNELS,)`."""

    images: int = 0
    skipped: int = 0
    total: Floats = field(default_factory=lambda: np.zeros(CHANNELS))
    squares: Floats = field(default_factory=lambda: np.zeros(CHANNELS))
    largest: Floats = field(default_factory=lambda: np.zeros(CHANNELS))

    def add(self, pixels: NDArray[np.uint8], times: NDArray[np.int64]) -> None:
        """Add samples `(n, 3, SIDE, SIDE)`, each counted so many times."""
        weights, bias = WEIGHTS.astype(np.float64), BIAS.astype(np.float64)
        values = np.maximum(np.einsum("oc,nchw->nohw", weights, pixels.astype(np.float64)) + bias[:, None, None], 0)
        means, often = values.mean(axis=(2, 3)), times[:, None].astype(np.float64)
        self.images += int(times.sum())
        self.total += (often * means).sum(axis=0) * POSITIONS
        self.squares += (often * means**2).sum(axis=0) * POSITIONS**2
        self.largest = np.maximum(self.largest, values[times > 0].max(axis=(0, 2, 3), initial=0))


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--interval", type=float, default=1.0, help="seconds between two looks at the process")
    given = parser.parse_args(words)
    kinds: list[tuple[str, int, Callable[[Path, int], Expected]]] = [
        ("images", given.images, make_images),
        ("rows", given.rows, make_rows),
    ]
    wrong = [text for kind in kinds if kind[1] for text in soaked(*kind, given.interval)]
    for text in wrong:
        print(f"FAILED: {text}")
    return 1 if wrong else 0


def soaked(kind: str, count: int, make: Callable[[Path, int], Expected], interval: float) -> list[str]:
    """Calibrate on so many samples, print the table, and return what is wrong."""
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        data, output = Path(folder, "data"), Path(folder, "stats.safetensors")
        data.mkdir()
        expected = make(data, count)
        onnx.save(network(), Path(folder, "model.onnx"))
        code, samples = watched([Path(folder, "model.onnx"), data, "-o", output], interval)
        show(kind, count, samples)
        if code:
            return [f"{kind}: calibrate ended with {code}"]
        wrong = [*check_flat(samples), *check_result(Statistics.load(output), expected)]
        left = sorted(path.name for path in Path(folder).iterdir())
        if left != ["data", "model.onnx", "stats.safetensors"]:
            wrong.append(f"files are left behind: {left}")
        return [f"{kind}: {text}" for text in wrong]


def network() -> onnx.ModelProto:
    """A convolution of 1x1 with a ReLU."""
    nodes = [helper.make_node("Conv", ["x", "w", "b"], ["a"]), helper.make_node("Relu", ["a"], ["z"])]
    constants = {"w": WEIGHTS[:, :, None, None], "b": BIAS}
    graph = helper.make_graph(
        nodes,
        "soak",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ("N", 3, SIDE, SIDE))],
        [helper.make_tensor_value_info("z", onnx.TensorProto.FLOAT, ("N", CHANNELS, SIDE, SIDE))],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def make_images(folder: Path, count: int) -> Expected:
    """Write images, many names for each of a few hundred files, which are used unequally often."""
    generator = np.random.default_rng(2)
    distinct = min(DISTINCT, count)
    contents = [encoded(generator, index) for index in range(distinct)]
    pixels = np.stack([np.asarray(Image.open(io.BytesIO(content)).convert("RGB")) for content in contents])
    share = generator.random(distinct) + 0.1
    chosen = generator.choice(distinct, count, p=share / share.sum())
    damaged = np.arange(count) % DAMAGED == DAMAGED // 2
    originals = [folder.parent / f"original{index}" for index in range(distinct)]
    for original, content in zip(originals, contents, strict=True):
        original.write_bytes(content)
    for start in range(0, count, FOLDER):
        inside = folder / f"n{start // FOLDER:05}"
        inside.mkdir()
        for index in range(start, min(start + FOLDER, count)):
            kind = int(chosen[index])
            name = inside / f"{index:07}.{'jpg' if kind % 2 else 'png'}"
            if damaged[index]:
                name.write_bytes(contents[kind][:40])
            else:
                os.link(originals[kind], name)
    for original in originals:
        original.unlink()
    expected = Expected(skipped=int(damaged.sum()))
    expected.add(pixels.transpose(0, 3, 1, 2), np.bincount(chosen[~damaged], minlength=distinct))
    return expected


def encoded(generator: np.random.Generator, index: int) -> bytes:
    """A small image as PNG or JPEG."""
    content = io.BytesIO()
    image = Image.fromarray(generator.integers(0, 256, (SIDE, SIDE, 3), np.uint8))
    image.save(content, *(("JPEG",) if index % 2 else ("PNG",)))
    return content.getvalue()


def make_rows(folder: Path, count: int) -> Expected:
    """Write arrays of float32."""
    generator, expected = np.random.default_rng(3), Expected()
    for index, start in enumerate(range(0, count, ROWS)):
        pixels = generator.integers(0, 256, (min(ROWS, count - start), 3, SIDE, SIDE), np.uint8)
        np.save(folder / f"rows{index:05}.npy", pixels.astype(np.float32))
        expected.add(pixels, np.ones(len(pixels), np.int64))
    return expected


def watched(words: Sequence[Path | str], interval: float) -> tuple[int, list[Sample]]:
    """Run `onnxnorm calibrate` with these words and look at it now and then; returns its exit code, too."""
    command = [
        sys.executable,
        "-m",
        "onnxnorm.cli",
        "calibrate",
        *words,
        "--measure",
        "max",
        "-q",
        "--preset",
        "raw",
        "--provider",
        "cpu",
    ]
    samples, started = list[Sample](), time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            try:
                samples.append(looked_at(process.pid, time.perf_counter() - started))
            except (OSError, KeyError):  # it has just ended
                break
            time.sleep(interval)
        return process.wait(), samples


def looked_at(pid: int, seconds: float) -> Sample:
    """Read a process's memory and descriptors. Raises OSError or KeyError if it is gone."""
    lines = Path(f"/proc/{pid}/status").read_text("ascii").splitlines()
    status = dict(line.split(":", 1) for line in lines if ":" in line)
    own, resident = (int(status[name].split()[0]) / 1024 for name in ("RssAnon", "VmRSS"))
    return Sample(seconds, own, resident, len(os.listdir(f"/proc/{pid}/fd")))


def show(kind: str, count: int, samples: Sequence[Sample]) -> None:
    print(f"\n{count:,} {kind}\n")
    print("| seconds | memory of its own, MiB | with mapped files, MiB | descriptors |\n|---:|---:|---:|---:|")
    for sample in samples[:: max(1, len(samples) // 16)]:
        print(f"| {sample.seconds:.0f} | {sample.own:.0f} | {sample.resident:.0f} | {sample.descriptors} |")
    print(flush=True)


def check_flat(samples: Sequence[Sample]) -> list[str]:
    """Return what is wrong with memory and descriptors: what the last quarter has more than the second one."""
    quarter = len(samples) // 4
    if not quarter:
        return ["it ended before it could be looked at"]
    early, late = samples[quarter : 2 * quarter], samples[-quarter:]
    wrong = []
    grown = median(sample.own for sample in late) - median(sample.own for sample in early)
    if grown > GROWTH:
        wrong.append(f"memory grew by {grown:.0f} MiB")
    more = median(sample.descriptors for sample in late) - median(sample.descriptors for sample in early)
    if more > DESCRIPTORS:
        wrong.append(f"{more:.0f} descriptors more are open at the end")
    return wrong


def check_result(statistics: Statistics, expected: Expected) -> list[str]:
    """Return what differs from the moments that are expected, by a single bit or more."""
    (moments,) = statistics.values.values()
    skipped = len(statistics.skipped)
    wrong = [] if skipped == expected.skipped else [f"{skipped} skipped, not {expected.skipped}"]
    for name, wanted in wanted_moments(expected).items():
        found = getattr(moments, name)
        if not np.array_equal(found, wanted):
            wrong.append(f"{name} is {found}, not {wanted}")
    return wrong


def wanted_moments(expected: Expected) -> dict[str, int | float | Floats]:
    """The fields of `Moments` by name."""
    whole = Moments(
        images=expected.images,
        weight=float(expected.images * POSITIONS),
        weight_squares=float(expected.images * POSITIONS**2),
        total=expected.total,
        square_total=expected.total * POSITIONS,
        squares=expected.squares,
        largest=expected.largest,
    )
    names = ("images", "weight", "weight_squares", "total", "square_total", "squares", "largest")
    return {name: getattr(whole, name) for name in names}


if __name__ == "__main__":
    sys.exit(main())
