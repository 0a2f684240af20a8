"""Messages read as sentences, also for one of a thing, and point to what a user of the installed package has."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.commands import DEMO, SOME, run, succeeded


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with statistics of the demo network and a rewritten version of it."""
    folder = tmp_path_factory.mktemp("desk")
    succeeded("calibrate", DEMO, *SOME, "--preset", "unit", "-o", folder / "s.safetensors")
    succeeded("rewrite", DEMO, "--stats", folder / "s.safetensors", "-o", folder / "r.onnx")
    return folder


def test_one_image(tmp_path: Path) -> None:
    """From one image there is no standard error, which is said; and one of a thing is no plural."""
    ran = succeeded("calibrate", DEMO, SOME[0], "--preset", "unit", "-o", tmp_path / "s")
    assert "over 1 image, " in ran.out
    assert "relative standard error of the means: not known from one image; it takes two or more\n" in ran.out
    ran = succeeded("verify", DEMO, DEMO, "--limit", "1")
    assert ran.out.splitlines()[0].endswith("on 1 sample")


@pytest.mark.parametrize("preset", ["Caffe", "CAFFE"])
def test_a_choice_in_capitals(preset: str, tmp_path: Path) -> None:
    ran = succeeded("calibrate", DEMO, *SOME, "--preset", preset, "-o", tmp_path / "s")
    assert "images as caffe: BGR" in ran.out
    assert "'BRG' is not one of" in run("calibrate", DEMO, *SOME, "--channels", "BRG", "-o", tmp_path / "s").error


def test_advice_names_no_files_of_the_repository(tmp_path: Path) -> None:
    ran = succeeded("normalize", DEMO, *SOME, "--preset", "unit", "-o", tmp_path / "o.onnx")
    assert "see the page on INT8 in the documentation" in ran.err
    assert "docs/" not in ran.err


@pytest.mark.parametrize(
    ("command", "name", "said"),
    [
        (
            "calibrate {demo} {image} --preset unit",
            "x.txt",
            "x.txt is a safetensors file, whatever its name",
        ),
        ("calibrate {demo} {image} --preset unit", "x.safetensors", ""),
        ("calibrate {demo} {image} --preset unit", "x", ""),
        ("merge {stats}", "x.npz", "x.npz is a safetensors file"),
        ("rewrite {demo} --stats {stats}", "x.pt", "would look for x.onnx"),
        ("rewrite {demo} --stats {stats}", "x.ONNX", ""),
        ("normalize {demo} {image} --preset unit", "x.pt", "x.pt is an ONNX model"),
        ("features {demo} --layers relu1_1", "x.pb", "x.pb is an ONNX model"),
        ("restore {rewritten}", "x.pt", "x.pt is an ONNX model"),
        ("report {demo} --stats {stats}", "x.pdf", "x.pdf is an HTML page"),
    ],
)
def test_an_ending_that_promises_something_else_is_noted(
    command: str, name: str, said: str, desk: Path, tmp_path: Path
) -> None:
    words = command.format(demo=DEMO, image=SOME[0], stats=desk / "s.safetensors", rewritten=desk / "r.onnx").split()
    ran = succeeded(*words, "-o", tmp_path / name)
    assert said in ran.err
    assert said or "its name ends" not in ran.err
    assert "its name ends" not in succeeded(*words, "-o", tmp_path / name, "-q").err


@pytest.mark.parametrize(
    ("command", "usage"),
    [
        ("calibrate", "MODEL DATA..."),
        ("merge", "STATS..."),
        ("verify", "ORIGINAL REWRITTEN [DATA...]"),
        ("report", "MODEL [REWRITTEN] [DATA...]"),
        ("restore", "REWRITTEN"),
    ],
)
def test_help_shows_usage_and_no_types_of_python(command: str, usage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    lines = [line.strip() for line in succeeded(command, "--help").out.splitlines()]
    assert f"Usage: onnxnorm {command} [OPTIONS] {usage}" in lines
    assert not [
        line for line in lines for kind in ("bool", "str", "int", "float", "path", "list") if f"<{kind}" in line
    ]


def test_help_names_the_values_of_options() -> None:
    shown = " ".join(succeeded("calibrate", "--help").out.split())
    for words in ("--batch-size N", "--config FILE", "--provider NAME", "--tolerance R", "--verbose -v Say more"):
        assert words in shown
