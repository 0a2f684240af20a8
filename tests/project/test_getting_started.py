"""What docs/getting-started.md tells people to do works as it stands there, on stand-ins for models and photographs."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import onnx
import pytest

from tests.helpers.commands import DEMO, IMAGES, ROOT
from tests.helpers.vggs import vgg

PAGE = (ROOT / "docs" / "getting-started.md").read_text(encoding="utf-8")
COMMANDS = [shlex.split(command)[1:] for command in re.findall(r"^ {4}(onnxnorm [a-z]+ .*)$", PAGE, re.MULTILINE)]


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two models and two folders of photographs."""
    folder = tmp_path_factory.mktemp("desk")
    shutil.copy(DEMO, folder / "model.onnx")
    onnx.save(vgg(), folder / "vgg16.onnx")
    for name in ("photos", "other-photos"):
        (folder / name).symlink_to(IMAGES)
    return folder


def run(desk: Path, *words: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    environment = os.environ | {"PYTHONPATH": path}
    command = [sys.executable, *words]
    return subprocess.run(command, cwd=desk, env=environment, capture_output=True, text=True, check=False)


def test_the_commands_in_order(desk: Path) -> None:
    names = [words[0] for words in COMMANDS]
    assert names == ["plan", "calibrate", "rewrite", "verify", "features", "normalize", "export"]
    for words in COMMANDS:
        ran = run(desk, "-m", "onnxnorm", *words)
        if words[-1].endswith(".pth") and find_spec("torch") is None:
            assert "pip install 'onnxnorm[torch]'" in ran.stderr
        else:
            assert ran.returncode == 0, (words, ran.stderr)
    assert (desk / "model-normalized.onnx").is_file()
    assert (desk / "features-normalized.onnx").is_file()


def test_the_python(desk: Path) -> None:
    (block,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    ran = run(desk, "-c", block)
    assert ran.returncode == 0, ran.stderr
    assert "bit-identical" in ran.stdout
