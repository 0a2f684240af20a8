"""Terminals: any encoding, names in any script, a closed or full standard output; and no telemetry."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import onnx
import pytest

from tests.helpers.commands import DEMO, IMAGES, run

COMMAND = [sys.executable, "-m", "onnxnorm.cli"]
posix = pytest.mark.skipif(os.name == "nt", reason="signals and /dev/full are those of POSIX")


def started(*words: object, **options: object) -> subprocess.Popen[bytes]:
    environment = {**os.environ, **dict(options.pop("env", {}))}  # type: ignore[call-overload]
    return subprocess.Popen([*COMMAND, *map(str, words)], env=environment, **options)  # type: ignore[call-overload,no-any-return]


def finished(*words: object, **env: str) -> tuple[int, str, str]:
    process = started(*words, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    out, err = process.communicate(timeout=120)
    return process.returncode, out.decode(errors="replace"), err.decode(errors="replace")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp437", "utf-8"])
@pytest.mark.parametrize("words", [["calibrate", "--help"], ["plan", DEMO]])
def test_every_encoding(encoding: str, words: list[object]) -> None:
    code, out, err = finished(*words, PYTHONIOENCODING=encoding)
    assert (code, "bug" in err) == (0, False), err
    assert len(out) > 100


@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
def test_names_in_other_scripts(tmp_path: Path, encoding: str) -> None:
    path, out = tmp_path / "网络.onnx", tmp_path / "出力.onnx"
    path.write_bytes(DEMO.read_bytes())
    code, _, err = finished("rewrite", path, "--statistic", "weights", "-o", out, PYTHONIOENCODING=encoding)
    assert code == 0, err
    assert out.exists()


@posix
def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    path, out = (Path(os.fsdecode(os.fsencode(tmp_path) + name)) for name in (b"/a\xff.onnx", b"/b\xff.onnx"))
    path.write_bytes(DEMO.read_bytes())
    code, _, err = finished("rewrite", path, "--statistic", "weights", "-o", out)
    assert code == 0, err
    onnx.checker.check_model(onnx.load_model_from_string(out.read_bytes()))


@posix
def test_a_full_standard_output() -> None:
    with Path("/dev/full").open("wb") as full:
        process = started("plan", DEMO, stdout=full, stderr=subprocess.PIPE)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert err.decode().strip() == "error: No space left on device: standard output"


@posix
@pytest.mark.parametrize("quiet", [[], ["-q"], ["--verbose"]])
def test_a_full_standard_error(quiet: list[str], tmp_path: Path) -> None:
    """Messages are lost; results, files and exit codes are as ever."""
    out = tmp_path / "s.safetensors"
    commands: list[tuple[list[Any], int]] = [
        (["plan", DEMO], 0),
        (["plan", tmp_path / "missing.onnx"], 1),
        (["plan", "--no-such-option"], 2),
        (["calibrate", DEMO, IMAGES, "--preset", "unit", "-o", out], 0),
    ]
    for words, code in commands:
        with Path("/dev/full").open("wb") as full:
            process = started(*words, *quiet, stdout=subprocess.PIPE, stderr=full)
            printed, _ = process.communicate(timeout=120)
        assert process.returncode == code, words
        assert bool(printed) is (code == 0), words
    assert out.exists()


@posix
def test_a_standard_error_that_nobody_reads() -> None:
    process = started("plan", DEMO, "-v", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stderr is not None
    process.stderr.close()
    assert process.stdout is not None
    assert process.stdout.read()
    process.stdout.close()
    assert process.wait(timeout=60) == 0


@posix
def test_a_reader_that_leaves() -> None:
    process = started("plan", DEMO, "--json", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    err = process.stderr.read().decode()
    process.stderr.close()
    assert process.wait(timeout=60) == 1
    assert "Traceback" not in err
    assert "bug" not in err


@posix
def test_a_closed_standard_output(tmp_path: Path) -> None:
    """The work is done, though nobody is told."""
    out = tmp_path / "out.onnx"
    command = [*COMMAND, "rewrite", str(DEMO), "--statistic", "weights", "-o", str(out)]
    done = subprocess.run(["sh", "-c", '"$@" >&-', "sh", *command], capture_output=True, text=True, check=False)
    assert (done.returncode, "bug" in done.stderr) == (0, False), done.stderr
    assert out.exists()


def test_no_telemetry(tmp_path: Path) -> None:
    """It is off before the runtime is imported; a value that the user set stays; the home folder stays empty."""
    code = "import onnxnorm, os; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    for given, seen in ((None, "1"), ("0", "0")):
        environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
        environment |= {} if given is None else {"ORT_DISABLE_TELEMETRY": given}
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == seen
    home = tmp_path / "home"
    home.mkdir()
    home.chmod(0o500)
    code_, _, err = finished(
        "calibrate", DEMO, IMAGES, "--preset", "unit", "-o", tmp_path / "s.safetensors", HOME=str(home)
    )
    assert code_ == 0, err
    assert list(home.iterdir()) == []


@posix
def test_no_file_gets_the_number_of_a_closed_stream(tmp_path: Path) -> None:
    """What a library prints to file descriptor 1 must not end up in a file that was opened meanwhile."""
    code = "import os; from onnxnorm.cli import app; app._prepare_streams(); print(os.open(os.devnull, 0))"
    command = ["sh", "-c", '"$@" <&- >&-', "sh", sys.executable, "-c", code.replace("print(", "os.write(2, b'%d' % ")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(done.stderr) > 2


@pytest.mark.parametrize("length", [250, 300])
def test_names_that_are_too_long(length: int, tmp_path: Path) -> None:
    name = tmp_path / ("x" * length)
    stats = run("calibrate", DEMO, IMAGES, "--preset", "unit", "-o", name)
    assert "it cannot be the name of a file (File name too long); give another, shorter one" in stats.error
    assert (stats.code, list(tmp_path.iterdir())) == (1, [])
    assert "File name too long" in run("plan", tmp_path / ("x" * 300)).error
    assert "give another, shorter one" in run("rewrite", DEMO, "--statistic", "weights", "-o", "x" * 300).error


@posix
@pytest.mark.parametrize(
    "words", [["plan", "a.onnx"], ["calibrate", DEMO, IMAGES, "-o", "s"], ["rewrite", DEMO, "--statistic", "weights"]]
)
def test_a_deleted_current_folder(words: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    monkeypatch.chdir(folder)
    folder.rmdir()
    words = [*words, "-o", "out.onnx"] if words[0] == "rewrite" else words
    ran = run(*words)
    assert ran.code == 1
    assert "the current folder was deleted" in ran.error or "does not exist" in ran.error
