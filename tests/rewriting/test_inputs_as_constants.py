"""Initializers that are graph inputs too: pinned, unless it is said that nobody feeds them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import onnxnorm
from onnxnorm.scaling.levels import Level
from tests.helpers.commands import succeeded
from tests.helpers.graphs import model, rand

X = rand(6, 3, 8, 8)


def network() -> onnx.ModelProto:
    body = "a = Conv(x, w) r = Relu(a) s = Sigmoid(r) m = Mul(r, s) b = Conv(m, v) q = Relu(b) z = Conv(q, u)"
    weights = {"w": rand(5, 3, 3, 3), "v": rand(6, 5, 1, 1), "u": rand(2, 6, 1, 1)}
    proto = model(body, {"x": ("n", 3, 8, 8)}, weights)
    for name, values in weights.items():
        proto.graph.input.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, values.shape))
    return proto


def test_they_are_pinned_and_the_way_out_is_named() -> None:
    planned = onnxnorm.plan(network())
    assert planned.free == 0
    assert any("--inputs-as-constants: nobody does" in barrier.reason for barrier in planned.barriers)


@pytest.mark.parametrize(("allow", "free"), [("constants", 6), ("nodes", 13)])
def test_they_are_scaled_where_nobody_feeds_them(allow: Level, free: int) -> None:
    options: dict[str, Any] = {"inputs_as_constants": True, "allow": allow}
    assert onnxnorm.plan(network(), **options).free == free
    done = onnxnorm.normalize(network(), X, provider="cpu", power_of_two=True, **options)
    assert done.verification is not None
    assert done.verification.same
    restored = onnxnorm.restore(done.model)
    assert restored.same
    assert restored.model.to_proto().SerializeToString() == network().SerializeToString()


def test_from_the_command_line_and_read_back_by_the_report(tmp_path: Path) -> None:
    path, out = tmp_path / "m.onnx", tmp_path / "out.onnx"
    onnx.save(network(), path)
    np.save(tmp_path / "x.npy", X)
    succeeded("calibrate", path, tmp_path / "x.npy", "-o", tmp_path / "s.safetensors")
    words = ("rewrite", path, "--stats", tmp_path / "s.safetensors", "-o", out)
    assert "--inputs-as-constants" in succeeded("plan", path).out
    ran = succeeded(*words, "--inputs-as-constants")
    assert "13 filters in 3 layers: 6 free" in ran.out
    ran = succeeded("report", path, out, "--stats", tmp_path / "s.safetensors", "--json", "-o", tmp_path / "r.html")
    assert '"same": true' in ran.out
