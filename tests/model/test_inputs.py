"""Inputs whose samples are on another axis than the first, and inputs that all samples share."""

from __future__ import annotations

import json
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from onnxnorm.errors import OptionError
from onnxnorm.model.files import Model
from onnxnorm.model.graph import input_specs
from onnxnorm.model.input_records import described, settings_from_record, settings_record
from onnxnorm.model.inputs import InputSettings, InputSpec, fixed_batch, settled
from onnxnorm.model.shapes import read_graph, sample_shapes
from tests.helpers.graphs import Shape, model

F32 = np.dtype(np.float32)


def axes(first: Shape, second: Shape) -> int | None:
    proto = model("z = Relu(x)", {"x": first, "h": second})
    return input_specs(Model.open(proto))[1].batch


@pytest.mark.parametrize(
    ("first", "second", "axis"),
    [
        (("N", 3, 8, 8), ("N", 6), 0),
        (("N", 3, 8, 8), (2, "N", 6), 1),
        (("N", 3, "H", "W"), (2, "H", "N"), 2),
        (("N", 3, "H", "W"), (2, "H", 6), 0),  # the only open axis is another one's
        (("N", 3, 8, 8), (2, None, 6), 1),
        (("N", 3, 8, 8), (1, None, 6), 0),  # perhaps the length of a text
        (("N", 3, 8, 8), (2, None, None), 0),
        (("N", 3, 8, 8), (2, "N", "N"), 0),
        ((None, 3, 8, 8), (2, "M", 6), 1),
        ((4, 3, 8, 8), (2, 4, 6), 1),
        ((4, 3, 8, 8), (4, 4), 0),
        ((4, 3, 8, 8), (2, 5), 0),
        ((1, 3, 8, 8), (2, 1, 6), 1),
        (("N", 3, 8, 8), (), None),
    ],
)
def test_the_axis_of_samples_is_found_where_it_is_certain(first: Shape, second: Shape, axis: int | None) -> None:
    assert axes(first, second) == axis


def test_values_are_taken_in_every_form_that_is_clear() -> None:
    state = InputSpec("h", (2, None, 6), F32, 1)
    expected = np.arange(12, dtype=np.float32).reshape(2, 1, 6)
    for value in (expected, expected[:, 0], expected[:, 0].tolist()):
        np.testing.assert_array_equal(state.given(value).repeated(5), np.repeat(expected, 5, axis=1))
    np.testing.assert_array_equal(state.given(3).repeated(2), np.full((2, 2, 6), 3, np.float32))
    step = InputSpec("t", (), np.dtype(np.int64))
    assert step.given([500]).repeated(4).tolist() == 500
    assert step.given(True).repeated(4).dtype == np.int64
    assert InputSpec("m", (1, 3), F32).given(2).repeated(4).shape == (1, 3)
    assert InputSpec("m", (1, 3), F32).given([1, 2, 3]).repeated(4).tolist() == [[1, 2, 3]]
    whole = np.zeros((1, 7), np.float32)
    assert InputSpec("m", (None, None), F32).given(whole[0]).repeated(3).shape == (3, 7)


@pytest.mark.parametrize(
    ("shape", "dtype", "value", "message"),
    [
        ((2, None, 6), "float32", np.zeros(5), r"give a number or an array of shape \(2, 6\)"),
        ((None, None), "float32", 1, r"cannot take a value of shape \(\); give an array of shape \(any\)"),
        ((), "int64", 0.5, "not of type int64"),
        ((), "uint8", 300, "cannot take 300"),
        ((), "float32", "x", "cannot take 'x'"),
        ((), "float32", None, "give a number"),
        ((), "float32", [], "empty"),
        ((None, 3), "float32", np.zeros((1, 1 << 23)), "more than 16,777,216 bytes"),
    ],
)
def test_values_that_do_not_fit_are_refused(shape: Any, dtype: str, value: Any, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        InputSpec("h", shape, np.dtype(dtype), 1 if len(shape) == 3 else 0).given(value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (InputSettings({"y": 0}), "--batch-axis y: the model has no such input; it has x"),
        (InputSettings({}, {"y": 0}), "--input y: the model has no such input; it has x"),
        (InputSettings({"x": 2}), "--batch-axis x=2: input x .* has 2 axes, counted from 0"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings: InputSettings, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        settled([InputSpec("x", (None, 3), F32)], settings)


def test_the_axes_that_grow_with_the_batch_follow() -> None:
    proto = model("a = Add(x, h) z = Relu(a)", {"x": (2, "N", 4), "h": (2, 1, 4)})
    opened = Model.open(proto).fed(InputSettings({"x": 1}, {"h": 0}))
    specs = input_specs(opened)
    assert fixed_batch(specs) is None
    assert sample_shapes(specs) == {"x": (2, 1, 4), "h": (2, 1, 4)}
    assert read_graph(opened, sample_shapes(specs)).batched["z"] == (1,)
    assert opened.digest() == Model.open(proto).digest()


@pytest.mark.parametrize(
    ("dtype", "value"),
    [
        ("float32", 0.5),
        ("float16", 0.1),
        ("bool", True),
        ("int64", 2**60 + 1),
        ("uint8", [1, 2, 3]),
        ("float32", [1, float("-inf"), float("nan")]),
        ("float64", float("inf")),
        ("bfloat16", [0.5, 1, 2]),
    ],
)
def test_records_give_back_the_same_bytes(dtype: str, value: Any) -> None:
    kind = np.dtype(getattr(ml_dtypes, dtype, dtype))
    spec = InputSpec("h", (None, 3) if isinstance(value, list) else (), kind)
    spec = spec.given(np.asarray(value).astype(kind))
    settings = InputSettings({"h": 0}, {"h": spec.value})
    record = json.loads(json.dumps(settings_record([spec], settings), allow_nan=False))
    again = settings_from_record(record)
    assert again.batch_axes == {"h": 0}
    assert again.values["h"].tobytes() == np.asarray(spec.value).tobytes()
    assert again.values["h"].dtype == kind
    assert "for all samples, samples of h on axis 0" in described(record)


@pytest.mark.parametrize(
    "record",
    [
        [],
        {},
        {"values": {}, "batch_axes": {"h": True}},
        {"values": {}, "batch_axes": {"h": -1}},
        {"values": {"h": {"dtype": "float32", "shape": [1 << 40], "number": 0}}, "batch_axes": {}},
        {"values": {"h": {"dtype": "float32", "shape": [0.5], "number": 0}}, "batch_axes": {}},
        {"values": {"h": {"dtype": "object", "shape": [1], "number": 0}}, "batch_axes": {}},
        {"values": {"h": {"dtype": "float32", "shape": [3], "base64": "AAAA"}}, "batch_axes": {}},
        {"values": {"h": {"dtype": "float32", "shape": [3]}}, "batch_axes": {}},
    ],
)
def test_damaged_records_are_refused(record: Any) -> None:
    with pytest.raises((ValueError, TypeError, LookupError)):
        settings_from_record(record)
