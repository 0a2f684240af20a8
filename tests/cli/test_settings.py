"""Options from environment variables and TOML files: what wins, and what is wrong with them."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import pytest

from onnxnorm.cli.settings import SETTABLE
from tests.helpers.commands import DEMO, ROOT, SOME, run, succeeded

WORDS: list[Any] = ["calibrate", DEMO, *SOME, "-o", "s", "--json"]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def images(*words: str) -> int:
    """How many images a calibration takes, which is what `--limit` says."""
    count: int = succeeded(*WORDS, *words).json["images"]
    return count


def test_what_is_nearer_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("pyproject.toml").write_text("[tool.onnxnorm]\nlimit = 5\npreset = 'unit'")
    assert images() == 5
    Path("pyproject.toml").write_text("[tool.onnxnorm]\nlimit = 5\n[tool.onnxnorm.calibrate]\nlimit = 4")
    assert images() == 4
    Path("c.toml").write_text("limit = 3")
    assert images("--config", "c.toml") == 3
    monkeypatch.setenv("ONNXNORM_CONFIG", "c.toml")
    assert images() == 3
    monkeypatch.setenv("ONNXNORM_CALIBRATE_LIMIT", "2")
    assert images("--config", "c.toml") == 2
    assert images("--config", "c.toml", "--limit", "1") == 1


def test_every_kind_of_value() -> None:
    Path("c.toml").write_text(
        """
        preset = "unit"        # for every command that has it
        verify = false         # an option, and a command
        outputs = "keep"
        [calibrate]
        measure = ["rms", "p99.9"]
        tolerance = 1          # a whole number is a number
        batch-size = 2
        output = "named"
        json = true
        [plan]
        filters = "all"
        """
    )
    found = succeeded("calibrate", DEMO, *SOME, "--config", "c.toml").json
    assert (found["measures"], found["output"]) == (["mean", "rms", "max", "p99.9"], "named")
    ran = succeeded("rewrite", DEMO, "--stats", "named", "--config", "c.toml")
    assert "verdict: not verified" in ran.out
    assert succeeded("plan", DEMO, "--config", "c.toml", "--json").json["filters"] == 300
    Path("c.toml").write_text("[verify]\nlimit = 3")
    assert succeeded("verify", DEMO, DEMO, *SOME, "--config", "c.toml", "--json").json["samples"] == 3


def test_the_table_of_another_tool_stays_theirs() -> None:
    Path("pyproject.toml").write_text("[tool.black]\nlimit = 'x'\n[project]\nname = 'y'")
    assert images() == len(SOME)


def test_a_file_like_pyproject() -> None:
    Path("c.toml").write_text("[tool.onnxnorm.calibrate]\nlimit = 2")
    assert images("--config", "c.toml") == 2


WRONG = {
    "colour = 1": "c.toml: colour is not an option; there are allow, batch-axis, batch-size, calibrate,",
    "presett = 'unit'": "c.toml: presett is not an option; did you mean 'preset'?",
    "preset = 'vgg'": "c.toml: preset is 'vgg', expected one of 'imagenet', 'caffe'",
    "preset = 3": "c.toml: preset is 3, expected one of",
    "calibrate = 3": "c.toml: calibrate is 3, expected a table of the options of that command",
    "[calibrat]\nlimit = 1": "there is no command 'calibrat'; did you mean 'calibrate'?",
    "[calibrate]\nlimit = '3'": "c.toml: calibrate.limit is '3', expected a whole number",
    "[calibrate]\nlimit = true": "c.toml: calibrate.limit is true, expected a whole number",
    "[calibrate]\nlimit = 2.0": "c.toml: calibrate.limit is 2.0, expected a whole number",
    "[calibrate]\nlimit = 0": "c.toml: calibrate.limit is 0, expected at least 1",
    "[calibrate]\nlimit = [1]": "c.toml: calibrate.limit is [1], expected a whole number",
    "[calibrate]\nresume = 1": "c.toml: calibrate.resume is 1, expected true or false",
    "[calibrate]\ntolerance = 'x'": "c.toml: calibrate.tolerance is 'x', expected a number",
    "[calibrate]\nsize = 64": "c.toml: calibrate.size is 64, expected text in quotes",
    "[calibrate]\noutput = 1": "c.toml: calibrate.output is 1, expected a path in quotes",
    "[calibrate]\nmeasure = [1]": "c.toml: calibrate.measure is [1], expected text in quotes, or an array of that",
    "[calibrate]\ndata = 'x'": "c.toml: calibrate.data is not an option",
    "[rewrite]\nin-place = true": "c.toml: rewrite.in-place cannot be set in a file",
    "config = 'x'": "c.toml: config cannot be set in a file",
    "[rewrite]\npresett = 1": "c.toml: rewrite.presett is not an option",
    "[calibrate]\nbatch-size = 1\nbatch_size = 2": "c.toml: calibrate.batch_size is there twice",
    "x = [": "settings c.toml are not TOML",
    "x = " + "[" * 5000: "settings c.toml are not TOML",
    "[calibrate]\nsize = 'big'": "--size 'big' is not a size; write HxW such as 224x224, or one number for a square "
    "(--size comes from c.toml: calibrate.size)",
    "[calibrate]\nmeasure = ['x']": "(--measure comes from c.toml: calibrate.measure)",
    "[calibrate]\ntolerance = -1": "(--tolerance comes from c.toml: calibrate.tolerance)",
    "[tool]\nonnxnorm = 3": "c.toml: tool.onnxnorm must be a table, not 3",
}


@pytest.mark.parametrize("content", WRONG, ids=lambda content: content[:24])
def test_wrong_settings(content: str) -> None:
    Path("c.toml").write_text(content)
    ran = run("calibrate", DEMO, *SOME, "--config", "c.toml")
    assert ran.code == 1
    assert WRONG[content] in ran.error
    assert [path.name for path in Path().iterdir()] == ["c.toml"]


def test_a_file_that_cannot_be_read() -> None:
    assert "settings no.toml do not exist; name a TOML file" in run("plan", DEMO, "--config", "no.toml").error
    assert "not in a regular file" in run("plan", DEMO, "--config", ".").error
    Path("c.toml").write_bytes(b"\xff\xfe")
    assert "are not TOML" in run("plan", DEMO, "--config", "c.toml").error
    Path("pyproject.toml").write_text("[tool.onnxnorm")
    assert "settings pyproject.toml are not TOML" in run("plan", DEMO).error


def test_a_pyproject_that_is_no_file_is_not_read() -> None:
    Path("pyproject.toml").mkdir()
    assert succeeded("plan", DEMO).code == 0


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("CALIBRATE_LIMIT", "x", "--limit comes from the variable ONNXNORM_CALIBRATE_LIMIT"),
        ("CALIBRATE_PRESET", "vgg", "--preset comes from the variable ONNXNORM_CALIBRATE_PRESET"),
        ("CALIBRATE_SIZE", "big", "--size comes from the variable ONNXNORM_CALIBRATE_SIZE"),
        ("CONFIG", "no.toml", "settings no.toml do not exist"),
    ],
)
def test_wrong_variables(name: str, value: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"ONNXNORM_{name}", value)
    ran = run(*WORDS)
    assert (ran.code, message in ran.error) == (1, True), ran.err


def test_variables_of_flags_and_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONNXNORM_CALIBRATE_MEASURE", "rms p99.9")
    monkeypatch.setenv("ONNXNORM_CALIBRATE_LIMIT", "")  # the same as none
    found = succeeded(*WORDS).json
    assert (found["measures"], found["images"]) == (["mean", "rms", "max", "p99.9"], len(SOME))
    monkeypatch.setenv("ONNXNORM_PLAN_JSON", "1")
    assert succeeded("plan", DEMO).json["filters"] == 240


@pytest.mark.parametrize("name", ["HELP", "PLAN_HELP", "VERSION", "PLAN_VERSION", "SHOW_COMPLETION"])
def test_a_variable_does_not_take_the_place_of_the_command(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"ONNXNORM_{name}", "1")
    assert "240 filters in 8 layers" in succeeded("plan", DEMO).out


def test_only_the_command_line_says_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("m.onnx").write_bytes(DEMO.read_bytes())
    for command in ("REWRITE", "RESTORE", "NORMALIZE"):
        monkeypatch.setenv(f"ONNXNORM_{command}_IN_PLACE", "1")
    assert "allow it with --in-place" in run("rewrite", "m.onnx", "--statistic", "weights", "-o", "m.onnx").error
    assert "allow it with --in-place" in run("normalize", "m.onnx", *SOME, "-o", "m.onnx").error
    succeeded("rewrite", "m.onnx", "--statistic", "weights", "-o", "r.onnx", "-q")
    assert "allow it with --in-place" in run("restore", "r.onnx", "-o", "r.onnx").error
    assert all("in_place" not in options for options in SETTABLE.values())


@pytest.mark.parametrize("by", ["file", "variable"])
def test_verbose_from_elsewhere(by: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if by == "file":
        Path("pyproject.toml").write_text("[tool.onnxnorm]\nverbose = true")
    else:
        monkeypatch.setenv("ONNXNORM_CALIBRATE_VERBOSE", "1")
    level = logging.getLogger("onnxnorm").level
    ran = succeeded(*WORDS)
    assert " s  " in ran.err
    assert "Traceback" in run("calibrate", DEMO, "no.jpg", "-o", "s").err
    assert (logging.getLogger("onnxnorm").level, logging.getLogger("onnxnorm").handlers) == (level, [])
    Path("pyproject.toml").unlink(missing_ok=True)
    monkeypatch.delenv("ONNXNORM_CALIBRATE_VERBOSE", raising=False)
    assert "Traceback" not in run("calibrate", DEMO, "no.jpg", "-o", "s").err


def test_every_option_has_a_type_that_files_can_give() -> None:
    samples: dict[str, Any] = {"x": "text", "1": 1, "2.5": 2.5, "true": True}
    for command, options in SETTABLE.items():
        for name, settable in options.items():
            assert isinstance(settable.problem(samples["x"]), str), (command, name)


def test_the_example_of_the_documentation() -> None:
    page = (ROOT / "docs" / "command-line.md").read_text("utf-8")
    (block,) = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    Path("pyproject.toml").write_text(block)
    assert succeeded(*WORDS).json["measures"] == ["mean", "rms", "max", "p99.9"]
    assert succeeded("rewrite", DEMO, "--stats", "s", "-o", "out.onnx", "--json").json["power_of_two"] is True
