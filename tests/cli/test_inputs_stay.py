"""What is read is never overwritten, by whatever name, unless `--in-place` allows it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

import onnxnorm
from tests.helpers.commands import DEMO, SOME, run, succeeded


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A model, its statistics, a rewritten version, two images; and links to the model."""
    shutil.copy(DEMO, tmp_path / "m.onnx")
    (tmp_path / "photos").mkdir()
    for path in SOME[:2]:
        shutil.copy(path, tmp_path / "photos" / path.name)
    shutil.copy(SOME[0], tmp_path / "photos" / "i.jpg")
    succeeded("calibrate", tmp_path / "m.onnx", tmp_path / "photos", "--preset", "unit", "-o", tmp_path / "m.st")
    succeeded("rewrite", tmp_path / "m.onnx", "--stats", tmp_path / "m.st", "-o", tmp_path / "r.onnx", "--power-of-two")
    (tmp_path / "link.onnx").symlink_to("m.onnx")
    os.link(tmp_path / "m.onnx", tmp_path / "hard.onnx")
    shutil.copy(DEMO, tmp_path / "copy.npz")
    return tmp_path


@pytest.mark.parametrize(
    "words",
    [
        "calibrate m.onnx photos -o m.onnx",
        "calibrate m.onnx photos -o photos/i.jpg",
        "calibrate m.onnx photos/i.jpg -o photos/i.jpg",
        "merge m.st -o m.st",
        "rewrite m.onnx --stats m.st -o m.onnx",
        "rewrite m.onnx --stats m.st -o link.onnx",
        "rewrite m.onnx --stats m.st -o hard.onnx",
        "rewrite m.onnx --stats m.st -o m.st",
        "rewrite link.onnx --stats m.st -o m.onnx",
        "normalize m.onnx photos -o m.onnx",
        "normalize m.onnx photos/i.jpg -o photos/i.jpg",
        "normalize m.onnx photos -o photos/i.jpg --in-place",
        "restore r.onnx -o r.onnx",
        "features m.onnx --layers relu2_1 -o m.onnx",
        "features m.onnx --layers relu2_1 -o hard.onnx",
        "export copy.npz -o copy.npz",
        "report m.onnx --stats m.st -o m.onnx",
        "report m.onnx --stats m.st -o m.st",
        "report m.onnx r.onnx --stats m.st -o r.onnx",
    ],
)
def test_an_input_is_not_overwritten(files: Path, monkeypatch: pytest.MonkeyPatch, words: str) -> None:
    monkeypatch.chdir(files)
    before = {path: path.read_bytes() for path in files.rglob("*") if path.is_file()}
    ran = run(*words.split())
    assert ran.code == 1
    assert "would be lost; give another name" in ran.error
    assert {path: path.read_bytes() for path in files.rglob("*") if path.is_file()} == before


def test_in_place_says_so(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(files)
    assert "or allow it with --in-place" in run("rewrite", "m.onnx", "--stats", "m.st", "-o", "m.onnx").error
    original = Path("m.onnx").read_bytes()
    succeeded("rewrite", "m.onnx", "--stats", "m.st", "-o", "m.onnx", "--in-place", "--power-of-two")
    assert Path("m.onnx").read_bytes() != original
    succeeded("restore", "m.onnx", "-o", "m.onnx", "--in-place")
    assert onnxnorm.verify(DEMO, "m.onnx").bit_identical


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no FIFOs here")
def test_only_regular_files_are_replaced(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(files)
    os.mkfifo("pipe")
    assert "it is not a regular file" in run("rewrite", "m.onnx", "--stats", "m.st", "-o", "pipe").error
    assert Path("pipe").is_fifo()


def test_a_data_file_of_the_model_is_an_input(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import onnx

    monkeypatch.chdir(files)
    onnx.save(onnx.load("m.onnx"), "e.onnx", save_as_external_data=True, location="e.data", size_threshold=0)
    stats = run("rewrite", "e.onnx", "--statistic", "weights", "-o", "e.data")
    assert "it is an input (e.data)" in stats.error
