"""How the cost of calibration grows with the number of images."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from tools.benchmarks.claims import Claim, asked_and_held
from tools.benchmarks.networks import ACTIVATIONS, BATCH, Network, embedded_vgg, prepared, svhn
from tools.benchmarks.photographs import photographs
from tools.benchmarks.runs import Case, Machine, Results, compare, mebibytes, perform, table

__all__ = ["measure"]

COUNTS = (64, 256, 1024, 4096)
HISTOGRAMS = 1024  # images, for the Percentile calibrator
ROWS = 3300  # of 3 MiB: 10 GB
LINEAR, FLAT = 1.1, 1.05  # such machines drift by a tenth

PHOTOGRAPHS, PERCENTILE = "photographs", "ORT Percentile, arrays"
KINDS = {PHOTOGRAPHS: "photos", ".npy": "arrays", PERCENTILE: "percentile"}

INTRODUCTION = f"""\
Photographs are repeated, batch {BATCH}. ONNX Runtime's Percentile calibrator (the activation functions only, arrays in
memory, one round) stands beside the embedded network up to {HISTOGRAMS:,} images. Cost is called linear if an image
more costs the same from the fewest images to the most, within a factor of {LINEAR}, and memory flat if it stays the
same, within a factor of {FLAT}."""


def measure(machine: Machine, zoo: Path, embedded: Path) -> str:
    """The section's text."""
    counts = COUNTS[:3] if machine.quick else COUNTS
    own, shared = photographs(embedded / "images"), photographs(zoo / "images")
    parts, claims = [INTRODUCTION], list[Claim]()
    for network, sources, kinds in (
        (embedded_vgg(embedded), own, tuple(KINDS)),
        (svhn(zoo), shared or own, tuple(KINDS)[:2]),
    ):
        if not network.path.is_file():
            continue
        print(f"images: growth, {network.name}", flush=True)
        given = prepared(machine, network, sources, max(counts))
        results = compare(list(_cases(given, counts, kinds)), machine.rounds)
        Path(given["arrays"]).unlink()
        parts += [f"### {network.title}", _table(results, counts, kinds), *results.notes()]
        claims += _claims(network, results, counts)
    return "\n\n".join([*parts, "### A file larger than memory", _stream(machine), *asked_and_held(claims)])


def _cases(given: dict[str, Any], counts: tuple[int, ...], kinds: tuple[str, ...]) -> Iterator[Case]:
    more = {"operators": ACTIVATIONS, "feed": "arrays"}
    for count in counts:
        for kind in kinds:
            case = Case(_name(kind, count), KINDS[kind], given | more | {"images": count})
            if kind != PERCENTILE:
                yield case
            elif count <= HISTOGRAMS:
                yield replace(case, rounds=1)


def _name(kind: str, count: int) -> str:
    return f"{kind}, {count}"


def _table(results: Results, counts: tuple[int, ...], kinds: tuple[str, ...]) -> str:
    rows = [
        (
            kind,
            f"{count:,}",
            f"{results.median(name, 'ms'):.2f}",
            f"{results.median(name, 'seconds'):.2f}",
            mebibytes(results.median(name, "memory")),
            f"{results.ratio(name, _name(kind, counts[0]), 'memory'):.2f}",
        )
        for kind in kinds
        for count in counts
        if results.has(name := _name(kind, count))
    ]
    return table(("", "images", "ms per image", "whole call, s", "peak memory, MiB", f"to {counts[0]} images"), rows)


def _claims(network: Network, results: Results, counts: tuple[int, ...]) -> Iterator[Claim]:
    """Linear and flat, from the fewest images to the most."""
    first, middle, last = (counts[index] for index in (0, -2, -1))
    for kind in tuple(KINDS)[:2]:
        names = [_name(kind, count) for count in (first, middle, last)]
        if not all(results.has(name) for name in names):
            continue
        rounds = zip(*(results.numbers(name, "seconds") for name in names), strict=False)
        growth = statistics.median(
            (most - some) / (last - middle) / ((some - least) / (middle - first)) for least, some, most in rounds
        )
        ends = f"{middle:,} to {last:,} images, to the same from {first:,} to {middle:,}"
        yield Claim(f"{network.name}, {kind}: cost of an image more from {ends}", LINEAR, growth)
        memory = results.ratio(names[-1], names[0], "memory")
        yield Claim(f"{network.name}, {kind}: memory at {last:,} images to {first:,}", FLAT, memory)


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
