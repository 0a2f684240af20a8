"""One number per layer, as JSON."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

import onnxnorm
from onnxnorm.statistics.histograms import WIDTH
from tests.helpers import oracle
from tests.helpers.commands import DEMO, run, succeeded
from tests.helpers.graphs import rand


@pytest.mark.parametrize("statistic", ["max", "p99:nonzero"])
def test_thresholds_are_those_of_the_activations(tmp_path: Path, statistic: str) -> None:
    x, out, stats = np.abs(rand(4, 3, 64, 64)), tmp_path / "t.json", tmp_path / "s.safetensors"
    onnxnorm.calibrate(DEMO, x, measure=("p99.9",)).save(stats)
    found = succeeded(
        "export", DEMO, "--thresholds", "--statistic", statistic, "--stats", stats, "-o", out, "--json"
    ).json
    content = json.loads(out.read_text())
    assert found == {"output": str(out), **content}
    assert (content["statistic"], content["images"]) == (statistic, 4)
    proto = onnx.load(DEMO)
    names = [row["value"] for row in content["layers"]]
    raw = oracle.activations(proto, {proto.graph.input[0].name: x}, names)
    for row in content["layers"]:
        flat = np.abs(raw[row["value"]]).reshape(-1)
        flat = flat[flat > 0]
        want = flat.max() if statistic == "max" else np.quantile(flat, 0.99, method="inverted_cdf")
        np.testing.assert_allclose(row["threshold"], want, rtol=2e-5 if statistic == "max" else WIDTH)


def test_of_a_normalized_model_they_are_the_target(tmp_path: Path) -> None:
    x = np.abs(rand(4, 3, 64, 64))
    before = onnxnorm.calibrate(DEMO, x, measure=("max",))
    done = onnxnorm.rewrite(DEMO, before, statistic="max", per="layer", target=3.0)
    after = onnxnorm.calibrate(done.model, x, measure=("max",))
    written = onnxnorm.export_thresholds(done.model, after, tmp_path / "t.json")
    rows = json.loads(written.path.read_text())["layers"]
    free = [not layer.pinned.any() for layer in done.rewriting.scales.layers]
    np.testing.assert_allclose(
        [row["threshold"] for row, is_free in zip(rows, free, strict=True) if is_free], 3.0, 2e-5
    )


def test_what_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    onnxnorm.calibrate(DEMO, np.abs(rand(2, 3, 64, 64))).save("s")
    for words, message in {
        ("--thresholds", "-o", "t.json"): "give --stats",
        ("--thresholds", "--stats", "s", "-o", "t.npz"): "does not end in .json",
        ("--thresholds", "--stats", "s", "--statistic", "bn", "-o", "t.json"): "choose max",
        ("--thresholds", "--stats", "s", "--statistic", "p99", "-o", "t.json"): "--measure p99",
        ("--thresholds", "--layout", "keras", "-o", "t.json"): "--layout is for constants",
        ("--statistic", "max", "-o", "t.npz"): "give both, or neither",
        ("--stats", "s", "-o", "t.npz"): "for --thresholds only",
    }.items():
        assert message in run("export", DEMO, *words).error
    assert [path.name for path in tmp_path.iterdir()] == ["s"]
