"""Calibration beside bare inference, ONNX Runtime's calibrators and a PyTorch script, on real networks."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.photographs import photographs, repeated
from benchmarks.runs import Case, Machine, MeasurementError, Results, compare, mebibytes, perform, table

__all__ = ["measure"]

BATCH = 8
HISTOGRAMS = 48  # images for the Percentile calibrator, which keeps every activation of each

OURS, BARE, DECODING = "onnxnorm, photographs", "bare inference, arrays", "decoding alone"
OURS_ARRAYS, MINMAX, PERCENTILE = "onnxnorm, .npy", "ORT MinMax, arrays", "ORT Percentile, arrays"
HOOKS = "PyTorch hooks, arrays"

INTRODUCTION = f"""\
End to end from JPEG files, with decoding and preprocessing, beside ONNX Runtime's bare inference of the same inputs
that lie preprocessed in memory, batch {BATCH}, the same threads for everyone. ONNX Runtime's calibrators and the
PyTorch script (forward hooks behind the activations; means per channel) also get arrays in memory; the calibrators
are asked for the activation functions only. *ms per image*: from the end of the first batch to the end; *whole call*:
with model, probe and session set up, without the start of Python. Peak memory is that of the whole process.
Percentile keeps all activations, so it gets {HISTOGRAMS} images at most. Photographs are repeated where there are not
enough."""


@dataclass(frozen=True)
class Network:
    """A network to calibrate, and how its photographs are preprocessed; `peers` tells whether others run it, too."""

    name: str
    path: Path
    preset: str
    size: tuple[int, int]
    images: int
    peers: bool = True


def networks(models: Path, zoo: Path, embedded: Path) -> Iterator[Network]:
    """The networks that this section is about; those of the zoo only if it is there, else the embedded one."""
    yield Network("VGG-16, 13 convolutions", models / "vgg16_features.onnx", "caffe", (224, 224), 96)
    yield Network("VGG-16 with its dense head", models / "vgg16_4096.onnx", "caffe", (224, 224), 64, peers=False)
    if zoo.is_dir():
        yield Network("waifu2x vgg7", zoo / "models" / "waifu2x_vgg7_rgb.onnx", "unit", (128, 128), 96)
        yield Network("svhn vggbn", zoo / "models" / "ccexam_svhn_vggbn.onnx", "unit", (32, 32), 512)
    else:
        yield Network("the embedded VGG", embedded / "demo_vgg.onnx", "unit", (64, 64), 512)


def measure(machine: Machine, models: Path, zoo: Path, embedded: Path) -> str:
    """The section's text."""
    sources = photographs(zoo / "images") or photographs(embedded / "images")
    parts = [INTRODUCTION]
    for network in networks(models, zoo, embedded):
        print(f"calibrate: {network.name}", flush=True)
        size = "x".join(map(str, network.size))
        parts.append(f"### {network.name} ({network.path.name}, {size})")
        if not network.path.is_file():
            parts.append(
                f"Not measured: there is no {network.path.name}; run tools/fetch_models.py, tools/make_full_vgg.py."
            )
            continue
        parts.append(_measured(machine, network, sources))
    return "\n\n".join(parts)


def _measured(machine: Machine, network: Network, sources: list[Path]) -> str:
    images = max(network.images // 4, 2 * BATCH) if machine.quick else network.images
    folder = machine.work / network.path.stem
    given: dict[str, Any] = {
        "model": str(network.path),
        "photos": str(repeated(sources, images, folder)),
        "arrays": str(folder.with_suffix(".npy")),
        "images": images,
        "batch": BATCH,
        "threads": machine.threads,
        "preset": network.preset,
        "size": network.size,
        "operators": ["Relu", "LeakyRelu"],
    }
    try:
        perform(Case("preprocessing", "preprocess", given))
    except MeasurementError as error:
        return f"Not measured: {error}."
    results = compare(list(_cases(machine, network, given)), machine.rounds)
    Path(given["arrays"]).unlink()
    return "\n\n".join([_table(results), *_claims(results), *results.notes()])


def _cases(machine: Machine, network: Network, given: dict[str, Any]) -> Iterator[Case]:
    yield Case(BARE, "bare", given)
    yield Case(OURS, "photos", given)
    yield Case(OURS_ARRAYS, "arrays", given)
    yield Case(DECODING, "decoding", given)
    if not network.peers:
        return
    yield Case(MINMAX, "minmax", given)
    if machine.torch_python:
        yield _hooks(machine.torch_python, given)
    yield Case(PERCENTILE, "percentile", given | {"images": min(HISTOGRAMS, given["images"])}, rounds=2)


def _hooks(python: str, given: dict[str, Any]) -> Case:
    script = Path(__file__).with_name("torch_hooks.py")
    return Case(HOOKS, command=(python, str(script), json.dumps(given)))


def _table(results: Results) -> str:
    rows = [
        (
            name,
            f"{results.median(name, 'images'):.0f}",
            f"{results.median(name, 'ms'):.2f}",
            f"{results.ratio(name, BARE, 'ms'):.2f}" if results.has(BARE) else "",
            f"{results.median(name, 'seconds'):.2f}",
            mebibytes(results.median(name, "memory")),
        )
        for name in results.rounds
    ]
    return table(("", "images", "ms per image", "to bare inference", "whole call, s", "peak memory, MiB"), rows)


def _claims(results: Results) -> Iterator[str]:
    """How much faster ours is than the others, and how close to what must be done anyway."""
    if not results.has(OURS):
        return
    floors = [name for name in (BARE, DECODING) if results.has(name)]
    floor = max(floors, key=lambda name: results.median(name, "ms"))
    lines = [f"{results.ratio(OURS, floor, 'ms'):.2f} times {floor}, the slower of decoding and inference"]
    others = [name for name in (MINMAX, HOOKS, PERCENTILE) if results.has(name)]
    lines += [f"{results.ratio(name, OURS, 'ms'):.2f} times as fast as {name}" for name in others]
    yield f"{OURS}: {'; '.join(lines)}."
