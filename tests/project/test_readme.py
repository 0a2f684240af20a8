"""What the README tells people to do works as it stands there, on stand-ins for their model and photographs."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^ {4}(onnxnorm [a-z]+ .*)$", README, re.MULTILINE)
TARGETS = re.findall(r"^ {4}make ([a-z0-9]+)", README, re.MULTILINE)


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model.onnx, photos/ and other-photos/."""
    folder = tmp_path_factory.mktemp("desk")
    shutil.copy(ROOT / "models" / "demo_vgg.onnx", folder / "model.onnx")
    for name in ("photos", "other-photos"):
        (folder / name).symlink_to(ROOT / "models" / "images")
    return folder


def test_the_readme_has_commands() -> None:
    assert [shlex.split(command)[1] for command in COMMANDS] == ["calibrate", "rewrite", "plan", "verify"]
    assert TARGETS == ["demo", "test"]


def test_the_commands_in_order(desk: Path) -> None:
    for command in COMMANDS:
        ran = subprocess.run(
            [sys.executable, "-m", "onnxnorm.cli", *shlex.split(command)[1:]],
            cwd=desk,
            capture_output=True,
            text=True,
            check=False,
        )
        assert ran.returncode == 0, (command, ran.stderr)
    assert (desk / "model.stats.safetensors").is_file()
    assert (desk / "model-normalized.onnx").is_file()


def test_the_python(desk: Path) -> None:
    (block,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    ran = subprocess.run([sys.executable, "-c", block], cwd=desk, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert "240 filters in 8 layers" in ran.stdout
    assert re.search(r"^True \d+$", ran.stdout, re.MULTILINE)  # bit-identical, and how many are dead


def test_links_and_targets_exist() -> None:
    links = re.findall(r"\]\((?!https?://)([^)#]+)\)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in [*TARGETS, "vgg16"]:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    for tool in re.findall(r"python -m (tools[\w.]+)", README):
        assert (ROOT / (tool.replace(".", "/") + ".py")).is_file(), tool
