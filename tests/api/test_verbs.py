"""The verbs of the package, and what they return."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import FrozenInstanceError, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import onnxnorm
from tests.helpers.commands import DEMO, SOME
from tests.helpers.graphs import Array, model, rand

WORDS: dict[str, Any] = {"preset": "unit", "provider": "cpu"}


@pytest.fixture(scope="module")
def statistics() -> onnxnorm.Statistics:
    return onnxnorm.calibrate(DEMO, SOME, **WORDS)


def tiny(side: int | str = 8, batch: int | str = "n", outputs: tuple[str, ...] = ("z",)) -> onnx.ModelProto:
    body = "a = Conv<pads=[1,1,1,1]>(x, w, b) r = Relu(a) p = GlobalAveragePool(r) f = Flatten(p) z = Gemm(f, v)"
    constants = {"w": rand(4, 3, 3, 3), "b": rand(4, seed=1), "v": rand(4, 5, seed=2)}
    return model(body, {"x": (batch, 3, side, side)}, constants, outputs, opset=17)


def differing(a: onnx.ModelProto, b: onnx.ModelProto) -> list[str]:
    pairs = zip(a.graph.initializer, b.graph.initializer, strict=True)
    return [x.name for x, y in pairs if x.SerializeToString() != y.SerializeToString()]


def test_the_two_journeys(statistics: onnxnorm.Statistics, tmp_path: Path) -> None:
    path, out = tmp_path / "s.safetensors", tmp_path / "out.onnx"
    statistics.save(path)
    plan = onnxnorm.plan(DEMO, path)
    done = onnxnorm.rewrite(DEMO, path, out, provider="cpu")
    verified = onnxnorm.verify(DEMO, out, SOME[3:], **WORDS)
    assert (plan.filters, plan.free, plan.pinned, plan.tied) == (240, 240, 0, 0)
    assert done.plan == replace(plan, levels={})
    assert [given.exact for given in plan.levels.values()] == [240, 240, 240]
    assert done.path == out
    assert done.statistics is not None
    assert done.statistics.images == statistics.images == 6
    assert done.verification is not None
    assert done.verification.same
    assert verified.same
    assert verified.graph_identical
    assert verified.samples == 3
    assert onnx.load(out) == done.model


def test_normalize_is_both_in_one(statistics: onnxnorm.Statistics, tmp_path: Path) -> None:
    one = onnxnorm.normalize(DEMO, SOME, tmp_path / "one.onnx", **WORDS)
    two = onnxnorm.rewrite(DEMO, statistics, tmp_path / "two.onnx", provider="cpu")
    assert one.model == two.model
    assert one.verification is not None
    assert two.verification is not None
    assert one.verification.samples == 6 + 8


def test_every_live_filter_has_mean_one_afterwards(statistics: onnxnorm.Statistics, tmp_path: Path) -> None:
    done = onnxnorm.rewrite(DEMO, statistics, provider="cpu")
    again = onnxnorm.calibrate(done.model, SOME, **WORDS)
    for value, moments in statistics.values.items():
        live = moments.mean > 1e-6 * moments.mean.max()
        np.testing.assert_allclose(again.values[value].mean[live], 1, rtol=1e-4)
        np.testing.assert_allclose(again.values[value].mean[~live], moments.mean[~live], atol=1e-4)


def test_a_target_of_ones_own() -> None:
    done = onnxnorm.normalize(DEMO, SOME, target=0.25, **WORDS)
    again = onnxnorm.calibrate(done.model, SOME, **WORDS)
    means = np.concatenate([moments.mean for moments in again.values.values()])
    assert np.quantile(means, 0.05) == pytest.approx(0.25, rel=1e-4)
    assert np.quantile(means, 0.95) == pytest.approx(0.25, rel=1e-4)
    with pytest.raises(onnxnorm.OptionError, match="target"):
        onnxnorm.rewrite(DEMO, done.statistics, target=0.0)


def test_models_in_memory_and_arrays() -> None:
    proto, data = tiny(), rand(20, 3, 8, 8)
    before = proto.SerializeToString(deterministic=True)
    done = onnxnorm.normalize(proto, data, provider="cpu")
    assert proto.SerializeToString(deterministic=True) == before
    assert differing(proto, done.model) == ["w", "b", "v"]
    assert onnxnorm.verify(proto, done.model, [data[:3], data[3:]], provider="cpu").samples == 20
    assert onnxnorm.verify(proto, done.model, provider="cpu", limit=3).samples == 3
    assert done.path is None


@pytest.mark.parametrize("named", [False, True])
def test_arrays_that_can_be_read_only_once(named: bool) -> None:
    data = rand(20, 3, 8, 8)

    def once() -> Iterator[Any]:
        for start in range(0, 20, 6):
            part: Array = data[start : start + 6]
            yield {"x": part} if named else part

    done = onnxnorm.normalize(tiny(), once(), provider="cpu")
    assert done.statistics is not None
    assert done.statistics.images == 20
    assert done.verification is not None
    assert done.verification.samples >= 8 + 8
    again = onnxnorm.calibrate(done.model, once(), provider="cpu")
    for moments in again.values.values():
        np.testing.assert_allclose(moments.mean, 1, rtol=1e-5)


def test_samples_that_fill_a_fixed_batch_are_not_counted() -> None:
    proto = tiny(batch=4)
    assert onnxnorm.verify(proto, proto, rand(6, 3, 8, 8), provider="cpu").samples == 6


def test_the_size_of_what_the_model_leaves_open() -> None:
    proto = tiny("s")
    assert onnxnorm.plan(proto, size="16x16").filters == 4
    assert onnxnorm.plan(proto, size=(16, 24)).filters == 4
    with pytest.raises(onnxnorm.OptionError, match="--size"):
        onnxnorm.plan(proto, size="big")
    assert onnxnorm.verify(proto, proto, size=9, provider="cpu").same


def test_merging() -> None:
    parts = [onnxnorm.calibrate(tiny(), rand(count, 3, 8, 8, seed=count)) for count in (3, 5)]
    assert onnxnorm.merge(parts).images == 8
    with pytest.raises(onnxnorm.StatisticsError, match="no statistics to merge"):
        onnxnorm.merge([])


def test_statistics_of_another_model(statistics: onnxnorm.Statistics) -> None:
    for call in (onnxnorm.plan, onnxnorm.rewrite):
        with pytest.raises(onnxnorm.StatisticsError, match="measured on another model"):
            call(tiny(), statistics)


def test_outputs_that_are_scaled_are_recorded() -> None:
    body = "a = Conv(x, w, b) z = Relu(a)"
    proto = model(body, {"x": ("n", 3, 8, 8)}, {"w": rand(4, 3, 3, 3), "b": rand(4)})
    data = rand(9, 3, 8, 8)
    kept = onnxnorm.normalize(proto, data, provider="cpu")
    assert (kept.plan.pinned, kept.rewriting.outputs) == (4, {})
    assert differing(proto, kept.model) == []
    scaled = onnxnorm.normalize(proto, data, outputs="scale", provider="cpu")
    assert scaled.plan.free == 4
    assert scaled.rewriting.outputs["z"].shape == (1, 4, 1, 1)
    assert scaled.verification is not None
    assert scaled.verification.same
    assert onnxnorm.verify(proto, scaled.model, data, provider="cpu").same
    forgotten = scaled.model
    for entry in forgotten.metadata_props:
        entry.value = '{"z": 1}' if entry.key == "onnxnorm.outputs" else entry.value
    with pytest.raises(onnxnorm.ModelError, match=r"metadata 'onnxnorm.outputs'.* is damaged"):
        onnxnorm.verify(proto, forgotten, data)


def test_a_failed_verification_writes_nothing(
    statistics: onnxnorm.Statistics, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out.onnx"
    out.write_bytes(b"mine")
    with pytest.raises(
        onnxnorm.VerificationError, match=r"not the same function: output 'logits' .* nothing was written"
    ):
        onnxnorm.rewrite(DEMO, statistics, out, tolerance_output=0.0, provider="cpu")
    assert out.read_bytes() == b"mine"
    assert list(tmp_path.iterdir()) == [out]
    assert onnxnorm.rewrite(DEMO, statistics, out, tolerance_output=0.0, verify=False).verification is None
    assert out.read_bytes() != b"mine"


@pytest.mark.parametrize("place", ["missing/out.onnx", "."])
def test_where_nothing_can_be_written_is_told_before_the_work(place: str, tmp_path: Path) -> None:
    def untouched() -> Iterator[Array]:
        pytest.fail("the data was read")
        yield rand(1)

    with pytest.raises(onnxnorm.OptionError, match="cannot write"):
        onnxnorm.normalize(tiny(), untouched(), tmp_path / place)


def test_results_are_frozen_and_print_well(statistics: onnxnorm.Statistics) -> None:
    done = onnxnorm.rewrite(DEMO, statistics, provider="cpu")
    shown = {
        str(statistics): "statistics of 240 channels in 8 values over 6 images",
        str(done.plan): "240 filters in 8 layers: 240 free, 0 tied, 0 pinned",
        str(done.verification): "the same function",
        str(done): "constants changed, 0 copied",
    }
    for text, part in shown.items():
        assert part in text
        assert len(max(text.splitlines(), key=len)) < 200
    for thing in (statistics, done, done.plan, done.verification):
        assert len(repr(thing)) < 5000, type(thing)
        with pytest.raises(FrozenInstanceError):
            thing.model = "other"  # type: ignore[misc, union-attr]


def test_the_weights_of_an_original_in_memory_are_not_shared(statistics: onnxnorm.Statistics) -> None:
    proto = onnx.load(DEMO)
    first = onnxnorm.rewrite(proto, statistics, verify=False).model
    changed = numpy_helper.to_array(first.graph.initializer[0])
    assert not np.array_equal(changed, numpy_helper.to_array(proto.graph.initializer[0]))
    second = onnxnorm.rewrite(proto, statistics, verify=False).model
    assert first == second
