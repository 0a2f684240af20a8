"""What a restored model says of itself, and records that do not fit the model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import onnxnorm
from onnxnorm.errors import ModelError
from onnxnorm.model.files import Model
from onnxnorm.rewriting import rewrite_model
from onnxnorm.rewriting.factors import Factor
from onnxnorm.rewriting.options import ScaleOptions
from onnxnorm.rewriting.record import Record, record_entries, write_entries
from onnxnorm.rewriting.restore import restore_model
from tests.helpers.commands import succeeded
from tests.helpers.graphs import rand
from tests.helpers.model_files import network


@pytest.mark.parametrize("power_of_two", [True, False])
def test_what_it_says(power_of_two: bool) -> None:
    model = Model.open(network())
    statistics = onnxnorm.calibrate(network(), rand(4, 3, 8, 8), provider="cpu")
    rewriting = rewrite_model(model, statistics, ScaleOptions(power_of_two=power_of_two))
    restored = restore_model(rewriting.model)
    assert restored.exact is power_of_two
    if power_of_two:
        assert restored.bound == 0
        assert str(restored).endswith(f", 1 rewrite undone: the original bit for bit (digest {model.digest()[:12]})")
    elif not restored.same:
        assert 0 < restored.bound < 1e-6
        assert "the original to rounding; every number is within 1.2e-07 of what it was" in str(restored)


def rewritten_with(value: float, factor: float) -> onnx.ModelProto:
    """A network whose record says that `b1` was multiplied by a factor, by which its first number became `value`."""
    proto = network()
    tensor = next(tensor for tensor in proto.graph.initializer if tensor.name == "b1")
    values = numpy_helper.to_array(tensor).copy()
    values[0] = value
    tensor.CopyFrom(numpy_helper.from_array(values, "b1"))
    write_entries(proto, record_entries(Record({"b1": Factor(np.array(factor), np.ones(()))}, {}), {}, {})[0])
    return proto


@pytest.mark.parametrize(
    ("value", "factor", "lossy"),
    [
        (1.0, 1e-9, False),
        (1e-40, 0.3, True),
        (1e-40, 3.0, False),  # it was no larger before, so it lost nothing
        (0.0, 0.3, False),  # no normal number becomes 0 that way
        (0.0, 1e-9, True),
    ],
)
def test_numbers_that_became_too_small_are_told(value: float, factor: float, lossy: bool, tmp_path: Path) -> None:
    assert restore_model(Model.open(rewritten_with(value, factor))).lossy == (("b1",) if lossy else ())
    onnx.save(rewritten_with(value, factor), tmp_path / "rewritten.onnx")
    ran = succeeded("restore", tmp_path / "rewritten.onnx", "-o", tmp_path / "original.onnx")
    assert ("numbers in b1 may differ by more" in ran.err) is lossy


def test_bulky_numbers_that_became_too_small_are_told(tmp_path: Path) -> None:
    onnx.save(
        rewritten_with(1e-40, 0.3), tmp_path / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=0
    )
    assert restore_model(Model.open(tmp_path / "m.onnx")).lossy == ("b1",)


@pytest.mark.parametrize(
    ("name", "shape", "fits"),
    [
        ("b1", (40,), True),
        ("b1", (1,), True),
        ("b1", (), True),
        ("b1", (1, 40), False),
        ("b1", (39,), False),
        ("w1", (40, 1, 1, 1), True),
        ("w1", (39, 1, 1, 1), False),
        ("number", (), True),
        ("number", (1,), True),
        ("number", (1, 1), True),
        ("number", (2,), False),
        ("pair", (2,), True),
        ("pair", (1, 2), False),
        ("one", (4,), False),
        ("one", (1, 1), True),
    ],
)
def test_factors_that_do_not_fit_are_refused(name: str, shape: tuple[int, ...], fits: bool) -> None:
    proto = network()
    for other, values in (("number", 3.0), ("one", [3.0]), ("pair", [3.0, 4.0])):
        proto.graph.initializer.append(numpy_helper.from_array(np.array(values, np.float32), other))
    record = Record({name: Factor(np.full(shape, 2.0), np.ones(()))}, {})
    entries: dict[str, Any] = record_entries(record, {}, {})[0]
    write_entries(proto, entries)
    before = {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    if not fits:
        with pytest.raises(ModelError, match=f"constant '{name}' of the record is not in the model, or has another"):
            restore_model(Model.open(proto))
        return
    restored = restore_model(Model.open(proto)).model.to_proto()
    for tensor in restored.graph.initializer:
        factor = 2 if tensor.name == name else 1
        np.testing.assert_array_equal(numpy_helper.to_array(tensor), before[tensor.name] / factor)
