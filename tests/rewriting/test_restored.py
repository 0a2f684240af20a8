"""What a restored model says of itself, and records that do not fit the model."""

from __future__ import annotations

from typing import Any

import numpy as np
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
        assert str(restored).endswith(f"rewrites undone: the original bit for bit (digest {model.digest()[:12]})")
    elif not restored.same:
        assert 0 < restored.bound < 1e-6
        assert "the original to rounding; every number is within 1.2e-07 of what it was" in str(restored)


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
