"""Huge constants: the scales of the filters concerned are limited, the others not, and bounds stay at the largest."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import numpy_helper
from scipy.sparse import csr_array

from onnxnorm.calibration.calibrate import calibrate_model
from onnxnorm.calibration.options import CalibrationOptions
from onnxnorm.model.files import Model
from onnxnorm.rewriting import Rewriting, restore_model, rewrite_model
from onnxnorm.rewriting.limits import settle, tightest
from onnxnorm.rewriting.options import ScaleOptions
from onnxnorm.rewriting.read_back import read_back
from onnxnorm.runtime import Runtime
from onnxnorm.verification import verify_models
from tests.helpers.graphs import feeds, model, rand

CPU = Runtime("cpu", 1)
TOP = float(np.finfo(np.float32).max)


def rewritten(body: str, constants: dict[str, np.ndarray], power_of_two: bool = False) -> tuple[Model, Rewriting]:
    weights = {"w": rand(4, 3, 3, 3) * 1e-3, "b": np.abs(rand(4, seed=1)) * 1e-3, "v": rand(2, 4, 1, 1, seed=2)}
    proto = model(body, {"x": ("n", 3, 8, 8)}, {**weights, **constants})
    original = Model.open(proto)
    statistics = calibrate_model(original, rand(8, 3, 8, 8), CalibrationOptions(provider="cpu"))
    done = rewrite_model(original, statistics, ScaleOptions(power_of_two=power_of_two))
    verdict = verify_models(original, done.model, [feeds(proto, 2)], runtime=CPU)
    assert verdict.same, str(verdict)
    assert verdict.bit_identical or not power_of_two
    return original, done


def constant(done: Rewriting, name: str) -> np.ndarray:
    tensors = done.model.to_proto().graph.initializer
    return numpy_helper.to_array(next(tensor for tensor in tensors if tensor.name == name))


@pytest.mark.parametrize("power_of_two", [False, True])
def test_a_bound_that_would_pass_the_largest_number_stays_there(power_of_two: bool) -> None:
    body = "a = Conv(x, w, b) r = Clip(a, zero, high) z = Conv(r, v)"
    bounds = {"zero": np.array(0, np.float32), "high": np.array(3e38, np.float32)}
    original, done = rewritten(body, bounds, power_of_two)
    assert done.scales.limited == 0
    assert done.scales.span[0] > 2
    assert float(constant(done, "high")) == pytest.approx(TOP)
    restored = restore_model(done.model)
    high = next(t for t in restored.model.to_proto().graph.initializer if t.name == "high")
    assert float(numpy_helper.to_array(high)) == float(np.float32(3e38))
    read = read_back(original, done.model, {"x": (1, 3, 8, 8)})
    for layer in done.scales.layers:
        np.testing.assert_allclose(read.of_slot[layer.layer.slots], layer.scale)


@pytest.mark.parametrize("power_of_two", [False, True])
def test_only_the_filters_with_a_huge_constant_are_limited(power_of_two: bool) -> None:
    """A mask of -3e38 at one place of one channel: its scale can hardly grow, the others' do."""
    mask = np.zeros((1, 4, 6, 6), np.float32)
    mask[0, 1, 2, 3] = -3e38
    body = "a = Conv(x, w, b) m = Add(a, mask) r = Relu(m) z = Conv(r, v)"
    _, done = rewritten(body, {"mask": mask}, power_of_two)
    (layer,) = (layer for layer in done.scales.layers if layer.layer.output == "a")
    assert np.isfinite(constant(done, "mask")).all()
    assert layer.scale[1] <= TOP / 3e38 * (1 + 1e-6)
    assert (layer.scale[[0, 2, 3]] > 2).all()
    assert np.flatnonzero(layer.limited).tolist() == [1]


def test_nothing_is_limited_where_nothing_is_huge() -> None:
    _, done = rewritten("a = Conv(x, w, b) r = Relu(a) z = Conv(r, v)", {})
    assert done.scales.limited == 0
    for layer in done.scales.layers:
        free = layer.live & ~layer.pinned
        np.testing.assert_allclose(layer.after[free], 1, rtol=1e-12)


@given(st.data())
def test_settled_logarithms_satisfy_all_constraints_and_only_move_towards_zero(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 6))
    numbers = st.floats(-20, 20, allow_nan=False)
    logs = np.array(data.draw(st.lists(numbers, min_size=count, max_size=count)))
    group = st.integers(0, count - 1)
    rows = data.draw(st.lists(st.tuples(group, group, st.floats(0, 10)), min_size=1, max_size=12))
    known = tightest(*(np.array(column) for column in zip(*rows, strict=True)))
    settled = logs.copy()
    settle(csr_array(np.eye(count, dtype=np.int64)), settled, known, 1e-9)
    a, b = known[:2].astype(int)
    assert (settled[a] - settled[b] <= known[2] + 1e-9).all()
    assert (np.abs(settled) <= np.abs(logs)).all()
    assert (settled * logs >= 0).all()


def test_settling_moves_what_depends_on_several_unknowns() -> None:
    """x2 = 2 x0 + x1 must be at most 5, x0 - x1 at most 1; whole numbers stay whole."""
    basis = csr_array(np.array([[1, 0, 0], [0, 1, 0], [2, 1, 0], [0, 0, 1]]))
    unknowns = np.array([3, 1, 0])
    settle(basis, unknowns, np.array([[2, 0], [3, 1], [5, 1]]))
    assert unknowns.tolist() == [2, 1, 0]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ml_dtypes.bfloat16])
def test_bounds_of_every_type(dtype: type) -> None:
    from onnxnorm.rewriting.factors import Factor

    top = float(ml_dtypes.finfo(dtype).max)  # type: ignore[no-untyped-call]
    bound: np.ndarray = np.array(top * 0.75).astype(dtype)
    kept = Factor(np.array([8.0]), np.ones(1)).kept_finite(bound)
    assert float(kept.apply(bound.reshape(1), "high")[0]) == pytest.approx(top, rel=1e-15)
    small = Factor(np.array([1.25]), np.ones(1))
    assert small.kept_finite(bound) is small
