"""Mutation testing: mutants differ in what they do, and the run tells those that tests notice from the others."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tools.mutation import mutants
from tools.mutation.run import PLAN

ROOT = Path(__file__).resolve().parents[2]
SOURCE = '''"""Text."""
def half(number: int) -> float:
    """Text."""
    if number < 0:
        raise ValueError
    return number / 2
'''


def replaced(source: str) -> Iterator[tuple[str, str]]:
    """What Cosmic Ray might make of it."""
    yield "Annotation", source.replace("number: int", "number: float")
    yield "Docstring", source.replace("Text", "Other")
    yield "Div_Mul", source.replace("/ 2", "* 2")
    yield "Again", source.replace("/ 2", "*  2")
    yield "NoPython", source.replace("/ 2", "/ / 2")


def test_mutants_without_effect_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mutants, "_replaced", replaced)
    found = mutants.mutants_of(SOURCE)
    assert [(mutant.line, mutant.operator, mutant.after) for mutant in found] == [
        (4, "LeaveOut", "pass"),
        (5, "LeaveOut", "pass"),
        (6, "Div_Mul", "return number * 2"),
    ]
    for mutant in found:
        compile(mutant.source, "mutant", "exec")


def test_the_tests_of_the_plan_are_there() -> None:
    assert [test for tests in PLAN.values() for test in tests if not (ROOT / test).exists()] == []


RUN = """
from pathlib import Path
from tools.mutation.run import _outcomes
path = Path("onnxnorm/rewriting/factors.py")
whole = path.read_text("utf-8")
sources = [whole, whole.replace("self.times / self.over", "self.times * self.over"), "raise OSError", "while True: 0"]
test = "tests/rewriting/test_factors.py::test_a_bound_stays_at_the_largest_number"
print(_outcomes("onnxnorm.rewriting.factors", str(path), sources, [test], 2, 10))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="mutants run in forked processes")
def test_a_mutant_is_killed_by_a_failure_an_error_or_the_clock() -> None:
    done = subprocess.run([sys.executable, "-c", RUN], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout == "[False, True, True, True]\n", done.stderr
