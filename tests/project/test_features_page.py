"""The commands of docs/features.md run as they stand there, in order, on stand-ins for the model and photographs."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.helpers.commands import DEMO, IMAGES

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "features.md").read_text(encoding="utf-8")
COMMANDS = [shlex.split(command)[1:] for command in re.findall(r"^ {4}(onnxnorm [a-z]+ .*)$", PAGE, re.MULTILINE)]
NEEDED = {".pth": "torch", ".h5": "h5py"}


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a vgg16.onnx and photos."""
    folder = tmp_path_factory.mktemp("desk")
    shutil.copy(DEMO, folder / "vgg16.onnx")
    (folder / "photos").symlink_to(IMAGES)
    return folder


def test_the_commands_in_order(desk: Path) -> None:
    assert len(COMMANDS) == 10
    for words in COMMANDS:
        ran = subprocess.run(
            [sys.executable, "-m", "onnxnorm.cli", *words], cwd=desk, capture_output=True, text=True, check=False
        )
        package = NEEDED.get(Path(words[-1]).suffix)
        if package is not None and find_spec(package) is None:
            assert ran.returncode == 1, words
            assert "pip install 'onnxnorm[" in ran.stderr
            continue
        assert ran.returncode == 0, (words, ran.stderr)
        assert (desk / words[-1]).is_file()


def test_the_python(desk: Path) -> None:
    (block,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    ran = subprocess.run([sys.executable, "-c", block], cwd=desk, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert "'relu4_1': 'float Nx48x8x8'" in ran.stdout
