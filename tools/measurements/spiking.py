"""Rate coding: accuracy of a digit network as spiking neurons, with one threshold a layer, before and after a rewrite.

    python3 -m venv build/spiking
    build/spiking/bin/pip install -e . torch nir onnxscript
    build/spiking/bin/python -m tools.measurements.spiking

A small network with average pooling (NIR has no max pooling) is trained on 4,000 of the 5,000 MNIST digits of
`tools.measurements.digits`, calibrated on these, and rewritten with `--per layer`, so that a threshold of 1 serves
every layer. Each version is written as a NIR file, with the thresholds of `onnxnorm export --thresholds` of that
version, read back, and run on the other 1,000 digits by the simulator of `tools.measurements.nir_graph`.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

import onnxnorm
from tools.measurements.digits import digits, predictions
from tools.measurements.nir_graph import simulate, write_nir

STEPS = (8, 32, 128)
STATISTICS = ("max", "p99.9:nonzero", "p99:nonzero", "mean")
TRAINED = 4000


def main() -> None:
    torch.manual_seed(0)
    pixels, labels = digits()
    order = np.random.default_rng(0).permutation(len(pixels))
    images, labels = (pixels[order, np.newaxis] / np.float32(255)).astype(np.float32), labels[order]
    print("| network | threshold | reset | " + " | ".join(f"{steps} steps" for steps in STEPS) + " |")
    print("|---|---|---|" + "---:|" * len(STEPS))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        trained(images[:TRAINED], labels[:TRAINED], folder / "plain.onnx")
        test, truth = images[TRAINED:], labels[TRAINED:]
        found = predictions(folder / "plain.onnx", test)
        print(f"| not spiking | | | {(found == truth).mean():.1%} |" + " |" * (len(STEPS) - 1), flush=True)
        rows(folder / "plain.onnx", "as trained", {}, test, truth)
        for statistic in STATISTICS:
            path = folder / "normalized.onnx"
            words: dict[str, Any] = {"statistic": statistic, "per": "layer", "filters": "all"}
            onnxnorm.normalize(folder / "plain.onnx", images[:TRAINED], path, **words)
            known = thresholds(path, images[:TRAINED], statistic)
            rows(path, f"`--per layer --statistic {statistic}`", known, test, truth)


def trained(images: NDArray[np.float32], labels: NDArray[np.int64], path: Path) -> None:
    """Train the network, and export it."""
    network = nn.Sequential(
        nn.Conv2d(1, 8, 5, padding=2), nn.ReLU(), nn.AvgPool2d(2),
        nn.Conv2d(8, 16, 5, padding=2), nn.ReLU(), nn.AvgPool2d(2),
        nn.Flatten(), nn.Linear(784, 64), nn.ReLU(), nn.Linear(64, 10),
    )  # fmt: skip
    optimizer = torch.optim.Adam(network.parameters(), 2e-3)
    for _ in range(12):
        for batch in torch.randperm(len(images)).split(64):
            optimizer.zero_grad()
            loss = functional.cross_entropy(network(torch.from_numpy(images)[batch]), torch.from_numpy(labels)[batch])
            loss.backward()
            optimizer.step()
    example, names = torch.from_numpy(images[:1]), {"input_names": ["x"], "output_names": ["y"]}
    torch.onnx.export(network, (example,), path, dynamo=False, dynamic_axes={"x": {0: "n"}, "y": {0: "n"}}, **names)


def thresholds(path: Path, images: NDArray[np.float32], statistic: str) -> dict[str, float]:
    """What `onnxnorm export --thresholds` says of a network, by the value that each layer writes."""
    more = () if statistic in {"max", "mean"} else (statistic,)
    measured = onnxnorm.calibrate(path, images, measure=more, filters="all")
    target = path.with_suffix(".json")
    onnxnorm.export_thresholds(path, measured, target, statistic=statistic)
    rows = json.loads(target.read_text(encoding="utf-8"))["layers"]
    outputs = {node.name: node.output[0] for node in onnx.load(path).graph.node}
    return {outputs[row["layer"]]: float(row["threshold"]) for row in rows}


def rows(
    path: Path, name: str, known: dict[str, float], images: NDArray[np.float32], labels: NDArray[np.int64]
) -> None:
    """Print the accuracy of a network as a NIR graph, with both kinds of reset."""
    model = onnx.load(path)
    given: dict[str, Any] = {node.output[0]: 1.0 for node in model.graph.node} | known
    write_nir(model, given, path.with_suffix(".nir"))
    used = [given[node.input[0]] for node in model.graph.node if node.op_type == "Relu"]
    shown = f"{min(used):.3g}" if np.ptp(used) < 1e-3 else f"{min(used):.3g} to {max(used):.3g}"
    for reset in ("to zero, as NIR says", "by subtraction"):
        found = []
        for steps in STEPS:
            spikes = simulate(path.with_suffix(".nir"), images, steps, subtract=reset == "by subtraction")
            found.append(f"{(spikes.argmax(axis=1) == labels).mean():.1%}")
        print(f"| {name} | {shown} | {reset} | {' | '.join(found)} |", flush=True)


if __name__ == "__main__":
    main()
