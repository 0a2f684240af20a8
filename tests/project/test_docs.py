"""Files that the documentation and the docstrings name are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "tools").rglob("*.py")])
NAMED = re.compile(r"(?<![\w./-])((?:onnxnorm|tests|tools|docs|models)/[\w./-]+\.(?:py|md|onnx|json))")
TEST = re.compile(r"(tests/[\w/]+\.py)::(\w+)")
MODULE = re.compile(r"python -m (tools\.[\w.]+\w)")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_named_on_a_page_exist(page: Path) -> None:
    text = page.read_text("utf-8")
    assert [name for name in NAMED.findall(text) if not (ROOT / name).exists()] == []
    modules = [name.replace(".", "/") for name in MODULE.findall(text)]
    assert [name for name in modules if not (ROOT / f"{name}.py").exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_tests_named_on_a_page_exist(page: Path) -> None:
    named = TEST.findall(page.read_text("utf-8"))
    assert [name for path, name in named if f"def {name}(" not in (ROOT / path).read_text("utf-8")] == []


def test_the_check_can_fail() -> None:
    assert NAMED.findall("see `tests/nowhere/test_it.py`, docs/none.md") == ["tests/nowhere/test_it.py", "docs/none.md"]
    assert TEST.findall("`tests/a/test_b.py::test_c`") == [("tests/a/test_b.py", "test_c")]
    assert MODULE.findall("run python -m tools.nothing.here.") == ["tools.nothing.here"]
