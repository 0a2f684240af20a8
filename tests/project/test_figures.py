"""The scripts that draw the figures of the documentation run, and the figures are there and small."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.helpers.commands import ROOT

pytest.importorskip("matplotlib", reason="matplotlib is not installed (extra report)")

FOLDER = ROOT / "docs" / "images"


def test_figures_of_how_it_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tools.docs import figures

    monkeypatch.setattr(sys, "argv", ["figures", "--output", str(tmp_path)])
    figures.main()
    drawn = {path.name for path in tmp_path.iterdir()}
    assert drawn == set(figures.FIGURES)
    assert all("<svg" in path.read_text("utf-8") for path in tmp_path.iterdir())
    assert [name for name in drawn if not (FOLDER / name).is_file()] == []


def test_figures_of_style_transfer(tmp_path: Path) -> None:
    """On made-up numbers; those of the documentation come from the real VGG-16."""
    from tools.style_transfer import figures

    rng = np.random.default_rng(0)
    layers = {f"relu{block}_1": rng.lognormal(size=50) for block in range(1, 6)}
    falling = {name: [float(1 / step + index) for step in range(1, 40)] for index, name in enumerate(layers, 1)}
    figures.means(layers, {name: np.ones(50) for name in layers}, layers, (10, 5), tmp_path / "means.png")
    figures.grams(layers, layers, tmp_path / "grams.png")
    figures.losses(falling, falling, tmp_path / "losses.png")
    figures.images(
        {name: Image.new("RGB", (30, 30)) for name in ("content", "style", "original")}, tmp_path / "transfer.jpg"
    )
    for name in ("means.png", "grams.png", "losses.png", "transfer.jpg"):
        with Image.open(tmp_path / name) as made, Image.open(FOLDER / name) as kept:
            made.load()
            assert kept.size[0] >= 800, name


def test_every_figure_is_shown_and_small() -> None:
    pages = "\n".join(path.read_text("utf-8") for path in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
    shown = set(re.findall(r"images/([\w.-]+)\)", pages))
    kept = {path.name for path in FOLDER.iterdir()}
    assert kept == shown
    assert all(path.stat().st_size < 250_000 for path in FOLDER.iterdir())
