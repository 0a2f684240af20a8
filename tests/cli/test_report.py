"""`onnxnorm report` from end to end."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from tests.helpers.commands import DEMO, SOME, run, succeeded


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with s.safetensors and rewritten.onnx."""
    folder = tmp_path_factory.mktemp("desk")
    succeeded("calibrate", DEMO, *SOME, "--preset", "unit", "-o", folder / "s.safetensors", "-q")
    words = ("--stats", folder / "s.safetensors", "--power-of-two", "--no-verify", "-q")
    succeeded("rewrite", DEMO, *words, "-o", folder / "rewritten.onnx")
    return folder


def test_before_a_rewrite(desk: Path) -> None:
    page = desk / "planned.html"
    ran = succeeded("report", DEMO, "--stats", desk / "s.safetensors", "-o", page)
    assert ran.out == f"written to {page}\n"
    assert ran.err == f"next: onnxnorm rewrite {DEMO} --stats {desk / 's.safetensors'}\n"
    assert "Measured, not rewritten yet" in page.read_text(encoding="utf-8")


def test_after_a_rewrite(desk: Path) -> None:
    page = desk / "report.html"
    words: tuple[str | Path, ...] = (
        "report",
        DEMO,
        desk / "rewritten.onnx",
        *SOME[:2],
        "--stats",
        desk / "s.safetensors",
        "--fp16",
        "-o",
        page,
    )
    ran = succeeded(*words)
    assert "verdict: the same function: outputs are bit-identical on 2 samples\n" in ran.out
    assert ran.err == ""
    text = page.read_text(encoding="utf-8")
    assert 'id="fp16"' in text
    assert str(desk) not in text
    assert succeeded(*words, "-q").out == ran.out
    assert page.read_text(encoding="utf-8") == text


def test_not_verified(desk: Path) -> None:
    page = desk / "unverified.html"
    words = ("report", DEMO, desk / "rewritten.onnx", "--stats", desk / "s.safetensors", "--no-verify", "-o", page)
    assert "verdict: not verified\n" in succeeded(*words).out


def test_another_function_is_written_about_and_leaves_with_3(desk: Path) -> None:
    broken = onnx.load(desk / "rewritten.onnx")
    weight = broken.graph.initializer[0]
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * np.float32(1.5), weight.name))
    onnx.save(broken, desk / "broken.onnx")
    page = desk / "broken.html"
    ran = run("report", DEMO, desk / "broken.onnx", "--stats", desk / "s.safetensors", "-o", page)
    assert ran.code == 3
    assert "verdict: not the same function" in ran.out
    assert "Not the same function" in page.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ((DEMO, "--stats", "none.safetensors"), 1, "statistics none.safetensors do not exist"),
        (("none.onnx", "--stats", "{stats}"), 1, "none.onnx"),
        ((DEMO, "none.onnx", "--stats", "{stats}"), 1, "none.onnx"),
        ((DEMO, SOME[0], "--stats", "{stats}"), 1, "is not an ONNX file"),
        ((DEMO, DEMO, "--stats", "{stats}"), 1, "says nothing about a rewrite"),
        (("{rewritten}", "--stats", "{stats}"), 1, "measured on another model"),
        ((DEMO, "{rewritten}", "none.jpg", "--stats", "{stats}"), 1, "none.jpg"),
        ((DEMO, "--stats", "{stats}", "--fp16"), 2, "give REWRITTEN too"),
        ((DEMO, "{rewritten}", "--stats", "{stats}", "--fp16", "--no-verify"), 2, "leave out --no-verify"),
        ((DEMO, "-q"), 2, "--stats"),
    ],
)
def test_errors(desk: Path, words: tuple[str | Path, ...], code: int, message: str) -> None:
    page = desk / "never.html"
    places = {"stats": desk / "s.safetensors", "rewritten": desk / "rewritten.onnx"}
    ran = run("report", *(str(word).format(**places) for word in words), "-o", page)
    assert (ran.code, message in ran.error) == (code, True), ran.err
    assert not page.exists()


def test_without_the_extra(desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    ran = run("report", DEMO, "--stats", desk / "s.safetensors", "-o", desk / "never.html")
    assert ran.code == 1
    assert "pip install 'onnxnorm[report]'" in ran.error


def test_other_commands_do_without_the_extra() -> None:
    """Neither library is loaded by the rest of the command line."""
    import subprocess

    code = "import sys, onnxnorm.cli, onnxnorm.api; print(*{name.split('.')[0] for name in sys.modules})"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {"matplotlib", "jinja2"}.isdisjoint(ran.stdout.split())
