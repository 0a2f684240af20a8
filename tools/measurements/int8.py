"""Quantize networks to INT8 before and after each kind of rewrite, and print how much noise that makes.

    python -m tools.measurements.int8 PHOTOS MODEL... [--calibrate N] [--test N] [--same] [--policies NAME,...]

Each network, and its rewrite under each policy, is quantized by ONNX Runtime's static quantization: QuantizeLinear and
DequantizeLinear pairs, 8-bit signed weights, 8-bit unsigned activations with one range per tensor (smallest and largest
value seen), weights with one range per output channel or one per tensor. Printed is the signal-to-noise ratio of all
graph outputs against float32, on photographs that did not calibrate:

    SNR = 10 log10(sum y^2 / sum (y - q)^2) dB

The quantized outputs of a rewrite are compared with the original's in float32, so what a rewrite itself rounds counts
too. Six decibels are one bit. Calibration is by MinMax, with the photographs of the statistics.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

import onnxnorm
from onnxnorm.data.images.options import ImageOptions
from onnxnorm.data.opening import open_data
from onnxnorm.model.files import Model
from onnxnorm.model.graph import input_specs
from tools.measurements.zoo import image_options

Array = NDArray[np.float32]

# What `onnxnorm.rewrite` is told, by the name in the table.
POLICIES: dict[str, dict[str, Any] | None] = {
    "original": None,
    "mean": {"statistic": "mean"},
    "mean power-of-two": {"statistic": "mean", "power_of_two": True},
    "sqrt mean": {"statistic": "mean", "strength": 0.5},
    "max": {"statistic": "max"},
    "sqrt max": {"statistic": "max", "strength": 0.5},
    "weights": {"statistic": "weights"},
    "sqrt weights": {"statistic": "weights", "strength": 0.5},
}


class Feeds(CalibrationDataReader):  # type: ignore[misc]
    """Hands inputs to the quantizer one by one."""

    def __init__(self, name: str, arrays: Sequence[Array]) -> None:
        self.items = iter([{name: array} for array in arrays])

    def get_next(self) -> Mapping[str, Array] | None:
        """The next input, None at the end."""
        return next(self.items, None)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path, help="folder of photographs")
    parser.add_argument("models", type=Path, nargs="+", help="networks")
    parser.add_argument("--calibrate", type=int, default=32, help="how many photographs calibrate")
    parser.add_argument("--test", type=int, default=16, help="how many others are compared")
    parser.add_argument("--same", action="store_true", help="compare on photographs that calibrated instead")
    parser.add_argument("--policies", help="which ones, by name, with commas; default all")
    given = parser.parse_args()
    logging.disable(logging.WARNING)
    ort.set_default_logger_severity(3)
    others = "of them are compared" if given.same else "others are compared"
    chosen = given.policies.split(",") if given.policies else list(POLICIES)
    for path in given.models:
        arrays = preprocessed(path, given.photos, given.calibrate + given.test)
        print(f"\n{path.stem}, SNR in dB: {given.calibrate} photographs calibrate, {given.test} {others}\n")
        print("| policy | weights per channel | weights per tensor |")
        print("|---|---:|---:|", flush=True)
        fitting = arrays[: given.calibrate]
        other = arrays[: given.test] if given.same else arrays[given.calibrate :]
        statistics, expected = onnxnorm.calibrate(path, fitting, batch_size=1), outputs(path, other)
        for policy in chosen:
            both = measured(path, statistics, POLICIES[policy], fitting, (expected, other))
            print(f"| {policy} | {' | '.join(f'{snr:.1f}' for snr in both)} |", flush=True)
    return 0


def measured(
    path: Path,
    statistics: onnxnorm.Statistics,
    policy: dict[str, Any] | None,
    fitting: Sequence[Array],
    test: tuple[Sequence[Array], Sequence[Array]],
) -> tuple[float, float]:
    """The signal-to-noise ratio with weights per channel and per tensor; `test` is what comes out of what goes in."""
    expected, other = test
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = path
        if policy is not None:
            model = folder / "rewritten.onnx"
            onnxnorm.rewrite(path, statistics, model, verify=False, **policy)
        prepared = folder / "prepared.onnx"
        quant_pre_process(str(model), str(prepared), skip_symbolic_shape=True)
        found = []
        for per_channel in (True, False):
            quantized = folder / f"quantized-{per_channel}.onnx"
            quantize(prepared, quantized, fitting, per_channel)
            found.append(noise(expected, outputs(quantized, other)))
    return found[0], found[1]


def quantize(model: Path, out: Path, arrays: Sequence[Array], per_channel: bool) -> None:
    (spec,) = input_specs(Model.open(model))
    quantize_static(
        str(model),
        str(out),
        Feeds(spec.name, arrays),
        quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        per_channel=per_channel,
        calibrate_method=CalibrationMethod.MinMax,
        calibration_cache_path=model.with_suffix(".ranges"),
    )


def outputs(path: Path, arrays: Sequence[Array]) -> list[Array]:
    """All outputs of all inputs; unoptimized, so that quantized operators are computed as they are written."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return [np.asarray(value, np.float32) for array in arrays for value in session.run(None, {name: array})]


def noise(expected: Sequence[Array], got: Sequence[Array]) -> float:
    """The signal-to-noise ratio in decibels."""
    signal = sum(float((a.astype(np.float64) ** 2).sum()) for a in expected)
    error = sum(float(((a.astype(np.float64) - b) ** 2).sum()) for a, b in zip(expected, got, strict=True))
    return float(10 * np.log10(signal / error)) if error else float("inf")


def preprocessed(path: Path, photos: Path, count: int) -> list[Array]:
    """Photographs as inputs of a model, `(1, ...)` each, shuffled by a fixed seed."""
    options = ImageOptions(preset="caffe") if path.stem.startswith("vgg16") else image_options(path)
    dataset = open_data(photos, input_specs(Model.open(path)), options)
    arrays = [next(iter(batch.feeds.values())) for batch in dataset.batches(1)]
    order = np.random.default_rng(16).permutation(len(arrays))[:count]
    return [arrays[index] for index in order]


if __name__ == "__main__":
    sys.exit(main())
