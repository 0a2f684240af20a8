"""Names from files do not control the terminal, wherever they are shown."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from onnxnorm.cli.escaping import escaped
from tests.helpers.commands import DEMO, run

EVIL = "a\x1b]0;owned\x07\x1b[2J\x9b\u202eb"
SHOWN = r"a\x1b]0;owned\x07\x1b[2J\x9b\u202eb"


def test_text_for_people_stays() -> None:
    assert escaped("网络 é\tñ\n→ 😀") == "网络 é\tñ\n→ 😀"
    assert escaped(EVIL) == SHOWN


@pytest.fixture
def evil(tmp_path: Path) -> Path:
    proto = onnx.load(DEMO)
    for node in proto.graph.node:
        node.name = EVIL + node.name
    path = tmp_path / "evil.onnx"
    onnx.save(proto, path)
    return path


def test_tables_and_messages(evil: Path, tmp_path: Path) -> None:
    rewriting = run("rewrite", evil, "--statistic", "weights", "-o", tmp_path / "out.onnx")
    for ran in (run("plan", evil), rewriting):
        assert ran.code == 0
        text = ran.out + ran.err
        assert r"\x1b]0" in text
        assert not set(text) & set("\x1b\x07\x9b\u202e")


@pytest.mark.parametrize("verbose", [[], ["-v"]])
def test_errors(verbose: list[str], tmp_path: Path) -> None:
    ran = run("plan", tmp_path / f"{EVIL}.onnx", *verbose)
    assert SHOWN in ran.err
    assert not set(ran.err) & set("\x1b\x07\x9b\u202e")
