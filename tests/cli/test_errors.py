"""Exit codes, and messages of one or two lines that say what, where and what to do."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import onnx
import pytest

from onnxnorm import api
from onnxnorm.version import VERSION
from tests.helpers.commands import DEMO, IMAGES, SOME, run, succeeded
from tests.helpers.graphs import model, rand

COMMANDS = ["calibrate", "merge", "normalize", "plan", "rewrite", "verify"]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all that can be wrong."""
    folder = tmp_path_factory.mktemp("files")
    succeeded("calibrate", DEMO, *SOME, "--preset", "unit", "-o", folder / "stats")
    (folder / "text.onnx").write_text("no model\n" * 50)
    (folder / "empty.onnx").write_bytes(b"")
    (folder / "cut.onnx").write_bytes(DEMO.read_bytes()[:5000])
    (folder / "broken").write_bytes((folder / "stats").read_bytes()[:1000])
    other = model("a = Conv(x, w) z = Relu(a)", {"x": ("n", 3, 8, 8)}, {"w": rand(4, 3, 3, 3)})
    onnx.save(other, folder / "other.onnx")
    one = model("a = Conv(x, w) z = Relu(a)", {"x": (1, 3, 8, 8)}, {"w": rand(4, 3, 3, 3)})
    onnx.save(one, folder / "one.onnx")
    onnx.save(model("z = MatMul(x, w)", {"x": ("n", 3)}, {"w": rand(3, 4)}), folder / "dense.onnx")
    (folder / "photo.jpg").write_bytes(SOME[0].read_bytes())
    (folder / "bad.jpg").write_bytes(b"no image")
    (folder / "nothing").mkdir()
    (folder / "words").mkdir()
    (folder / "words" / "a.txt").write_text("a")
    return folder


FIXED = "--batch-size 8 does not fit the model, whose batch is fixed to 1; leave --batch-size out"

# {f} is the folder, {demo} the model, {images} its photographs.
WRONG = {
    "a missing model": ("plan {f}/no.onnx", "model {f}/no.onnx does not exist"),
    "a folder as model": ("plan {f}", "model {f} cannot be read: it is a folder; MODEL, an ONNX file, stands first"),
    "a text as model": ("plan {f}/text.onnx", "model {f}/text.onnx is not an ONNX file"),
    "an empty model": ("plan {f}/empty.onnx", "model {f}/empty.onnx has no nodes or no opset"),
    "a model cut short": ("calibrate {f}/cut.onnx {images} -o {f}/s", "model {f}/cut.onnx is not an ONNX file"),
    "nothing to normalize": ("calibrate {f}/dense.onnx {images} -o {f}/s", "images cannot be fed to input"),
    "missing statistics": ("rewrite {demo} --stats {f}/no -o {f}/o", "statistics {f}/no do not exist; make them with"),
    "damaged statistics": ("rewrite {demo} --stats {f}/broken -o {f}/o", "{f}/broken is not a statistics file"),
    "a model as statistics": ("plan {demo} --stats {demo}", "{demo} is not a statistics file"),
    "a folder as statistics": ("plan {demo} --stats {f}", "{f} is not a statistics file"),
    "statistics of another model": (
        "rewrite {f}/other.onnx --stats {f}/stats -o {f}/o",
        "the statistics were measured on another model",
    ),
    "a plan with them": ("plan {f}/other.onnx --stats {f}/stats", "the statistics were measured on another model"),
    "images twice": ("merge {f}/stats {f}/stats -o {f}/m", "counted twice"),
    "a missing image": ("calibrate {demo} {f}/no.jpg -o {f}/s", "{f}/no.jpg does not exist"),
    "an empty folder": ("calibrate {demo} {f}/nothing -o {f}/s", "folder {f}/nothing holds no images"),
    "a folder of texts": ("normalize {demo} {f}/words -o {f}/o", "folder {f}/words holds no images"),
    "a text as image": ("calibrate {demo} {f}/words/a.txt -o {f}/s", "{f}/words/a.txt is neither an image"),
    "an image that is none": ("calibrate {demo} {f}/bad.jpg -o {f}/s", "1 of 1 samples cannot be used"),
    "a folder that is not there": ("calibrate {demo} {images} -o {f}/no/s", "the folder {f}/no does not exist"),
    "a file as folder": ("normalize {demo} {images} -o {f}/stats/o", "the folder {f}/stats does not exist"),
    "a folder as output": ("rewrite {demo} --stats {f}/stats -o {f}/nothing", "it is a folder"),
    "a folder as statistics to write": ("merge {f}/stats -o {f}/nothing", "cannot write"),
    "an unknown provider": ("calibrate {demo} {images} -o {f}/s --provider abacus", "provider 'abacus' is not in"),
    "a size in words": ("calibrate {demo} {images} -o {f}/s --size large", "--size 'large' is not a size"),
    "a size that is fixed": ("calibrate {demo} {images} -o {f}/s --size 32x32", "--size 32x32 contradicts input"),
    "a size for a plan": ("plan {demo} --size large", "--size 'large' is not a size"),
    "means of another number": ("calibrate {demo} {images} -o {f}/s --mean 1,2", "--mean: that is 2 numbers"),
    "a deviation of nothing": ("calibrate {demo} {images} -o {f}/s --std 0", "--std 0 divides the pixels"),
    "a tolerance below zero": ("calibrate {demo} {images} -o {f}/s --tolerance -1", "--tolerance -1 must be positive"),
    "a share above one": (
        "calibrate {demo} {images} -o {f}/s --tolerance 1 --tolerance-share 2",
        "--tolerance-share 2 must lie in",
    ),
    "a target of nothing": ("rewrite {demo} --stats {f}/stats -o {f}/o --target 0", "target must be a positive number"),
    "a tolerance that is none": ("verify {demo} {demo} --tolerance-output nan", "tolerance"),
    "an unknown preset": ("calibrate {demo} {images} -o {f}/s --preset vgg", "'--preset': 'vgg' is not one of"),
    "a batch of nothing": ("calibrate {demo} {images} -o {f}/s --batch-size 0", "'--batch-size'"),
    "a batch that is fixed": ("calibrate {f}/one.onnx {images} -o {f}/s --batch-size 8", FIXED),
    "a batch that is fixed, to verify": ("verify {f}/one.onnx {f}/one.onnx --batch-size 8", FIXED),
    "a batch that is fixed, to verify on images": ("verify {f}/one.onnx {f}/one.onnx {images} --batch-size 8", FIXED),
    "a batch in words": ("calibrate {demo} {images} -o {f}/s --batch-size many", "'--batch-size'"),
    "an unknown kind of outputs": ("plan {demo} --outputs drop", "'--outputs': 'drop' is not one of"),
    "a model of other inputs": ("verify {demo} {f}/other.onnx", "the inputs of the two models have other names"),
}

