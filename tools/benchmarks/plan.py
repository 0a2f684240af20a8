"""How planning and rewriting grow with the number of nodes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tools.benchmarks.runs import Case, Machine, Results, compare, mebibytes, perform, table

__all__ = ["measure"]

SIZES = (100, 1000, 5000)
FAMILIES = ("mixed", "residual", "relu6", "gated")

INTRODUCTION = """\
Synthetic networks of 16 channels. *mixed*: blocks of Conv, BatchNormalization, Relu, the Add of a residual, two
branches and a Concat, a Sigmoid gate, MaxPool. *residual*: one trunk that all blocks add to. *relu6*: Clip
everywhere, its two bounds shared by all. *gated*: a trunk that is multiplied by one linear branch after the other.
`rewrite` is in memory, without verification, on invented statistics. Each call runs in a process of its own that has
done the same to the smallest network before, so that imports do not count; they make up most of the memory of the
small ones."""


def measure(machine: Machine) -> str:
    """The section's text."""
    sizes = SIZES[:2] if machine.quick else SIZES
    parts = [INTRODUCTION]
    for family in FAMILIES:
        print(f"plan: {family}", flush=True)
        given = {size: _network(machine.work, family, size) for size in sizes}
        small = {"small": given[sizes[0]]["model"], "small_statistics": given[sizes[0]]["statistics"]}
        cases = [
            Case(f"{verb} {size}", verb, small | given[size], limit=60)
            for size in sizes
            for verb in ("plan", "rewrite")
        ]
        results = compare(cases, machine.rounds)
        parts += [f"### {family}", _table(results, {size: given[size]["nodes"] for size in sizes}), *results.notes()]
    return "\n\n".join(parts)


def _network(folder: Path, family: str, size: int) -> dict[str, Any]:
    stem = folder / f"{family}_{size}"
    given = {
        "family": family,
        "nodes": size,
        "model": str(stem.with_suffix(".onnx")),
        "statistics": str(stem.with_suffix(".safetensors")),
    }
    return given | dict(perform(Case(f"{family} {size}", "synthetic", given)).report)


def _table(results: Results, nodes: dict[int, int]) -> str:
    header = ["nodes"]
    for verb in ("plan", "rewrite"):
        header += [f"{verb}, s", "µs per node", "peak memory, MiB"]
    rows = [(f"{count:,}", *_cells(results, size, count)) for size, count in nodes.items()]
    return table(header, rows)


def _cells(results: Results, size: int, nodes: int) -> Iterator[str]:
    for verb in ("plan", "rewrite"):
        name = f"{verb} {size}"
        if not results.has(name):
            yield from ("", "", "")
            continue
        seconds = results.median(name, "seconds")
        yield f"{seconds:.2f}"
        yield f"{seconds / nodes * 1e6:.0f}"
        yield mebibytes(results.median(name, "memory"))
