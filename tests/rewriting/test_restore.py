"""Undoing a rewrite, and knowing a model that was rewritten."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper

import onnxnorm
from onnxnorm.calibration.calibrate import calibrate_model
from onnxnorm.calibration.options import CalibrationOptions
from onnxnorm.cli import main
from onnxnorm.model.files import Model
from onnxnorm.rewriting import Factor, record, restore_model, rewrite_model, sidecar_path
from onnxnorm.rewriting.options import ScaleOptions
from onnxnorm.rewriting.record import Record
from onnxnorm.runtime import Runtime
from tests.corpus import CASES, Case, feeds
from tests.helpers.graphs import model as network
from tests.helpers.graphs import rand

RUNTIME = Runtime("cpu", threads=1)
RUNNING = [case for case in CASES.values() if case.runs]
DEMO = Path(__file__).parents[2] / "models" / "demo_vgg.onnx"


def statistics_of(model: Model, seed: int = 3, samples: int = 6) -> onnxnorm.Statistics:
    return calibrate_model(model, feeds(model.proto, samples, seed), CalibrationOptions(provider=RUNTIME.provider))


def digest(path: Path) -> str:
    return Model.open(path).digest()


def values(model: Model) -> dict[str, NDArray[Any]]:
    return {tensor.name: model.values(index) for index, tensor in enumerate(model.proto.graph.initializer)}


@pytest.mark.parametrize("case", RUNNING, ids=[case.name for case in RUNNING])
def test_exact_scales_are_undone_to_rounding(case: Case) -> None:
    """Names, nodes and their order, clones, metadata: all as before. (Bit for bit: `test_power_of_two.py`.)"""
    model = Model.open(case.build())
    statistics = calibrate_model(
        model, feeds(model.proto, 2), CalibrationOptions(provider=RUNTIME.provider, filters=case.filters)
    )
    rewriting = rewrite_model(model, statistics, ScaleOptions(filters=case.filters))
    restored = restore_model(rewriting.model)
    before, after = model.to_proto(), restored.model.to_proto()
    assert restored.same or restored.bound > 0
    for old, new in zip(before.graph.initializer, after.graph.initializer, strict=True):
        a, b = (onnx.numpy_helper.to_array(tensor) for tensor in (old, new))
        if a.dtype.kind not in "iubOSU":
            a, b = a.astype(np.float64), b.astype(np.float64)
            a, b = a[np.isfinite(a)], b[np.isfinite(a)]
            assert (np.abs(b - a) <= restored.bound * np.abs(a)).all()
        for tensor in (old, new):
            for name in ("raw_data", "float_data", "double_data", "int32_data"):
                tensor.ClearField(name)
    for proto in (before, after):
        for node in proto.graph.node:
            for attribute in node.attribute:
                attribute.ClearField("t")
    assert before == after


def shared(ir_version: int = 8) -> Model:
    """Two branches that read the same weight and need it scaled differently: one of them gets a clone."""
    body = (
        "a = Conv(x, w)   r = Relu(a)   b = Conv(y, w)   s = Relu(b)   c = Conv(r, v)   d = Conv(s, v)   z = Add(c, d)"
    )
    constants = {"w": rand(4, 3, 1, 1), "v": rand(2, 4, 1, 1)}
    proto = network(body, {"x": (1, 3, 4, 4), "y": (1, 3, 4, 4)}, constants, opset=13)
    proto.ir_version = ir_version
    if ir_version < 4:
        for tensor in proto.graph.initializer:
            proto.graph.input.append(helper.make_tensor_value_info(tensor.name, TensorProto.FLOAT, tensor.dims))
    proto.metadata_props.add(key="author", value="somebody")
    return Model.open(proto)


@pytest.mark.parametrize("ir_version", [3, 8])
def test_clones_go(ir_version: int) -> None:
    model = shared(ir_version)
    statistics = calibrate_model(
        model,
        {"x": np.abs(rand(1, 3, 4, 4)), "y": 9 * np.abs(rand(1, 3, 4, 4, seed=1))},
        CalibrationOptions(provider=RUNTIME.provider),
    )
    rewriting = rewrite_model(model, statistics, ScaleOptions(power_of_two=True))
    assert len(rewriting.clones) >= 1
    restored = restore_model(rewriting.model)
    assert restored.same
    assert restored.model.to_proto() == model.to_proto()


def test_files_are_restored_byte_for_byte(tmp_path: Path) -> None:
    rewritten, out = tmp_path / "rewritten.onnx", tmp_path / "restored.onnx"
    onnxnorm.rewrite(DEMO, statistic="weights", power_of_two=True, output=rewritten)
    assert digest(rewritten) != digest(DEMO)
    assert onnxnorm.restore(rewritten, out).same
    assert out.read_bytes() == DEMO.read_bytes()


def test_external_data_is_restored_byte_for_byte(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    original, rewritten = tmp_path / "a" / "model.onnx", tmp_path / "b" / "model.onnx"
    onnx.save(onnx.load(DEMO), original, save_as_external_data=True, location="weights.bin", size_threshold=64)
    onnxnorm.rewrite(original, statistic="weights", power_of_two=True, output=rewritten)
    assert (tmp_path / "b" / "weights.bin").read_bytes() != (tmp_path / "a" / "weights.bin").read_bytes()
    assert onnxnorm.restore(rewritten, rewritten, in_place=True).same
    for name in ("model.onnx", "weights.bin"):
        assert (tmp_path / "b" / name).read_bytes() == (tmp_path / "a" / name).read_bytes()


def test_two_rewrites_are_undone_together() -> None:
    """The second one rewrites what the first one left, clones included."""
    model = shared()
    given = {"x": np.abs(rand(1, 3, 4, 4)), "y": 9 * np.abs(rand(1, 3, 4, 4, seed=1))}
    for powers in ((True, True), (False, True)):
        once = rewrite_model(
            model,
            calibrate_model(model, given, CalibrationOptions(provider=RUNTIME.provider)),
            ScaleOptions(power_of_two=powers[0]),
        )
        twice = rewrite_model(
            once.model,
            calibrate_model(once.model, given, CalibrationOptions(provider=RUNTIME.provider)),
            ScaleOptions(target=4.0, power_of_two=powers[1]),
        )
        assert twice.previous == once.entries
        restored = restore_model(twice.model)
        assert [entries["target"] for entries in restored.rewrites] == ["4.0", "1.0"]
        assert restored.exact is restored.same is all(powers)
        for name, array in values(model).items():
            np.testing.assert_allclose(values(restored.model)[name], array, rtol=restored.bound, atol=0)
        assert {**restored.rewrites[1]} == dict(once.entries)


# --- the record ----------------------------------------------------------------------------------------------------


def test_a_long_record_goes_beside_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record, "RECORDED", 100)
    rewritten, out = tmp_path / "rewritten.onnx", tmp_path / "restored.onnx"
    done = onnxnorm.rewrite(DEMO, statistic="weights", power_of_two=True, output=rewritten)
    place = sidecar_path(rewritten)
    assert place == tmp_path / "rewritten.onnx.scales.safetensors"
    assert place.is_file()
    assert "scales" not in done.rewriting.entries
    assert onnxnorm.restore(rewritten, out).same

    moved = tmp_path / "moved.safetensors"
    place.rename(moved)
    with pytest.raises(
        onnxnorm.ModelError, match=r"rewritten\.onnx\.scales\.safetensors is missing; give it with --scales"
    ):
        onnxnorm.restore(rewritten)
    assert onnxnorm.restore(rewritten, scales=moved).same
    onnxnorm.rewrite(DEMO, statistic="weights", target=2.0, output=rewritten)
    with pytest.raises(onnxnorm.ModelError, match="holds the scales of another rewrite"):
        onnxnorm.restore(rewritten, scales=moved)


def test_a_short_record_needs_no_file(tmp_path: Path) -> None:
    done = onnxnorm.rewrite(DEMO, statistic="weights", output=tmp_path / "out.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["out.onnx"]
    assert len(done.rewriting.entries["scales"]) < 10_000


def test_a_record_survives_its_file() -> None:
    factors = {"a": Factor(np.ones((2, 1)), np.asarray([[0.3, 7.0]])), "b": Factor(np.ones(1), np.asarray([0.3, 7.0]))}
    found = Record.from_bytes(Record(factors, {"c": "a"}).to_bytes())
    assert found.clones == {"c": "a"}
    assert found.factors == factors
    assert [f.over.shape for f in found.factors.values()] == [(1, 2), (2,)]


@pytest.mark.parametrize("text", ["", "!", "AAAA", "eJzLSM3JyQcABiwCFQ=="])
def test_a_damaged_record_is_one_clear_error(tmp_path: Path, text: str) -> None:
    done = onnxnorm.rewrite(DEMO, statistic="weights")
    proto = done.model
    for entry in proto.metadata_props:
        if entry.key == "onnxnorm.scales":
            entry.value = text
    with pytest.raises(onnxnorm.ModelError, match="the record of the scales is damaged"):
        onnxnorm.restore(proto)


def test_scales_that_are_not_positive_are_refused() -> None:
    content = Record({"a": Factor(np.zeros(1), np.ones(1))}, {}).to_bytes()
    with pytest.raises(onnxnorm.ModelError, match="a scale is not positive"):
        Record.from_bytes(content)


# --- refusals ------------------------------------------------------------------------------------------------------


def test_a_model_that_was_not_rewritten_is_refused() -> None:
    with pytest.raises(onnxnorm.ModelError, match="nothing to undo"):
        onnxnorm.restore(DEMO)


def test_a_model_that_was_changed_later_is_refused(tmp_path: Path) -> None:
    proto = onnxnorm.rewrite(DEMO, statistic="weights", power_of_two=True).model
    proto.graph.node[0].name = "renamed"
    with pytest.raises(onnxnorm.VerificationError, match="not the original that the rewrite recorded"):
        onnxnorm.restore(proto, tmp_path / "out.onnx")
    assert not list(tmp_path.iterdir())
    assert not onnxnorm.restore(proto, tmp_path / "out.onnx", verify=False).same


def test_a_record_of_another_model_is_refused() -> None:
    proto = onnxnorm.rewrite(DEMO, statistic="weights").model
    proto.graph.initializer[0].name = "renamed"
    with pytest.raises(onnxnorm.ModelError, match=r"constant 'conv1_1\.weight' of the record is not in the model"):
        restore_model(Model.open(proto))


# --- rewriting twice -----------------------------------------------------------------------------------------------


def run(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    monkeypatch.setattr(sys, "argv", ["onnxnorm", *map(str, words)])
    with pytest.raises(SystemExit) as done:
        main()
    return int(done.value.code or 0)


def test_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    rewritten, out = tmp_path / "rewritten.onnx", tmp_path / "restored.onnx"
    assert run(monkeypatch, "rewrite", DEMO, "--statistic", "weights", "--power-of-two", "-o", rewritten) == 0
    capsys.readouterr()
    assert run(monkeypatch, "restore", rewritten, "-o", out, "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["bit_identical"]
    assert printed["digest"] == printed["original"] == digest(DEMO)
    assert out.read_bytes() == DEMO.read_bytes()

    assert run(monkeypatch, "rewrite", DEMO, "--statistic", "weights", "-o", rewritten) == 0
    capsys.readouterr()
    assert run(monkeypatch, "restore", rewritten, "-o", out) == 0
    assert "every number is within 1.2e-07" in capsys.readouterr().out

    assert run(monkeypatch, "restore", DEMO, "-o", out) == 1
    assert "nothing to undo" in capsys.readouterr().err


def test_a_second_rewrite_finds_scales_of_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first, again = np.split(np.abs(rand(64, 3, 64, 64)) ** 2, 2)
    once, stats = tmp_path / "once.onnx", tmp_path / "stats.safetensors"
    before = onnxnorm.calibrate(DEMO, first)
    done = onnxnorm.rewrite(DEMO, before, once)
    assert done.rewriting.scales.span[1] > 2

    same = onnxnorm.rewrite(once, onnxnorm.calibrate(once, first))
    np.testing.assert_allclose(same.rewriting.scales.span, 1.0, atol=1e-5)

    onnxnorm.calibrate(once, again).save(stats)
    other = onnxnorm.rewrite(once, stats)
    layers = other.rewriting.scales.layers
    errors = np.concatenate([layer.standard_error[layer.live] / layer.statistic[layer.live] for layer in layers])
    off = np.concatenate([np.abs(np.log(layer.scale[layer.live])) for layer in layers])
    assert np.mean(off < 3 * np.sqrt(2) * errors) > 0.95  # both statistics have an error

    assert run(monkeypatch, "rewrite", once, "--stats", stats, "-o", tmp_path / "twice.onnx") == 0
    said = capsys.readouterr().out
    assert "already normalized on mean to 1.0; scales now between" in said
    assert "standard error of the statistics" in said
    assert run(monkeypatch, "rewrite", once, "--stats", stats, "-o", tmp_path / "twice.onnx", "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["previous"]["original"] == digest(DEMO)


def test_statistics_of_the_original_do_not_fit_the_rewritten_model(tmp_path: Path) -> None:
    x = np.abs(rand(4, 3, 64, 64))
    before = onnxnorm.calibrate(DEMO, x)
    onnxnorm.rewrite(DEMO, before, tmp_path / "once.onnx")
    with pytest.raises(onnxnorm.StatisticsError, match="this model was rewritten already"):
        onnxnorm.rewrite(tmp_path / "once.onnx", before)
