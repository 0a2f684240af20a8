"""The scales read back from a rewritten model are those that it was rewritten with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from onnxnorm.errors import ModelError, OnnxnormError
from onnxnorm.model.files import Model
from onnxnorm.model.graph import input_specs
from onnxnorm.rewriting import rewrite_model, sidecar_path, write_sidecar
from onnxnorm.rewriting.options import ScaleOptions
from onnxnorm.rewriting.read_back import read_back
from onnxnorm.rewriting.record import write_entries
from onnxnorm.scaling.walk import Outputs
from tests.corpus import CASES, OPEN, Case
from tests.helpers.commands import DEMO
from tests.helpers.graphs import model, rand


def shapes(model: Model) -> dict[str, tuple[int, ...]]:
    return {
        spec.name: tuple(
            OPEN.get(str(size), 1) if size is None or isinstance(size, str) else size for size in spec.shape
        )
        for spec in input_specs(model)
    }


@pytest.mark.parametrize("case", CASES.values(), ids=lambda case: case.name)
def test_the_corpus(case: Case) -> None:
    proto = case.build()
    variants: tuple[tuple[bool, Outputs], ...] = ((False, "keep"), (True, "scale"))
    for power_of_two, outputs in variants:
        original = Model.open(proto)
        try:
            options = ScaleOptions(
                statistic="weights", power_of_two=power_of_two, outputs=outputs, filters=case.filters
            )
            done = rewrite_model(original, None, options)
        except OnnxnormError:
            pytest.skip("nothing to balance")
        found = read_back(original, Model.open(done.model.to_proto()), shapes(original))
        for layer in done.scales.layers:
            assert np.allclose(found.of_slot[layer.layer.slots], layer.scale, rtol=1e-12), layer.layer.node
        assert set(found.changed) == set(done.changed)
        assert set(found.clones) == {clone.clone for clone in done.clones}
        assert found.bounds == done.bounds


def test_what_is_not_a_rewrite_of_the_model_is_refused() -> None:
    original = Model.open(DEMO)
    with pytest.raises(ModelError, match="says nothing about a rewrite"):
        read_back(original, original, shapes(original))
    other = Model.open(model("z = Conv(x, w)", {"x": (1, 3, 8, 8)}, {"w": rand(4, 3, 3, 3)}))
    done = rewrite_model(original, None, ScaleOptions(statistic="weights"))
    with pytest.raises(ModelError, match="made from another one"):
        read_back(other, done.model, shapes(other))


def test_a_damaged_record_is_refused() -> None:
    original = Model.open(DEMO)
    done = rewrite_model(original, None, ScaleOptions(statistic="weights"))
    for entry in ("nonsense", "!"):
        broken = Model.open(done.model.to_proto())
        write_entries(broken.proto, {**done.entries, "scales": entry})
        with pytest.raises(ModelError, match="is damaged"):
            read_back(original, broken, shapes(original))


def test_scales_in_a_file_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnxnorm.rewriting.record.RECORDED", 16)
    original = Model.open(DEMO)
    done = rewrite_model(original, None, ScaleOptions(statistic="weights"))
    assert done.sidecar is not None
    target = tmp_path / "rewritten.onnx"
    onnx.save(done.model.to_proto(), target)
    with pytest.raises(ModelError, match=r"rewritten\.onnx\.scales\.safetensors is missing"):
        read_back(original, Model.open(target), shapes(original))
    write_sidecar(target, done.sidecar)
    found = read_back(original, Model.open(target), shapes(original))
    for layer in done.scales.layers:
        assert np.allclose(found.of_slot[layer.layer.slots], layer.scale, rtol=1e-12)
    sidecar_path(target).write_bytes(b"another")
    with pytest.raises(ModelError, match="holds the scales of another rewrite"):
        read_back(original, Model.open(target), shapes(original))
