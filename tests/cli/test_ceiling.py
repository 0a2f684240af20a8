"""`--ceiling` on the command line: with a number and without, what it says, and what it refuses."""

from __future__ import annotations

import os
import re
from pathlib import Path

import onnx
import pytest

from tests.helpers.commands import DEMO, IMAGES, run, succeeded


@pytest.fixture(scope="module")
def loud(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo with mean activations of ten thousand, and its statistics beside it."""
    folder = tmp_path_factory.mktemp("loud")
    common = ("--preset", "unit", "--limit", "6", "--provider", "cpu", "-q")
    succeeded("normalize", DEMO, IMAGES, "--target", "1e4", "-o", folder / "loud.onnx", *common)
    stats = folder / "loud.stats.safetensors"
    succeeded("calibrate", folder / "loud.onnx", IMAGES, "--measure", "range", "-o", stats, *common)
    return folder / "loud.onnx"


@pytest.mark.parametrize(
    ("words", "ceiling"), [(["--ceiling"], 512), (["--ceiling", "100"], 100), (["--ceiling=100"], 100)]
)
def test_with_a_number_and_without(words: list[str], ceiling: float, loud: Path, tmp_path: Path) -> None:
    done = succeeded("rewrite", loud, *words, "-o", tmp_path / "out.onnx", "--provider", "cpu", "--json")
    found = done.json
    assert found["ceiling"]["ceiling"] == ceiling
    assert found["ceiling"]["above_before"] > found["ceiling"]["above_after"] == 0
    assert found["verification"]["bit_identical"]
    assert found["power_of_two"]
    onnx.checker.check_model(tmp_path / "out.onnx")


def test_before_the_model_too(loud: Path, tmp_path: Path) -> None:
    said = succeeded("rewrite", "--ceiling", loud, "-o", tmp_path / "out.onnx", "--provider", "cpu").out
    assert re.search(r"ceiling 512: \d+ of 25 values were above it, 0 are; \d+ filters moved", said)


def test_what_stays_above_is_told(tmp_path: Path) -> None:
    common = ("--preset", "unit", "--limit", "6", "--provider", "cpu")
    said = succeeded("normalize", DEMO, IMAGES, "--ceiling", "20", "-o", tmp_path / "out.onnx", *common).out
    assert "above it: 1, such as logits" in said
    assert "it is a graph output" in said


def refused(*words: str | os.PathLike[str]) -> str:
    """The message of a command whose input is wrong."""
    done = run(*words)
    assert done.code in {1, 2}
    return done.error


def test_what_it_refuses(loud: Path, tmp_path: Path) -> None:
    out = ("-o", tmp_path / "out.onnx")
    assert "takes the place of --target" in refused("rewrite", loud, "--ceiling", "--target", "2", *out)
    assert "must be a positive number" in refused("rewrite", loud, "--ceiling", "-3", *out)
    assert "--measure range" in refused("rewrite", DEMO, "--ceiling", *out)
    plain = tmp_path / "plain.safetensors"
    succeeded("calibrate", DEMO, IMAGES, "--preset", "unit", "--limit", "4", "-o", plain, "-q", "--provider", "cpu")
    assert "--measure range" in refused("rewrite", DEMO, "--ceiling", "--stats", plain, *out)
    assert not (tmp_path / "out.onnx").exists()


def test_from_a_variable(loud: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONNXNORM_REWRITE_CEILING", "64")
    done = succeeded("rewrite", loud, "-o", tmp_path / "out.onnx", "--provider", "cpu", "--json", "--no-verify")
    assert done.json["ceiling"]["ceiling"] == 64
