"""Completion in the shell, and the examples of every `--help`."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import onnx
import pytest

from onnxnorm.cli import app as application
from tests.helpers.commands import DEMO, IMAGES, ROOT, SOME, run, succeeded
from tests.helpers.vggs import VGG16, VGG19, vgg

COMMANDS = ["calibrate", "merge", "plan", "rewrite", "verify", "normalize", "restore", "report", "features", "export"]
COMMANDS += ["check"]


def completed(line: str) -> list[str]:
    """What bash is offered at the end of a line."""
    asked = {"_ONNXNORM_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(line.split(" ")) - 1)}
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    command = [sys.executable, "-m", "onnxnorm.cli"]
    environment = os.environ | asked | {"PYTHONPATH": path}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False).stdout.split()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("onnxnorm ca", ["calibrate"]),
        ("onnxnorm re", ["rewrite", "restore", "report"]),
        ("onnxnorm calibrate --pre", ["--preset"]),
        ("onnxnorm calibrate --preset ", ["imagenet", "caffe", "tf", "unit", "raw"]),
    ],
)
def test_completion(line: str, expected: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of settings that is wrong does not get in the way."""
    monkeypatch.chdir(tmp_path)
    Path("pyproject.toml").write_text("[tool.onnxnorm]\nnothing = 1")
    assert completed(line) == expected


def test_the_script_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever shell the tests run in, or none."""
    monkeypatch.setattr("shellingham.detect_shell", lambda: ("bash", "/bin/bash"))
    assert "--install-completion" in succeeded("--help").out
    assert "complete_bash" in succeeded("--show-completion", "bash").out


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_examples(command: str) -> None:
    lines = succeeded(command, "--help").out.splitlines()
    start = next(index for index, line in enumerate(lines) if line.strip() == "Examples:")
    assert any(line.strip().startswith(f"onnxnorm {command} ") for line in lines[start:])


def test_every_command_is_here() -> None:
    assert [command.name for command in application.app.registered_commands][: len(COMMANDS)] == COMMANDS


def test_the_examples_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every one, in the order of the commands, on a desk as they suppose it."""
    pytest.importorskip("jinja2")
    import numpy as np

    monkeypatch.chdir(tmp_path)
    shutil.copy(DEMO, "model.onnx")
    for depth, blocks, preset in ((16, VGG16, "imagenet"), (19, VGG19, "caffe")):
        for name in (f"vgg{depth}.onnx", "normalized.onnx"):
            onnx.save(vgg(blocks), name)
        succeeded("normalize", f"vgg{depth}.onnx", IMAGES, "--preset", preset, "--outputs", "scale", "-q")
    for folder in ("photos", "other-photos"):
        Path(folder).symlink_to(IMAGES)
    np.save("inputs.npy", np.random.default_rng(0).uniform(size=(4, 3, 64, 64)).astype(np.float32))
    for index in range(2):
        succeeded("calibrate", "model.onnx", SOME[index], "-o", f"shard{index}.safetensors", "-q")
    examples = [
        example
        for command in application.app.registered_commands
        for example in re.split(r"\n+", str(command.epilog))[1:]
    ]
    assert len(examples) >= len(COMMANDS)
    for example in examples:
        if ".pth" in example and importlib.util.find_spec("torch") is None:
            continue
        ran = run(*shlex.split(example)[1:])
        assert ran.code == 0, (example, ran.err)
