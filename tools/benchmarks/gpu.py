"""Images per second on a CUDA device: bare inference beside calibration, in one run.

    python -m tools.benchmarks.gpu MODEL PHOTOS [--preset caffe] [--images 960] [--batch 8 32]

Per batch size, interleaved rounds and their medians: bare inference of preprocessed arrays (inputs copied to the
device, outputs back), the same with inputs on the device already, calibration from the same arrays, and calibration
from the image files. Photographs are used again and again until there are enough.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnxruntime
from numpy.typing import NDArray

import onnxnorm
from onnxnorm.data.images.options import ImageOptions
from onnxnorm.data.opening import open_data
from onnxnorm.model.files import Model
from onnxnorm.model.graph import input_specs
from onnxnorm.runtime import Runtime

Batches = list[NDArray[Any]]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--preset", default="caffe")
    parser.add_argument("--provider", default="cuda")
    parser.add_argument("--images", type=int, default=960)
    parser.add_argument("--batch", type=int, nargs="+", default=[8, 32])
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    print(f"onnxruntime {onnxruntime.__version__}, provider {given.provider}, {given.images} images a round")
    print("| batch | bare, images/s | bare, inputs on the device | calibrate from arrays | calibrate from files |")
    print("|---:|---:|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as folder:
        files = copies(given.photos, Path(folder), given.images)
        for size in given.batch:
            print(f"| {size} | " + " | ".join(f"{rate:.0f}" for rate in rates(given, files, size)) + " |", flush=True)
    return 0


def rates(given: argparse.Namespace, files: Path, size: int) -> list[float]:
    model = Model.open(given.model)
    dataset = open_data(files, input_specs(model), ImageOptions(preset=given.preset))
    batches = [next(iter(batch.feeds.values())) for batch in dataset.batches(size) if batch.count == size]
    runtime = Runtime(given.provider)
    ort = runtime.session(model).ort
    name = ort.get_inputs()[0].name
    words: dict[str, Any] = {"batch_size": size, "provider": given.provider}
    ways: list[Callable[[], object]] = [
        lambda: [ort.run(None, {name: batch}) for batch in batches],
        resident(ort, name, batches),
        lambda: onnxnorm.calibrate(given.model, batches, **words),
        lambda: onnxnorm.calibrate(given.model, files, preset=given.preset, **words),
    ]
    seconds: list[list[float]] = [[] for _ in ways]
    for round_ in range(given.rounds + 1):
        for way, found in zip(ways, seconds, strict=True):
            start = time.perf_counter()
            way()
            if round_:  # the first warms up
                found.append(time.perf_counter() - start)
    return [len(batches) * size / statistics.median(found) for found in seconds]


def resident(ort: Any, name: str, batches: Batches) -> Callable[[], object]:
    """Bare inference whose input and output stay on the device."""
    binding = ort.io_binding()
    device = "cpu" if ort.get_providers()[0] == "CPUExecutionProvider" else "cuda"
    value = onnxruntime.OrtValue.ortvalue_from_numpy(batches[0], device, 0)
    binding.bind_ortvalue_input(name, value)
    for output in ort.get_outputs():
        binding.bind_output(output.name, device)
    return lambda: [ort.run_with_iobinding(binding) for _ in batches]


def copies(photos: Path, folder: Path, count: int) -> Path:
    """A folder with `count` links to photographs."""
    found = sorted(file for file in photos.rglob("*") if file.suffix.lower() in {".jpg", ".jpeg", ".png"})
    for index in range(count):
        source = found[index % len(found)]
        (folder / f"{index:06d}{source.suffix}").symlink_to(source.resolve())
    return folder


if __name__ == "__main__":
    sys.exit(main())
