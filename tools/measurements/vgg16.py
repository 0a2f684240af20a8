"""Measure, on the real VGG-16, every figure about it that docs/networks.md publishes.

    python -m tools.measurements.vgg16 PHOTOS [--calibrate N]

The first N photographs (default 100) calibrate, the others are the ones that outputs are compared on. Means are
measured again by other code than the library's: all activations leave the runtime and are averaged by NumPy in float64.
Prints the table there and one line per claim, and exits with 1 if a claim does not hold. Needs
`tools/models/fetch.py` first.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

import onnxnorm
from onnxnorm.data.images.options import ImageOptions
from onnxnorm.data.opening import open_data
from onnxnorm.model.files import Model
from onnxnorm.model.graph import input_specs
from onnxnorm.statistics import Moments, Value

Arrays = list[NDArray[np.float32]]
Means = dict[str, NDArray[np.float64]]

BATCH = 8


@dataclass(frozen=True)
class Claim:
    """One published statement, what was measured, and whether it holds."""

    text: str
    measured: str
    holds: bool

    def __str__(self) -> str:
        return f"[{'ok' if self.holds else 'NO'}] {self.text}: {self.measured}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path, help="folder of photographs")
    parser.add_argument("--calibrate", type=int, default=100, help="how many of them calibrate")
    parser.add_argument("--models", type=Path, default=Path("build/models"), help="folder of the fetched models")
    parser.add_argument("--work", type=Path, default=Path("build/vgg16"), help="where to write")
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    claims = [*features(given), *full(given)]
    print()
    for claim in claims:
        print(claim)
    return 0 if all(claim.holds for claim in claims) else 1


def features(given: argparse.Namespace) -> Iterator[Claim]:
    """The feature stack: 13 convolutions, no head."""
    path = given.models / "vgg16_features.onnx"
    inputs = preprocessed(path, given.photos, ImageOptions(preset="caffe"))
    fitting, other = inputs[: given.calibrate], inputs[given.calibrate :]
    statistics = onnxnorm.calibrate(path, fitting)
    scaled = onnxnorm.rewrite(path, statistics, given.work / "features-scale.onnx", outputs="scale")
    kept = onnxnorm.rewrite(path, statistics, given.work / "features-keep.onnx", outputs="keep")

    names = [layer.layer.site.value for layer in scaled.rewriting.scales.layers]
    before, after = (raw_means(p, names, fitting) for p in (path, given.work / "features-scale.onnx"))
    print_table(scaled, before, after)
    dead = {layer.layer.site.value: layer.dead for layer in scaled.rewriting.scales.layers}
    off = max(float(np.abs(after[name][~dead[name]] - 1).max()) for name in names)
    count = sum(int((~flags).sum()) for flags in dead.values())
    yield Claim(f"--outputs scale: all {count:,} live filters at 1 ± 1e-3", f"worst {off:.1e}", off <= 1e-3)
    again = raw_means(given.work / "features-keep.onnx", names, fitting)
    off = max(float(np.abs(again[name][~dead[name]] - 1).max()) for name in names[:-1])
    same = float(np.abs(again[names[-1]] / before[names[-1]] - 1).max())
    yield Claim("--outputs keep: all but the last 512 at 1 ± 1e-3", f"worst {off:.1e}", off <= 1e-3)
    yield Claim("... and those 512 unchanged", f"worst {same:.1e}", same <= 1e-3)
    yield from moment_claims(statistics, before, path, fitting)

    verdict = onnxnorm.verify(path, given.work / "features-scale.onnx", other)
    noise = f"{verdict.max_relative_error:.1e}, runtime's own noise {verdict.noise:.1e}"
    yield Claim(f"features, {len(other)} other photographs, within 1e-5", noise, verdict.max_relative_error <= 1e-5)
    yield Claim("graph the same but for constants' values", str(verdict.graph_identical), verdict.graph_identical)
    verdict = onnxnorm.verify(path, given.work / "features-keep.onnx", other)
    noise = f"{verdict.max_relative_error:.1e}, runtime's own noise {verdict.noise:.1e}"
    holds = verdict.max_relative_error <= 1e-5 and kept.verification is not None
    yield Claim("the same with --outputs keep", noise, holds)
    exact = onnxnorm.rewrite(path, statistics, given.work / "features-exact.onnx", power_of_two=True)
    assert exact.verification is not None
    bits = exact.verification.bit_identical
    yield Claim("--power-of-two is bit-identical", str(bits), bits)


def full(given: argparse.Namespace) -> Iterator[Claim]:
    """The fetched network with its own head."""
    path = given.models / "vgg16_full.onnx"
    inputs = preprocessed(path, given.photos, ImageOptions(preset="unit", resize="squash"))  # its own preprocessing
    fitting, other = inputs[: given.calibrate], inputs[given.calibrate :]
    done = onnxnorm.normalize(path, fitting, given.work / "full.onnx")
    verdict = onnxnorm.verify(path, given.work / "full.onnx", other)
    noise = f"{verdict.max_relative_error:.1e}, runtime's own noise {verdict.noise:.1e}"
    yield Claim("full network, other photographs, within 1e-5", noise, verdict.max_relative_error <= 1e-5)
    free = f"{done.plan.free:,} of {done.plan.filters:,} free, {done.plan.dead} dead"
    yield Claim("full network: every convolution normalized", free, done.plan.free == done.plan.filters)
    dense = "functional_1/dense_1/Cast/ReadVariableOp:0"
    yield Claim("... and the first dense layer compensated", dense, dense in done.rewriting.changed)


def moment_claims(statistics: onnxnorm.Statistics, before: Means, path: Path, inputs: Arrays) -> Iterator[Claim]:
    """Against the float64 oracle, and for other batch sizes."""
    worst = max(float(np.abs(m.mean / before[value.name] - 1).max()) for value, m in statistics.values.items())
    yield Claim("moments within 1e-5 of the float64 oracle", f"worst {worst:.1e}", worst <= 1e-5)
    few = inputs[:21]
    runs = [onnxnorm.calibrate(path, few, batch_size=size).values for size in (1, 3, 7)]
    worst = max(spread(runs, value) for value in runs[0])
    yield Claim("batch sizes 1, 3, 7 agree within 1e-9", f"worst {worst:.1e}", worst <= 1e-9)


def spread(runs: Sequence[Any], value: Value) -> float:
    """How far the means of one value are apart between runs."""
    moments: list[Moments] = [run[value] for run in runs]
    first = moments[0].mean
    return max(float(np.abs(other.mean / first - 1).max()) for other in moments[1:])


def preprocessed(path: Path, photos: Path, options: ImageOptions) -> Arrays:
    """All photographs as inputs of a model, `(1, ...)` each, shuffled by a fixed seed."""
    dataset = open_data(photos, input_specs(Model.open(path)), options)
    arrays = [next(iter(batch.feeds.values())) for batch in dataset.batches(1)]
    order = np.random.default_rng(16).permutation(len(arrays))
    return [arrays[index] for index in order]


def raw_means(path: Path, names: Sequence[str], inputs: Arrays) -> Means:
    """Mean activations in float64, from raw activations."""
    model = onnx.load(path)
    known = {value.name for value in model.graph.output}
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in known)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    sums: Means = {}
    for array in inputs:
        for name, value in zip(names, session.run(list(names), {session.get_inputs()[0].name: array}), strict=True):
            sums[name] = sums.get(name, 0) + np.asarray(value, np.float64).mean(axis=(0, 2, 3))
    return {name: total / len(inputs) for name, total in sums.items()}


def print_table(done: onnxnorm.Rewritten, before: Means, after: Means) -> None:
    """The table of docs/networks.md, as Markdown."""
    print("| layer | filters | mean before: min | median | max | after: min | max | dead |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|")
    for layer in done.rewriting.scales.layers:
        old, new = before[layer.layer.site.value], after[layer.layer.site.value][~layer.dead]
        low, middle, high = old.min(), np.median(old), old.max()
        print(
            f"| {layer.layer.node} | {len(old)} | {low:.3g} | {middle:.3g} | {high:.4g} "
            f"| {new.min():.6f} | {new.max():.6f} | {int(layer.dead.sum())} |"
        )


if __name__ == "__main__":
    sys.exit(main())
