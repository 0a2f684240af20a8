"""Ranges that a calibration stored, before and after a rewrite, are those that running both models gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import onnxnorm
from onnxnorm.model.files import Model
from onnxnorm.rewriting.ranges import stored_ranges
from onnxnorm.runtime import Runtime
from onnxnorm.verification import Fp16, HeadroomMeter
from tests.corpus import CASES, feeds
from tests.helpers.commands import DEMO, SOME, run, succeeded
from tests.helpers.graphs import model, rand

REWRITES: tuple[dict[str, Any], ...] = (
    {"outputs": "scale", "power_of_two": True},
    {"allow": "nodes"},
    {"ceiling": 0.3, "allow": "attributes"},
)
NAMES = [name for name in CASES if name != "nodes_with_one_name"]  # which the runtime refuses
HALF = {"float16", "float16_typed", "weight_behind_cast"}


def both(proto: onnx.ModelProto, fed: Any, **words: Any) -> tuple[Fp16, Fp16]:
    """The ranges of a model and its rewritten version: those that follow from what was stored, and those measured."""
    statistics = onnxnorm.calibrate(proto, fed, measure=("range",), filters="all")
    done = onnxnorm.rewrite(proto, statistics, verify=False, **words)
    before, after = Model.open(proto).fed(statistics.settings), Model.open(done.model)
    meter = HeadroomMeter(before, after, Runtime("cpu", 1))
    assert len(list(meter.watching([fed]))) == 1
    return Fp16.stored(before, after, statistics), meter.result()


@pytest.mark.parametrize("name", NAMES)
def test_they_are_what_running_both_gives(name: str) -> None:
    """Every value of the corpus at every level, to rounding; a bound is never below.

    Constants in float16 are rounded by 2^-11 when they are scaled, and layers add up.
    """
    proto = CASES[name].build()
    rtol = 20 * 2**-11 if name in HALF else 1e-4
    for words in REWRITES:
        stored, measured = both(proto, feeds(proto), **words)
        for side, found in stored.sides.items():
            expected = measured.sides[side].values
            assert set(found.values) == set(expected)
            for value, largest in expected.items():
                low = largest * (1 - rtol) - 1e-6
                high = np.inf if value in found.at_most else largest * (1 + rtol) + 1e-6
                assert low <= found.values[value] <= high, (words, side, value)
        assert not stored.original.at_most


def test_channels_that_were_measured_together_give_a_bound() -> None:
    """The channels of a ReLU6 share a scale until nodes are added: one largest magnitude is known for all of them."""
    proto = CASES["relu6_with_attributes"].build()
    stored, measured = both(proto, feeds(proto), allow="nodes")
    loose = stored.rewritten.at_most
    assert loose
    assert loose < set(stored.rewritten.values)
    assert any(stored.rewritten.values[name] > 1.01 * measured.rewritten.values[name] for name in loose)


def test_infinity_stays_infinite() -> None:
    body = "a = Conv(x, w) m = Add(a, mask) r = Relu(m) z = Conv(r, v)"
    mask = np.zeros((4, 1, 1), np.float32)
    mask[1] = -np.inf
    proto = model(body, {"x": ("N", 3, 4, 4)}, {"w": rand(4, 3, 1, 1), "v": rand(2, 4, 1, 1), "mask": mask})
    x = {"x": rand(2, 3, 4, 4)}
    stored, measured = both(proto, x, allow="nodes")
    for side, found in stored.sides.items():
        assert found.values["m"] == measured.sides[side].values["m"] == np.inf
        assert found.values["a"] < np.inf


def test_nodes_and_weights_are_counted_as_when_both_run() -> None:
    loud = onnx.load(DEMO)
    stored, measured = both(loud, {loud.graph.input[0].name: rand(1, 3, 64, 64) * np.float32(4000)}, ceiling=512.0)
    assert measured.original.nodes.kept
    for side, found in stored.sides.items():
        assert found.nodes == measured.sides[side].nodes
        assert found.constants == measured.sides[side].constants
        assert found.above_512 == measured.sides[side].above_512


def test_an_added_node_is_counted_with_what_it_reads_and_writes() -> None:
    proto = CASES["residual_on_input"].build()
    statistics = onnxnorm.calibrate(proto, feeds(proto), measure=("range",))
    done = onnxnorm.rewrite(proto, statistics, allow="nodes", verify=False)
    assert done.rewriting.nodes_added
    _, after = stored_ranges(Model.open(proto), statistics, Model.open(done.model))
    added = {name for node in done.model.graph.node for name in node.output if name.startswith("onnxnorm_")}
    assert added
    assert added <= set(after.values)


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the statistics of the demo, with ranges and without, and a rewritten model."""
    folder = tmp_path_factory.mktemp("stored")
    words: tuple[str | Path, ...] = (DEMO, *SOME[:3], "--preset", "unit", "-q")
    succeeded("calibrate", *words, "--measure", "range", "-o", folder / "ranges.safetensors")
    succeeded("calibrate", *words, "-o", folder / "means.safetensors")
    stats = ("--stats", folder / "ranges.safetensors")
    succeeded("rewrite", DEMO, *stats, "--ceiling", "4", "--no-verify", "-q", "-o", folder / "o.onnx")
    return folder


