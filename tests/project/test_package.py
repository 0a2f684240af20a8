"""What `make dist` refuses, and what people see of the package: its version, its citation, `python -m onnxnorm`."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import onnxnorm
from tools.checks.package import METADATA, NEEDED, PackageError, in_source_archive, in_wheel, only, problems

ROOT = Path(__file__).resolve().parents[2]
INFO = "onnxnorm-1.0.dist-info"
SOURCE = NEEDED | {"PKG-INFO", "README.md", "models/demo_vgg.onnx"}
WHEEL = NEEDED | {f"{INFO}/{name}" for name in METADATA}
TRACKED = SOURCE - {"PKG-INFO"}


def test_right_archives_pass() -> None:
    assert problems(SOURCE, WHEEL, TRACKED, INFO) == []


@pytest.mark.parametrize(
    ("source", "wheel", "problem"),
    [
        (SOURCE | {"notes.txt"}, WHEEL, "source archive: notes.txt does not belong there"),
        (SOURCE - {"models/demo_vgg.onnx"}, WHEEL, "source archive: models/demo_vgg.onnx is missing"),
        (SOURCE, WHEEL | {"tests/__init__.py"}, "wheel: tests/__init__.py does not belong there"),
        (SOURCE, WHEEL - {"onnxnorm/py.typed"}, "wheel: onnxnorm/py.typed is missing"),
        (SOURCE, WHEEL - {f"{INFO}/licenses/LICENSE"}, f"wheel: {INFO}/licenses/LICENSE is missing"),
    ],
)
def test_what_is_missing_or_too_much_is_named(source: set[str], wheel: set[str], problem: str) -> None:
    assert problems(source, wheel, TRACKED, INFO) == [problem]


def test_files_that_the_package_needs_are_missed_in_both_archives() -> None:
    """If the source archive lacks a file, the wheel that is built from it does too: that is no agreement."""
    gone = {"onnxnorm/py.typed"}
    assert problems(SOURCE - gone, WHEEL - gone, TRACKED - gone, INFO) == ["wheel: onnxnorm/py.typed is missing"]


def test_names_in_archives(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as source:
        source.add(ROOT / "LICENSE", "onnxnorm-1.0/docs/LICENSE")
    with zipfile.ZipFile(tmp_path / "a.whl", "w") as wheel:
        wheel.writestr("onnxnorm/", "")
        wheel.writestr("onnxnorm/py.typed", "")
    assert in_source_archive(tmp_path / "a.tar.gz") == {"docs/LICENSE"}
    assert in_wheel(tmp_path / "a.whl") == {"onnxnorm/py.typed"}
    with pytest.raises(PackageError, match="one archive was expected, there are 2"):
        only(tmp_path.iterdir())


def test_what_the_archives_need_is_here() -> None:
    assert [name for name in NEEDED if not (ROOT / name).is_file()] == []


def test_the_package_runs_as_a_module() -> None:
    command = [sys.executable, "-m", "onnxnorm", "--version"]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert onnxnorm.__version__ in ran.stdout


def test_the_citation_is_of_this_version() -> None:
    text = (ROOT / "CITATION.cff").read_text("utf-8")
    assert re.findall(r"^version: (.*)$", text, re.MULTILINE) == [onnxnorm.__version__]
    assert "license: Apache-2.0" in text