MISUSED = {
    "an unknown option": "plan {demo} --colour red",
    "an option of another command": "merge {f}/stats -o {f}/m --preset unit",
    "an unknown command": "calibrat {demo}",
    "no model": "plan",
    "no data": "calibrate {demo} -o {f}/s",
    "no output": "merge {f}/stats",
    "no output of a report": "report {demo} --stats {f}/stats",
    "no statistics": "rewrite {demo} --stats",
    "too many words": "plan {demo} {demo}",
    "an option without its value": "calibrate {demo} {images} -o",
}


def words(command: str, folder: Path) -> list[str]:
    return command.format(f=folder, demo=DEMO, images=IMAGES).split()


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_input_exits_with_1(name: str, files: Path) -> None:
    command, message = WRONG[name]
    before = sorted(files.iterdir())
    ran = run(*words(command, files))
    assert message.format(f=files, demo=DEMO) in ran.error
    assert ran.code == 1
    assert sorted(files.iterdir()) == before


@pytest.mark.parametrize("name", MISUSED)
def test_a_wrong_command_line_exits_with_2(name: str, files: Path) -> None:
    ran = run(*words(MISUSED[name], files))
    assert ran.code == 2
    assert "--help" in ran.error


def test_no_command_shows_the_help() -> None:
    ran = run()
    assert ran.code == 2
    assert all(command in ran.out + ran.err for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_help(command: str) -> None:
    ran = succeeded(command, "--help")
    assert "Usage: onnxnorm" in ran.out
    assert ran.err == ""
    for option in ("--quiet", "-q", "--verbose", "-v", "--version", *([] if command == "normalize" else ["--json"])):
        assert option in ran.out, option


@pytest.mark.parametrize("words", [["--version"], *([command, "--version"] for command in COMMANDS)])
def test_version(words: list[str]) -> None:
    ran = succeeded(*words)
    assert ran.out == f"onnxnorm {VERSION}\n"


@pytest.mark.parametrize("flag", ["-v", "--verbose", "-qv"])
def test_verbose_shows_the_traceback(flag: str, tmp_path: Path) -> None:
    ran = run("plan", tmp_path / "no.onnx", flag)
    assert ran.code == 1
    assert "Traceback" in ran.err
    assert ran.err.endswith("no.onnx does not exist\n")


@pytest.mark.parametrize(
    "command", ["-v", "-v {demo}", "plan {demo} --colour red -v", "plan -v", "verify {demo} {demo} --stats s -v"]
)
def test_a_wrong_command_line_shows_no_traceback(command: str, files: Path) -> None:
    """That of the parser, which says nothing about the command line."""
    ran = run(*words(command, files))
    assert ran.code == 2
    assert "--help" in ran.error


def test_a_bug_is_told_apart_from_a_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr(api, "plan", broken)
    ran = run("plan", DEMO)
    assert ran.code == 1
    assert ran.err == (
        "error: onnxnorm failed unexpectedly (ZeroDivisionError: oops); this is a bug, please report it "
        "with the output of --verbose\n"
    )
    assert "Traceback" in run("plan", DEMO, "-v").err


def test_an_interruption_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(api, "plan", stopped)
    ran = run("plan", DEMO)
    assert ran.code == 130
    assert ran.err.count("\n") == 1
    assert "interrupted" in ran.err


def test_the_console_script(tmp_path: Path) -> None:
    """Once for real: a process of its own, with its streams apart."""
    script = [sys.executable, "-c", "from onnxnorm.cli import main; main()"]
    environment = os.environ | {"PYTHONWARNINGS": "error::DeprecationWarning:onnxnorm"}
    options = {"capture_output": True, "text": True, "cwd": tmp_path, "env": environment}
    done = subprocess.run([*script, "plan", str(DEMO), "--json"], check=True, **options)  # type: ignore[call-overload]
    assert done.stderr.startswith("next: onnxnorm calibrate")
    assert done.stdout.startswith('{"filters": 240')
    failed = subprocess.run([*script, "plan", "no.onnx"], check=False, **options)  # type: ignore[call-overload]
    assert (failed.returncode, failed.stdout, failed.stderr) == (1, "", "error: model no.onnx does not exist\n")


def test_a_closed_pipe_is_quiet(tmp_path: Path) -> None:
    script = f"{sys.executable} -c 'from onnxnorm.cli import main; main()' plan {DEMO} --json | head -c 10"
    done = subprocess.run(script, shell=True, capture_output=True, text=True, cwd=tmp_path, check=True)
    assert done.stdout == '{"filters"'
    assert "Traceback" not in done.stderr
