"""Calibration beside bare inference on every network at hand, each with the batch free and fixed at 1.

Inputs are arrays, so that nothing is decoded, and start-up is left out: what remains is what measuring costs. *Bare* is
ONNX Runtime on the same file and the same arrays, all threads, at the best of batch 1 and 8 that the file allows; ours
is without options.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from tools.benchmarks.claims import Claim, asked_and_held
from tools.benchmarks.networks import BATCH
from tools.benchmarks.runs import Case, Machine, MeasurementError, Results, compare, mebibytes, perform, table

__all__ = ["measure"]

OURS, BARE_ONE, BARE_EIGHT = "onnxnorm", "bare, batch 1", f"bare, batch {BATCH}"
LIMIT = 1.05  # times bare inference, asked for on every network
SECONDS = 4.0  # of bare inference in one measurement
FEWEST, MOST = 4 * BATCH, 4096  # images
OPEN_SIDE = 224
EXPORTED = ("resnet50", "mobilenet_v2", "mobilenet_v3", "efficientnet_b0", "yolov8n", "inception_v3")

INTRODUCTION = f"""\
{(__doc__ or "").partition(chr(10) * 2)[2].strip()} Open sizes are {OPEN_SIDE}. *ms per image* is from the end of the
first batch to the end of the last one, *CPU* the same in all threads of the process, *memory* the peak of the whole
process."""


def measure(machine: Machine, models: Path, zoo: Path, exported: Path, embedded: Path) -> str:
    """The section's text."""
    rows, notes, claims = list[tuple[str, ...]](), list[str](), list[Claim]()
    for path in _networks(models, zoo, exported, embedded):
        for fixed in (False, True):
            name = f"{path.stem}{', batch fixed at 1' if fixed else ''}"
            print(f"every: {name}", flush=True)
            try:
                results = _measured(machine, path, fixed=fixed)
                bare = min((n for n in (BARE_ONE, BARE_EIGHT) if results.has(n)), key=lambda n: results.median(n, "ms"))
                rows.append(_row(name, results, bare))
                claims += _claims(name, results, bare)
            except (MeasurementError, ValueError, KeyError) as error:
                notes.append(f"*{name}* was not measured: {error}.")
    header = ("", "images", "bare, ms per image", "ours", "to bare", "CPU to bare", "memory, MiB", "bare, MiB")
    return "\n\n".join([INTRODUCTION, table(header, rows), *notes, *asked_and_held(claims)])


def _networks(models: Path, zoo: Path, exported: Path, embedded: Path) -> Iterator[Path]:
    yield from (path for path in (models / "vgg16_features.onnx", embedded / "demo_vgg.onnx") if path.is_file())
    yield from sorted((zoo / "models").glob("*.onnx"))
    yield from (path for name in EXPORTED if (path := exported / f"{name}.onnx").is_file())


def _measured(machine: Machine, path: Path, *, fixed: bool) -> Results:
    given = _prepared(machine, path, fixed=fixed)
    sizes = [1] if given["fixed"] else [1, BATCH]
    cases = [Case(BARE_ONE if size == 1 else BARE_EIGHT, "bare", given | {"batch": size}) for size in sizes]
    results = compare([*cases, Case(OURS, "arrays", given | {"batch": None})], machine.rounds)
    Path(given["arrays"]).unlink()
    if not results.has(OURS) or not results.has(BARE_ONE):
        raise MeasurementError("; ".join(results.failed.values()))
    return results


def _prepared(machine: Machine, path: Path, *, fixed: bool) -> dict[str, Any]:
    """The arguments of a measurement; the model is written with an open batch, or one of 1, and arrays for it."""
    proto = onnx.load(path)
    (source,) = [v for v in proto.graph.input if v.name not in {tensor.name for tensor in proto.graph.initializer}]
    batch, *dims = source.type.tensor_type.shape.dim
    was_fixed = batch.HasField("dim_value") and batch.dim_value > 0
    if fixed:
        batch.dim_value = 1
        model = machine.work / path.name
        onnx.save(proto, model)
    else:
        model = path
    sample = [dim.dim_value or OPEN_SIDE for dim in dims]
    if was_fixed and not fixed:
        raise ValueError("its batch is fixed in the file")
    given: dict[str, Any] = {
        "model": str(model),
        "arrays": str(machine.work / f"{path.stem}.npy"),
        "threads": machine.threads,
        "batch": 1 if fixed else BATCH,
        "fixed": fixed,
    }
    _write(given["arrays"], FEWEST, sample)
    trial = perform(Case(BARE_ONE, "bare", given | {"batch": 1, "images": FEWEST}))
    wanted = SECONDS * 1000 / trial.report["ms"] / (4 if machine.quick else 1)
    images = int(np.clip(wanted, FEWEST, MOST)) // BATCH * BATCH
    _write(given["arrays"], images, sample)
    return given | {"images": images}


def _write(path: str, images: int, sample: list[int]) -> None:
    random = np.random.default_rng(0)
    rows = np.lib.format.open_memmap(path, "w+", np.float32, (images, *sample))
    for row in rows:
        row[...] = random.random(sample, np.float32)
    rows.flush()


def _row(name: str, results: Results, bare: str) -> tuple[str, ...]:
    return (
        name,
        f"{results.median(OURS, 'images'):.0f}",
        f"{results.median(bare, 'ms'):.2f}",
        f"{results.median(OURS, 'ms'):.2f}",
        f"{results.ratio(OURS, bare, 'ms'):.2f}",
        f"{results.ratio(OURS, bare, 'cpu'):.2f}",
        mebibytes(results.median(OURS, "memory")),
        mebibytes(results.median(bare, "memory")),
    )


def _claims(name: str, results: Results, bare: str) -> Iterator[Claim]:
    yield Claim(f"{name}: time to *bare*", LIMIT, results.ratio(OURS, bare, "ms"), results.ratio(OURS, bare, "seconds"))
