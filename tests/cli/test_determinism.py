"""The same command on the same input writes the same bytes: statistics files, rewritten models and pages."""

from __future__ import annotations

from pathlib import Path

import onnxnorm
from tests.helpers.commands import DEMO, IMAGES, succeeded


def written(folder: Path) -> dict[str, bytes]:
    """What three commands write on the demo network, by file name."""
    folder.mkdir()
    stats, model, page = folder / "a.safetensors", folder / "a.onnx", folder / "a.html"
    succeeded("calibrate", DEMO, IMAGES, "--preset", "unit", "--measure", "rms", "--measure", "p99.9", "-o", stats)
    succeeded("rewrite", DEMO, "--stats", stats, "--outputs", "scale", "-o", model)
    succeeded("report", DEMO, model, "--stats", stats, "-o", page)
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_two_runs_write_the_same_bytes(tmp_path: Path) -> None:
    first, second = written(tmp_path / "first"), written(tmp_path / "second")
    assert list(first) == ["a.html", "a.onnx", "a.safetensors"]
    assert {name: data.replace(b"/first/", b"/second/") for name, data in first.items()} == second


def test_the_api_measures_what_the_command_measures(tmp_path: Path) -> None:
    files = written(tmp_path / "command")
    stats = onnxnorm.calibrate(DEMO, [IMAGES], preset="unit", measure=("rms", "p99.9"))
    stats.save(tmp_path / "api.safetensors")
    assert (tmp_path / "api.safetensors").read_bytes() == files["a.safetensors"]
