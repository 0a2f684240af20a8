"""Scales of graph outputs are taken out of a comparison, those of all rewrites since the model compared with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

import onnxnorm
from tests.helpers.graphs import model, rand


@pytest.fixture
def rewritten(tmp_path: Path) -> list[Path]:
    """A model, the same with its outputs scaled, and that one with its outputs scaled again."""
    constants = {"w": rand(4, 3, 3, 3), "v": rand(5, 4, 1, 1, seed=1)}
    onnx.save(model("a = Conv(x, w) r = Relu(a) z = Conv(r, v)", {"x": ("n", 3, 8, 8)}, constants), tmp_path / "0.onnx")
    paths = [tmp_path / f"{index}.onnx" for index in range(3)]
    for target, before, after in zip((1.0, 3.0), paths, paths[1:], strict=False):
        statistics = onnxnorm.calibrate(before, np.abs(rand(6, 3, 8, 8)))
        done = onnxnorm.rewrite(before, statistics, after, outputs="scale", target=target)
        assert "outputs" in done.rewriting.entries
    return paths


@pytest.mark.parametrize(("before", "after"), [(0, 1), (1, 2), (0, 2), (2, 2)])
def test_a_model_is_verified_against_itself_and_each_before_it(rewritten: list[Path], before: int, after: int) -> None:
    assert onnxnorm.verify(rewritten[before], rewritten[after]).same


def test_another_original_is_told_apart(rewritten: list[Path], tmp_path: Path) -> None:
    proto = onnx.load(rewritten[0])
    weight = proto.graph.initializer[0]
    weight.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(weight) * np.float32(1.01), weight.name))
    onnx.save(proto, tmp_path / "other.onnx")
    assert not onnxnorm.verify(tmp_path / "other.onnx", rewritten[2]).same
