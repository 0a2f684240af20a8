"""Rewriting a model of full size beside loading and saving it."""

from __future__ import annotations

import sys
from pathlib import Path

from tools.benchmarks.runs import Case, Machine, MeasurementError, compare, mebibytes, perform, table

__all__ = ["measure"]

OURS, SAVED = "onnxnorm rewrite --no-verify", "onnx.load + onnx.save"
POWERS = f"{OURS} --power-of-two"
COPY = "import sys, onnx; onnx.save(onnx.load(sys.argv[1]), sys.argv[2])"
COMMAND = "from onnxnorm.cli import main; main()"


def measure(machine: Machine, models: Path) -> str:
    """The section's text."""
    model = models / "vgg16_4096.onnx"
    if not model.is_file():
        return f"Not measured: there is no {model.name}; run tools/models/fetch.py and tools/models/full_vgg.py."
    print("rewrite", flush=True)
    statistics, output = machine.work / "vgg16_4096.safetensors", machine.work / "rewritten.onnx"
    try:
        perform(Case("statistics", "random_statistics", {"model": str(model), "statistics": str(statistics)}))
    except MeasurementError as error:
        return f"Not measured: {error}."
    ours = (
        "-c",
        COMMAND,
        "rewrite",
        str(model),
        "--stats",
        str(statistics),
        "-o",
        str(output),
        "--no-verify",
        "--quiet",
    )
    cases = [
        Case(SAVED, command=(sys.executable, "-c", COPY, str(model), str(output)), reports=False),
        Case(OURS, command=(sys.executable, *ours), reports=False),
        Case(POWERS, command=(sys.executable, *ours, "--power-of-two"), reports=False),
    ]
    results = compare(cases, machine.rounds)
    output.unlink(missing_ok=True)
    rows = [
        (
            name,
            f"{results.median(name, 'wall'):.2f}",
            f"{results.ratio(name, SAVED, 'wall'):.2f}",
            mebibytes(results.median(name, "memory")),
            f"{results.ratio(name, SAVED, 'memory'):.2f}",
        )
        for name in results.rounds
    ]
    header = ("", "seconds", "to load + save", "peak memory, MiB", "to load + save")
    text = f"{model.name}, {model.stat().st_size / 1e6:.0f} MB, each in a process of its own, start of Python included."
    return "\n\n".join([text, table(header, rows), *results.notes()])
