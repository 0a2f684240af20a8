"""Records that were tampered with are refused, at once and in little memory."""

from __future__ import annotations

import base64
import json
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save

import onnxnorm
from onnxnorm.errors import ModelError
from onnxnorm.model.files import Model
from onnxnorm.rewriting import Factor, restore_model
from onnxnorm.rewriting.record import UNPACKED, Record, check_clones, read_entries, write_entries

DEMO = Path(__file__).parents[2] / "models" / "demo_vgg.onnx"


def text_of(content: bytes) -> str:
    return base64.b64encode(zlib.compress(content, 9)).decode()


@pytest.fixture(scope="module")
def rewritten() -> Model:
    return Model.open(onnxnorm.rewrite(DEMO, statistic="weights").model)


def with_entries(model: Model, **changes: Any) -> Model:
    proto = model.to_proto()
    write_entries(proto, read_entries(model) | changes)
    return Model.open(proto)


@pytest.mark.parametrize("clones", [{"a": "a"}, {"w1": "w2", "w2": "w1"}, {"c": "a", "a": "b", "b": "a"}])
def test_clones_that_go_round(clones: dict[str, str], rewritten: Model) -> None:
    one = Factor(np.ones(1), np.ones(1))
    content = Record({"w": one}, clones).to_bytes()
    with pytest.raises(ModelError, match="copy of itself"):
        Record.from_bytes(content)
    with pytest.raises(ModelError, match="copy of itself"):
        restore_model(with_entries(rewritten, scales=text_of(content)))


def test_clones_that_go_round_from_one_record_to_the_next(rewritten: Model) -> None:
    first, second = (text_of(Record({}, {a: b}).to_bytes()) for a, b in (("a", "b"), ("b", "a")))
    previous = json.dumps({"scales": first})
    with pytest.raises(ModelError, match="copy of itself"):
        restore_model(with_entries(rewritten, scales=second, previous=previous))


def test_long_chains_of_clones_are_checked_in_linear_time() -> None:
    start = time.monotonic()
    check_clones({f"c{index}": f"c{index + 1}" for index in range(200_000)})
    assert time.monotonic() - start < 30  # a hang, not a speed


def test_a_record_that_unpacks_to_gigabytes() -> None:
    packing = zlib.compressobj(9)
    packed = b"".join(packing.compress(bytes(1 << 24)) for _ in range(UNPACKED // (1 << 24) + 1)) + packing.flush()
    with pytest.raises(ModelError, match="more than 67,108,864 bytes"):
        Record.from_text(base64.b64encode(packed).decode())


def test_a_record_that_is_cut_short(rewritten: Model) -> None:
    packed = base64.b64decode(read_entries(rewritten)["scales"])
    with pytest.raises(ModelError, match="cut short"):
        Record.from_text(base64.b64encode(packed[:-8]).decode())


@pytest.mark.parametrize("header", ["[" * 100_000, '{"constants": [], "clones": {}}', '{"constants": {"a": 3}}', "3"])
def test_a_record_with_another_header(header: str) -> None:
    with pytest.raises(ModelError, match="the record of the scales is damaged"):
        Record.from_bytes(save({"0": np.ones(1)}, {"onnxnorm": header}))


@pytest.mark.parametrize("previous", ["3", "[1]", '{"scales": 3}', "[" * 100_000, '{"previous": {"a": 1}}'])
def test_a_history_of_another_form(previous: str, rewritten: Model) -> None:
    with pytest.raises(ModelError, match=r"'onnxnorm.previous' is damaged"):
        restore_model(with_entries(rewritten, previous=previous))
