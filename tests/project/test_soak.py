"""A small soak: some thousand images and rows in flat memory, exact to the last bit; and the soak can fail."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from onnxnorm.statistics import Moments, Statistics, Value
from tools.measurements import soak
from tools.measurements.soak import Expected, Sample

linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells memory and descriptors of a process")


@linux
def test_a_few_thousand_samples_are_exact(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(soak, "DAMAGED", 500)
    monkeypatch.setattr(soak, "ROWS", 700)
    # Of a run of seconds the second quarter is still the start; what this test checks is the result.
    monkeypatch.setattr(soak, "GROWTH", 200)
    assert soak.main(["--images", "3000", "--rows", "5000", "--interval", "0.05"]) == 0, capsys.readouterr().out
    assert "\n3,000 images\n" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


@linux
def test_a_wrong_result_fails(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(soak, "check_flat", lambda samples: [])
    monkeypatch.setattr(soak, "make_rows", one_row_twice)
    assert soak.main(["--images", "0", "--rows", "400"]) == 1
    out = capsys.readouterr().out
    assert "FAILED: rows: images is 400, not 401\n" in out
    assert "FAILED: rows: total is " in out


def one_row_twice(folder: Path, count: int) -> Expected:
    """As if one row had been lost."""
    expected = MAKE_ROWS(folder, count)
    row = np.load(folder / "rows00000.npy")[:1].astype(np.uint8)
    expected.add(row, np.ones(1, np.int64))
    return expected


MAKE_ROWS = soak.make_rows


def flat(count: int = 40) -> list[Sample]:
    return [Sample(float(index), 80.0, 140.0, 4 + index % 2) for index in range(count)]


def test_what_is_flat() -> None:
    rising = [Sample(item.seconds, 80 + item.seconds, 140, 4) for item in flat()]
    leaking = [Sample(item.seconds, 80, 140, 4 + int(item.seconds) // 5) for item in flat()]
    start = [Sample(item.seconds, min(8 * item.seconds, 80), 140, 4) for item in flat()]
    assert soak.check_flat(flat()) == []
    assert soak.check_flat(start) == []
    assert soak.check_flat(rising) == ["memory grew by 20 MiB"]
    assert soak.check_flat(leaking) == ["4 descriptors more are open at the end"]
    assert soak.check_flat(flat(3)) == ["it ended before it could be looked at"]


@linux
def test_a_command_that_fails(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(soak, "make_rows", lambda folder, count: Expected())  # no file at all
    assert soak.main(["--images", "0", "--rows", "10"]) == 1
    assert capsys.readouterr().out.endswith("FAILED: rows: calibrate ended with 1\n")


def test_the_statistics_differ_by_a_bit() -> None:
    expected = Expected()
    expected.add(np.full((2, 3, soak.SIDE, soak.SIDE), 7, np.uint8), np.array([1, 2]))
    moments = soak.wanted_moments(expected)
    assert soak.check_result(statistics(moments), expected) == []
    for name in moments:
        changed = {**moments, name: np.nextafter(moments[name], np.inf)}
        assert [text.split()[0] for text in soak.check_result(statistics(changed), expected)] == [name]


def statistics(moments: Mapping[str, object]) -> Statistics:
    """Statistics of one value with these moments."""
    value = Moments(**moments)  # type: ignore[arg-type]
    return Statistics("", "", "conv", {}, {}, (), {Value("z", "mean"): value})