def test_verify_takes_them_without_data(desk: Path) -> None:
    words = ("verify", DEMO, desk / "o.onnx", "--fp16")
    stored = succeeded(*words, "--stats", desk / "ranges.safetensors", "--json").json["fp16"]
    assert (stored["ranges_from"], stored["images"]) == ("statistics", 3)
    measured = succeeded(*words, *SOME[:3], "--preset", "unit", "--json").json["fp16"]
    assert (measured["ranges_from"], measured["images"]) == ("inputs", None)
    for mine, theirs in zip(stored["values"], measured["values"], strict=True):
        assert mine["name"] == theirs["name"]
        assert [mine[side] for side in ("original", "rewritten")] == pytest.approx(
            [theirs[side] for side in ("original", "rewritten")], rel=1e-5
        )
    above = [sum(row[side] > 4 for row in stored["values"]) for side in ("original", "rewritten")]
    assert above[1] < above[0]
    assert stored["rewritten"]["outputs"]
    text = succeeded(*words, "--stats", desk / "ranges.safetensors").out
    assert "as calibrate --measure range stored them, on 3 images" in text


def test_verify_finds_them_by_itself(desk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    default = tmp_path / f"{DEMO.stem}.stats.safetensors"
    words = ("verify", DEMO, desk / "o.onnx", "--fp16")
    ran = succeeded(*words, "--json")
    assert ran.json["fp16"]["ranges_from"] == "inputs"
    assert "random inputs, which say little; give DATA, or --stats FILE that has ranges: calibrate --measure" in ran.err
    default.write_bytes((desk / "ranges.safetensors").read_bytes())
    assert succeeded(*words, "--json").json["fp16"]["ranges_from"] == "statistics"
    assert succeeded(*words, SOME[0], "--preset", "unit", "--json").json["fp16"]["ranges_from"] == "inputs"
    default.write_bytes((desk / "means.safetensors").read_bytes())
    ran = succeeded(*words, "--json")
    assert ran.json["fp16"]["ranges_from"] == "inputs"
    assert "is left aside" in ran.err
    assert "--measure range" in ran.err


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("o.onnx", "--fp16", "--stats", "means.safetensors"), 1, "calibrate this model with --measure range"),
        (("o.onnx", "--stats", "ranges.safetensors"), 2, "--stats is for --fp16 without DATA"),
        (("o.onnx", str(SOME[0]), "--fp16", "--stats", "ranges.safetensors"), 2, "--stats is for --fp16 without DATA"),
        ((str(DEMO), "--fp16", "--stats", "ranges.safetensors"), 1, "says nothing about a rewrite"),
    ],
)
def test_what_does_not_go(
    desk: Path, words: tuple[str, ...], code: int, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(desk)
    ran = run("verify", DEMO, *words)
    assert ran.code == code
    assert message in ran.error


def test_python_takes_one_of_the_two(desk: Path) -> None:
    with pytest.raises(onnxnorm.OptionError, match="for fp16 without data"):
        onnxnorm.verify(DEMO, desk / "o.onnx", SOME[:1], statistics=desk / "ranges.safetensors", fp16=True)
