"""How planning and rewriting grow with the number of nodes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tools.benchmarks.runs import Case, Machine, Results, compare, mebibytes, perform, table

__all__ = ["measure"]

SMALLEST = 100
FAMILIES = ("mixed", "residual", "relu6", "silu", "gated")
SIZES = (1250, 2500, 5000, 10_000)

INTRODUCTION = """\
Synthetic networks of 16 channels. *mixed*: blocks of Conv, BatchNormalization, Relu, the Add of a residual, two
branches and a Concat, a Sigmoid gate, MaxPool. *residual*: one trunk that all blocks add to. *relu6*: Clip
everywhere, its two bounds shared by all. *silu*: `x * Sigmoid(x)` behind every Conv. *gated*: a trunk that is
multiplied by one linear branch after the other, so that the last product depends on all branches. `rewrite` is in
memory, without verification, on invented statistics. Seconds are of CPU time, and *ratio* is to the row above. Each
call runs in a process of its own that has done the same to a network of 100 nodes before, so that imports do not count;
they make up most of the memory of the small ones."""


def measure(machine: Machine) -> str:
    """The section's text."""
    parts = [INTRODUCTION]
    sizes = SIZES[:2] if machine.quick else SIZES
    for family in FAMILIES:
        print(f"plan: {family}", flush=True)
        given = {size: _network(machine.work, family, size) for size in sizes}
        smallest = _network(machine.work, family, SMALLEST)
        small = {"small": smallest["model"], "small_statistics": smallest["statistics"]}
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
        header += [f"{verb}, s", "ratio", "µs per node", "peak memory, MiB"]
    above = [None, *nodes]
    rows = [(f"{count:,}", *_cells(results, size, count, above[k])) for k, (size, count) in enumerate(nodes.items())]
    return table(header, rows)


def _cells(results: Results, size: int, nodes: int, above: int | None) -> Iterator[str]:
    for verb in ("plan", "rewrite"):
        name, before = f"{verb} {size}", f"{verb} {above}"
        if not results.has(name):
            yield from ("", "", "", "")
            continue
        seconds = results.median(name, "seconds")
        yield f"{seconds:.2f}"
        yield f"{seconds / results.median(before, 'seconds'):.2f}" if results.has(before) else ""
        yield f"{seconds / nodes * 1e6:.0f}"
        yield mebibytes(results.median(name, "memory"))
