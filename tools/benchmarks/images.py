"""How the cost of calibration grows with the number of images."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.photographs import photographs, repeated
from benchmarks.runs import Case, Machine, Results, compare, mebibytes, perform, table

__all__ = ["measure"]

COUNTS = (64, 256, 1024, 4096)
HISTOGRAMS = 1024  # images, for the Percentile calibrator
BATCH = 8
ROWS = 3300  # of 3 MiB: 10 GB

INTRODUCTION = """\
The embedded VGG at 64x64, batch 8, the embedded photographs repeated. ONNX Runtime's Percentile calibrator (the
activation functions only) stands beside it up to 1,024 images."""

Kind = tuple[str, str]
KINDS: tuple[Kind, ...] = (("photos", "photographs"), ("arrays", ".npy"), ("percentile", "ORT Percentile, arrays"))


def measure(machine: Machine, embedded: Path) -> str:
    """The section's text."""
    counts = COUNTS[:2] if machine.quick else COUNTS
    folder = machine.work / "growth"
    given: dict[str, Any] = {
        "model": str(embedded / "demo_vgg.onnx"),
        "photos": str(repeated(photographs(embedded / "images"), max(counts), folder)),
        "arrays": str(folder.with_suffix(".npy")),
        "batch": BATCH,
        "threads": machine.threads,
        "preset": "unit",
        "size": (64, 64),
        "operators": ["Relu"],
    }
    print("images: growth", flush=True)
    perform(Case("preprocessing", "preprocess", given))
    results = compare(list(_cases(given, counts)), machine.rounds)
    Path(given["arrays"]).unlink()
    return "\n\n".join([INTRODUCTION, _table(results, counts), *results.notes(), _stream(machine)])


def _cases(given: dict[str, Any], counts: tuple[int, ...]) -> Iterator[Case]:
    for count in counts:
        for kind, label in KINDS:
            if kind != "percentile" or count <= HISTOGRAMS:
                yield Case(f"{label}, {count}", kind, given | {"images": count})


def _table(results: Results, counts: tuple[int, ...]) -> str:
    rows = []
    for _, label in KINDS:
        for count in counts:
            name = f"{label}, {count}"
            if not results.has(name):
                continue
            rows.append(
                (
                    label,
                    f"{count:,}",
                    f"{results.median(name, 'ms'):.2f}",
                    f"{results.median(name, 'seconds'):.2f}",
                    mebibytes(results.median(name, "memory")),
                    f"{results.ratio(name, f'{label}, {counts[0]}', 'memory'):.2f}",
                )
            )
    return table(("", "images", "ms per image", "whole call, s", "peak memory, MiB", f"to {counts[0]} images"), rows)


def _stream(machine: Machine) -> str:
    """A file that is larger than what may be held in memory."""
    print("images: a large file", flush=True)
    folder = machine.work
    images = ROWS // 10 if machine.quick else ROWS
    given: dict[str, Any] = {
        "model": str(folder / "sparse.onnx"),
        "arrays": str(folder / "sparse.npy"),
        "rows": ROWS,
        "images": images,
        "batch": BATCH,
        "threads": machine.threads,
    }
    perform(Case("sparse file", "sparse", given))
    size = Path(given["arrays"]).stat().st_size
    results = compare([Case("stream", "arrays", given), Case("import", "nothing", {})], 1)
    Path(given["arrays"]).unlink()
    if not results.has("stream"):
        return "\n\n".join(results.notes())
    seconds, memory = results.median("stream", "seconds"), mebibytes(results.median("stream", "memory"))
    return (
        f"A sparse .npy file of {size / 1e9:.1f} GB, {ROWS:,} inputs of 3 MiB, through one convolution: {images:,} of "
        f"them in {seconds:.1f} s, peak memory {memory} MiB ({mebibytes(results.median('import', 'memory'))} MiB are "
        "there as soon as the library is imported)."
    )
