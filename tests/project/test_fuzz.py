"""Damaged input ends in a result or in an OnnxnormError; and the fuzzer finds what does not."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import pytest

import onnxnorm
from tests.helpers.faulty_target import WAYS, take_memory
from tools.fuzz import chunks, run
from tools.fuzz.chunks import run_cases
from tools.fuzz.target import TARGETS, generator, load_target

FAULTY = "tests.helpers.faulty_target"
CASES = 300
# Targets with findings that are known and not mended yet. Take a name away once its target is clean.
OPEN: set[str] = set()
CHECKED = [
    pytest.param(name, marks=pytest.mark.xfail(reason=f"{name}: findings not mended yet") if name in OPEN else ())
    for name in TARGETS
]
linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells the memory of a process")


@pytest.mark.parametrize("name", CHECKED)
def test_damaged_input_ends_in_a_result_or_a_message(name: str) -> None:
    tally = run_cases(name, 0, CASES, 300)
    assert [f"{finding}\n{finding.text}" for finding in tally.findings.values()] == []
    assert tally.executions == CASES
    # Damage that is always noticed, or never, would test little.
    assert CASES / 20 < tally.outcomes["refused"] < CASES


@pytest.mark.parametrize("name", TARGETS)
def test_a_case_is_the_same_whenever_it_is_made(name: str) -> None:
    target = load_target(name)
    first = [target.damage(generator(name, seed)) for seed in range(20)]
    assert first[::-1] == [target.damage(generator(name, seed)) for seed in reversed(range(20))]
    assert len({tuple(sorted(files.items())) for files in first}) > 15


@pytest.mark.parametrize("name", TARGETS)
def test_seeds_without_damage_can_be_read(name: str, tmp_path: Path) -> None:
    for label, files in load_target(name).seeds().items():
        folder = tmp_path / label
        folder.mkdir()
        for file, content in files.items():
            (folder / file).write_bytes(content)
        assert any(is_read(name, folder, draw) for draw in range(9)), label


def is_read(name: str, folder: Path, draw: int) -> bool:
    """Whether reading with the options drawn ends in a result."""
    try:
        load_target(name).read(folder, generator(name, draw))
    except onnxnorm.OnnxnormError:
        return False
    return True


def test_several_processes_run_the_same_cases() -> None:
    alone, shared = (run_cases("records", 7, 50, 300, jobs=jobs) for jobs in (1, 3))
    assert (alone.outcomes, alone.after) == (shared.outcomes, shared.after)
    assert (alone.executions, alone.after) == (50, 57)


@linux
def test_every_way_to_fail_is_found_and_the_run_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "_WAITS", 2)  # one of the cases waits that long
    take_memory()  # what the process that watches has taken is not counted
    tally = run_cases(FAULTY, 0, len(WAYS), 200, limit=5)  # seconds that taking a gigabyte does not need
    assert tally.outcomes == Counter(WAYS)
    places = {kind: (finding.seed, finding.raised) for (kind, *_), finding in tally.findings.items()}
    assert {kind: seed for kind, (seed, _) in places.items()} == {"KeyError": 2, "time": 3, "memory": 4, "crash": 5}
    assert all(
        place.startswith("tests/helpers/faulty_target.py:") for kind, (_, place) in places.items() if kind != "memory"
    )


def test_findings_are_kept_and_exit_with_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(run, "TARGETS", (FAULTY,))
    assert run.main(["--seed", "1", "--cases", "2", "--output", str(tmp_path)]) == 1
    printed = capsys.readouterr().out
    assert "KeyError at ? (tests/helpers/faulty_target.py:" in printed
    assert printed.splitlines()[-1].split()[:2] == [FAULTY, "2"]
    (report,) = tmp_path.rglob("report.txt")
    assert f"python -m tools.fuzz.run --target {FAULTY} --seed 2 --cases 1" in report.read_text("utf-8")
    assert "raise KeyError" in report.read_text("utf-8")
    assert (report.parent / "way").read_bytes() == load_target(FAULTY).damage(generator(FAULTY, 2))["way"]
    assert run.main(["--seed", "0", "--cases", "2", "--output", str(tmp_path)]) == 0
