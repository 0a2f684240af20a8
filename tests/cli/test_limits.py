"""Limits of the system, with real processes: files that may not grow, and few descriptors. A message, and no litter."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from tests.helpers.calibrations import net
from tests.helpers.commands import DEMO, IMAGES, succeeded

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits as Linux has them")


def limited(kind: str, most: int, *words: object) -> tuple[int, str]:
    """Run a command with a limit; exit code and standard error."""
    command = [sys.executable, "-c", LIMITED, kind, str(most), *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    return done.returncode, done.stderr


LIMITED = """
import resource, sys
from onnxnorm.cli import main
from onnxnorm.cli import app  # what is imported later needs descriptors, too
kind, most = getattr(resource, sys.argv[1]), int(sys.argv[2])
resource.setrlimit(kind, (most, resource.getrlimit(kind)[1]))
sys.argv[:3] = ["onnxnorm"]
main()
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with statistics, of all images and of halves, and a rewritten model."""
    folder = tmp_path_factory.mktemp("made")
    succeeded("calibrate", DEMO, IMAGES, "--preset", "unit", "-o", folder / "s.safetensors")
    succeeded("rewrite", DEMO, "--stats", folder / "s.safetensors", "-o", folder / "r.onnx")
    for half in (0, 1):
        succeeded("calibrate", DEMO, IMAGES, "--preset", "unit", "--shard", f"{half}/2", "-o", folder / f"{half}.st")
    return folder


def outside(proto: onnx.ModelProto, path: Path) -> None:
    onnx.save_model(proto, path, save_as_external_data=True, location=f"{path.stem}.data", size_threshold=0)


COMMANDS: dict[str, Callable[[Path], list[Any]]] = {
    "calibrate": lambda made: ["calibrate", DEMO, IMAGES, "--preset", "unit"],
    "merge": lambda made: ["merge", made / "0.st", made / "1.st"],
    "rewrite": lambda made: ["rewrite", DEMO, "--stats", made / "s.safetensors"],
    "normalize": lambda made: ["normalize", DEMO, IMAGES, "--preset", "unit"],
    "restore": lambda made: ["restore", made / "r.onnx"],
    "report": lambda made: ["report", DEMO, "--stats", made / "s.safetensors"],
}


@pytest.mark.parametrize("there", [False, True])
@pytest.mark.parametrize("name", COMMANDS)
def test_a_file_that_cannot_be_written_to_its_end(name: str, there: bool, made: Path, tmp_path: Path) -> None:
    """As on a disk that fills up, in the middle of the file: the old one stays, and nothing beside it."""
    out = tmp_path / "out.safetensors"
    if there:
        out.write_bytes(b"old")
    code, said = limited("RLIMIT_FSIZE", 2000, *COMMANDS[name](made), "-o", out)
    assert (code, "bug" in said, "Traceback" in said) == (1, False, False), said
    assert "File too large" in said
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == ({out.name: b"old"} if there else {})


def test_external_data_that_cannot_be_written_to_its_end(tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    outside(onnx.load(DEMO), source / "m.onnx")
    target = tmp_path / "out"
    target.mkdir()
    code, said = limited(
        "RLIMIT_FSIZE", 20000, "rewrite", source / "m.onnx", "--statistic", "weights", "-o", target / "m.onnx"
    )
    assert (code, "bug" in said) == (1, False), said
    assert "File too large" in said
    assert list(target.iterdir()) == []


@pytest.mark.parametrize("name", ["calibrate", "rewrite", "normalize", "restore", "report"])
@pytest.mark.parametrize("most", [4, 8])
def test_very_few_descriptors(name: str, most: int, made: Path, tmp_path: Path) -> None:
    """It works, or says so."""
    out = tmp_path / "out.safetensors"
    code, said = limited("RLIMIT_NOFILE", most, *COMMANDS[name](made), "-o", out)
    assert ("bug" in said, "Traceback" in said) == (False, False), said
    assert [path.name for path in tmp_path.iterdir()] == ([out.name] if code == 0 else [])
    assert code == 0 or "Too many open files" in said, said


def test_more_arrays_than_descriptors(tmp_path: Path) -> None:
    onnx.save(net(), tmp_path / "m.onnx")
    data = tmp_path / "data"
    data.mkdir()
    for index in range(100):
        np.save(data / f"{index}.npy", np.full((2, 3, 8, 8), index, np.float32))
    descriptors = len(os.listdir("/proc/self/fd"))
    assert descriptors < 60
    code, said = limited("RLIMIT_NOFILE", 60, "calibrate", tmp_path / "m.onnx", data, "-o", tmp_path / "s.safetensors")
    assert code == 0, said
