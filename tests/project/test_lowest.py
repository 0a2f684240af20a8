"""The constraints of the lowest versions are the bounds of pyproject.toml, for the interpreter that runs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tools.checks.lowest import pins, requirements

ROOT = Path(__file__).resolve().parents[2]

TEXT = """
[project]
name = "Some_Thing"
dependencies = ["numpy>=1.26", "old>=2; python_version < '3.11'", "Mac_Only>=4,<9; sys_platform == 'darwin'"]
[project.optional-dependencies]
plot = ["drawing[svg]>=3.1"]
test = ["some-thing[plot]", "numpy[all]>=1.26"]
check = ["linter>=7"]
"""


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"python_version": "3.10", "sys_platform": "linux"}, ["drawing==3.1", "numpy==1.26", "old==2"]),
        ({"python_version": "3.11", "sys_platform": "linux"}, ["drawing==3.1", "numpy==1.26"]),
        ({"python_version": "3.11", "sys_platform": "darwin"}, ["drawing==3.1", "mac-only==4", "numpy==1.26"]),
    ],
)
def test_what_holds_in_an_environment(environment: dict[str, str], expected: list[str]) -> None:
    assert pins(requirements(TEXT), environment) == expected


@pytest.mark.parametrize("lines", [["numpy"], ["numpy<3"], ["numpy==2.0"], ["numpy>=1.26", "numpy>=2; os_name != ''"]])
def test_every_requirement_has_one_lower_bound(lines: list[str]) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(repr(lines[-1]))}: there must be one lower bound"):
        pins(lines)


def test_the_bounds_of_this_project() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    command = [sys.executable, "-m", "tools.checks.lowest"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert {"numpy", "onnx", "onnx-graphsurgeon", "protobuf", "pytest"} <= {pin.split("==")[0] for pin in printed}
    for pin in printed:
        name, version = pin.split("==")
        assert re.search(rf'"{name}(\[.*?\])?>={re.escape(version)}[";]', text), pin
