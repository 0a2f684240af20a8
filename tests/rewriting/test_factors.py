"""Factors of constants, and the errors of rounding."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from onnxnorm.errors import ModelError
from onnxnorm.rewriting import factors
from onnxnorm.rewriting.factors import Factor, Rounding


def factor(times: object, over: object = 1.0) -> Factor:
    return Factor(np.asarray(times, np.float64), np.asarray(over, np.float64))


@pytest.mark.parametrize(
    ("one", "changes"),
    [
        (factor([1, 1]), False),
        (factor([1, 2]), True),
        (factor([2, 3], [2, 3]), False),
        (factor([2, 3], [3, 2]), True),
        (factor([2, 2], 2), True),  # seen by shapes alone; it is 1 all the same
        (factor(1, [1, 1]), False),
        (factor(1, [1, 3]), True),
        (factor([1, 1], [[3]]), True),
    ],
)
def test_what_changes(one: Factor, changes: bool) -> None:
    assert one.changes is changes


def test_the_inverse_and_products() -> None:
    one, other = factor([2, 3], [[5], [7]]), factor([4, 1], [[1], [2]])
    values = np.array([[1, 2], [3, 4]], np.float64)
    np.testing.assert_array_equal(one.inverse.apply(one.apply(values, "c"), "c"), values)
    assert one * other == factor([8, 3], [[5], [14]])
    both, in_turn = (one * other).apply(values, "c"), other.apply(one.apply(values, "c"), "c")
    np.testing.assert_allclose(both.astype(np.float64), in_turn.astype(np.float64))


def test_equality_is_that_of_all_elements() -> None:
    assert factor([2, 2], 3) == factor(2, [[3], [3]])
    assert factor([2, 2], 3) != factor([2, 1], 3)
    assert factor([2, 2], 3) != factor([2, 2], 1)
    assert factor(2) != 2
    assert factor([[2, 2], [2, 2]], [[3, 3]]).key() == factor([[2]], [[3]]).key()
    assert len({factor(2).key(), factor(1, 2).key(), factor([2, 3]).key(), factor([[2], [3]]).key()}) == 4
    with pytest.raises(TypeError):
        hash(factor(2))


def test_rounding_is_noted_and_the_largest_is_kept() -> None:
    rounding = Rounding()
    assert rounding.worst is None
    values = np.array([1, 3, 0], np.float16)
    factor(1 / 3).apply(values, "a", rounding)
    expected = abs(float(np.float16(1 / 3)) * 3 - 1)
    assert rounding.of == {"a": pytest.approx(expected, rel=1e-12)}
    factor(1).apply(values, "a", rounding)
    factor(1 / 7).apply(values, "b", rounding)
    factor(2).apply(values, "c", rounding)
    assert rounding.of["a"] == pytest.approx(expected, rel=1e-12)
    assert rounding.of["c"] == 0
    worst = max(rounding.of, key=lambda name: rounding.of[name])
    assert rounding.worst == (worst, rounding.of[worst])
    factor(1).apply(np.array([], np.float32), "d", rounding)
    assert rounding.of["d"] == 0


@pytest.mark.parametrize("part", [1, 4, 7, 24, 1 << 15])
@pytest.mark.parametrize(
    ("shape", "times", "over"),
    [
        ((), (), ()),
        ((5,), (5,), (1,)),
        ((4, 6), (4, 1), (1, 6)),
        ((2, 3, 4), (4,), (3, 1)),
        ((2, 3, 4), (2, 1, 1), (2, 3, 4)),
        ((2, 3, 0), (2, 1, 1), ()),
        ((1, 50000), (1, 1), (1, 50000)),
    ],
)
def test_a_constant_is_multiplied_in_parts_as_it_would_be_at_once(
    monkeypatch: pytest.MonkeyPatch, part: int, shape: tuple[int, ...], times: tuple[int, ...], over: tuple[int, ...]
) -> None:
    monkeypatch.setattr(factors, "_PART", part)
    random, rounding = np.random.default_rng(0), Rounding()
    values = random.standard_normal(shape).astype(np.float32)
    one = factor(random.uniform(0.1, 10, times), random.uniform(0.1, 10, over))
    products = values * (one.times / one.over)
    got = np.asarray(one.apply(values, "c", rounding))
    assert got.shape == shape
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, products.astype(np.float32))
    assert rounding.of["c"] == np.abs((got.astype(np.float64) - products) / products).max(initial=0)


def test_numbers_that_are_infinite_or_none_stay_and_are_no_error() -> None:
    rounding = Rounding()
    got = factor([2, 3, 5, 0.3]).apply(np.array([np.inf, np.nan, -np.inf, 1], np.float32), "c", rounding)
    np.testing.assert_array_equal(got, np.array([np.inf, np.nan, -np.inf, 0.3], np.float32))
    assert 0 < rounding.of["c"] < 1e-7


@pytest.mark.parametrize("dtype", [np.float16, np.float32, ml_dtypes.bfloat16])
def test_leaving_the_range_is_an_error(dtype: Any) -> None:
    top = np.asarray([float(ml_dtypes.finfo(dtype).max)]).astype(dtype)  # type: ignore[no-untyped-call]
    assert factor(1).apply(top, "c").astype(np.float64) == top.astype(np.float64)
    with pytest.raises(ModelError, match=r"^constant 'c' would overflow (float16|float32|bfloat16); choose a smaller"):
        factor([2, 1]).apply(np.concatenate([top, np.zeros_like(top)]), "c")
    assert np.isfinite(factor(1, 1e300).apply(top, "c").astype(np.float64)).all()


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ml_dtypes.bfloat16])
@pytest.mark.parametrize("times", [[2.0, 1.0, 3.0], [0.5, 8.0, 1.0]])
def test_a_bound_stays_at_the_largest_number(dtype: Any, times: list[float]) -> None:
    top = float(ml_dtypes.finfo(dtype).max)  # type: ignore[no-untyped-call]
    values = np.asarray([top, -top / 2, 1.0]).astype(dtype)
    kept = factor(np.multiply(times, 3), 3).kept_finite(values).apply(values, "c").astype(np.float64)
    limit = np.nextafter(top / np.abs(values.astype(np.float64)).max(), 0)
    np.testing.assert_allclose(kept, values.astype(np.float64) * np.minimum(times, limit), rtol=1e-2)
    assert np.isfinite(kept).all()


def test_a_factor_that_keeps_within_the_range_is_the_same() -> None:
    for values in (
        np.array([1, -2], np.float32),
        np.array([0, 0], np.float32),
        np.array([np.inf, np.nan], np.float32),
        np.array([], np.float32),
    ):
        one = factor([1e30, 2], [3, 7])
        assert one.kept_finite(values) is one
    one = factor(2, 4)
    assert one.kept_finite(np.array([3e38], np.float32)) is one  # by a half, it shrinks
    assert factor(4, 2).kept_finite(np.array([-3e38, np.inf], np.float32)) != factor(4, 2)


def test_rows() -> None:
    one = factor([[1], [2], [3]], [[5, 7]])
    assert one.rows(1, 3) == factor([[2], [3]], [[5, 7]])
    assert one.rows(0, 1) == factor([[1]], [[5, 7]])
    assert factor(2, 3).rows(1, 2) == factor(2, 3)
    assert factor([[1], [2]], [[3], [4]]).rows(1, 2) == factor([[2]], [[4]])
    assert one.rows(1, 3).over.shape == (1, 2)
