"""The record of a rewrite as entries of metadata: scales, those of outputs, and the file of its own."""

from __future__ import annotations

import base64
import hashlib
import json
import zlib

import numpy as np
import pytest

from onnxnorm.errors import ModelError
from onnxnorm.model.files import Model
from onnxnorm.rewriting import record as module
from onnxnorm.rewriting.factors import Factor
from onnxnorm.rewriting.record import Record, read_record, record_entries, write_entries
from onnxnorm.rewriting.recorded_outputs import output_scales
from tests.helpers.model_files import network

OTHER = Model.open(network())
SMALL = Record({"w": Factor(np.array([[1.0], [2.0]]), np.array(3.0))}, {"w_onnxnorm1": "w"})


def test_entries_hold_the_record_and_nothing_that_is_empty() -> None:
    entries, sidecar = record_entries(SMALL, {}, {})
    assert entries.keys() == {"scales"}
    assert sidecar is None
    assert read_record(entries, None) == SMALL
    entries, _ = record_entries(SMALL, {}, {"version": "1"})
    assert json.loads(entries["previous"]) == {"version": "1"}


@pytest.mark.parametrize("limit", ["RECORDED", "UNPACKED"])
def test_a_long_record_has_a_file_of_its_own(limit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    content = SMALL.to_bytes()
    length = len(content) if limit == "UNPACKED" else len(base64.b64encode(zlib.compress(content, 9)))
    monkeypatch.setattr(module, limit, length)
    entries, sidecar = record_entries(SMALL, {}, {})
    assert entries.keys() == {"scales"}
    assert sidecar is None
    monkeypatch.setattr(module, limit, length - 1)
    entries, sidecar = record_entries(SMALL, {}, {})
    assert entries == {"scales_digest": hashlib.sha256(content).hexdigest()}
    assert sidecar == content


def test_a_rewrite_without_a_record_is_named() -> None:
    with pytest.raises(ModelError, match=r"rewritten by onnxnorm 0\.0\.1, which recorded no scales"):
        read_record({"version": "0.0.1"}, None)
    with pytest.raises(ModelError, match=r"rewritten by onnxnorm \?, which"):
        read_record({}, None)


def with_outputs(text: str | None) -> Model:
    proto = network()
    write_entries(proto, {} if text is None else {"outputs": text})
    return Model.open(proto)


def test_scales_of_outputs_come_back_in_their_shape() -> None:
    given = {"y": np.array([0.5, 1.0, 4.0]).reshape(1, 3, 1), "z": np.array(0.25)}
    entries, _ = record_entries(SMALL, given, {})
    found = output_scales(with_outputs(entries["outputs"]), OTHER)
    assert found.keys() == given.keys()
    for name, array in given.items():
        assert found[name].shape == array.shape
        np.testing.assert_array_equal(found[name], array)
    assert output_scales(with_outputs(None), OTHER) == {}


@pytest.mark.parametrize("scale", ["0", "-1", "-0.5", "Infinity", "NaN"])
def test_scales_of_outputs_that_are_not_positive(scale: str) -> None:
    text = f'{{"y": {{"shape": [2], "scales": [1.0, {scale}]}}}}'
    with pytest.raises(ModelError, match=r"'onnxnorm\.outputs' of the model holds scales that are not positive"):
        output_scales(with_outputs(text), OTHER)


@pytest.mark.parametrize(
    "text", ["", "[]", '{"y": 1}', '{"y": {"shape": [3], "scales": [1, 2]}}', '{"y": {"shape": []}}']
)
def test_damaged_scales_of_outputs(text: str) -> None:
    with pytest.raises(ModelError, match=r"'onnxnorm\.outputs' of the model is damaged .*; rewrite it again"):
        output_scales(with_outputs(text), OTHER)
