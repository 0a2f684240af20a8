"""Messages read as sentences, also for one of a thing, and point to what a user of the installed package has."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.commands import DEMO, SOME, run, succeeded


def test_one_image(tmp_path: Path) -> None:
    """From one image there is no standard error, which is said; and one of a thing is no plural."""
    ran = succeeded("calibrate", DEMO, SOME[0], "--preset", "unit", "-o", tmp_path / "s")
    assert "over 1 image, " in ran.out
    assert "relative standard error of the means: not known from one image; it takes two or more\n" in ran.out
    ran = succeeded("verify", DEMO, DEMO, "--limit", "1")
    assert ran.out.splitlines()[0].endswith("on 1 sample")


@pytest.mark.parametrize("preset", ["Caffe", "CAFFE"])
def test_a_choice_in_capitals(preset: str, tmp_path: Path) -> None:
    ran = succeeded("calibrate", DEMO, *SOME, "--preset", preset, "-o", tmp_path / "s")
    assert "images as caffe: BGR" in ran.out
    assert "'BRG' is not one of" in run("calibrate", DEMO, *SOME, "--channels", "BRG", "-o", tmp_path / "s").error


def test_advice_names_no_files_of_the_repository(tmp_path: Path) -> None:
    ran = succeeded("normalize", DEMO, *SOME, "--preset", "unit", "-o", tmp_path / "o.onnx")
    assert "see the page on INT8 in the documentation" in ran.err
    assert "docs/" not in ran.err
