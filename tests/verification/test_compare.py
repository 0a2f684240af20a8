"""The comparer itself: what it must reject, and what it must let pass."""

from __future__ import annotations

from functools import reduce
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxnorm.model.tensors import unit_in_last_place
from onnxnorm.verification.compare import Comparison, compare, default_tolerance
from tests.helpers.graphs import Array, rand

F32 = default_tolerance(np.dtype(np.float32))
SHAPES = [(4, 7), (2, 7, 5), (2, 7, 5, 6), (2, 5, 6, 7), (2, 3, 4, 5, 7)]


def same(a: Array, b: Array, noise: float = 0.0) -> bool:
    return compare(a, b).within(default_tolerance(a.dtype), noise)


def channel(array: Array, index: int) -> Any:
    """Where a channel of seven lies."""
    axis = array.shape.index(7)
    return (*[slice(None)] * axis, index)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", [1.0, 1e-2, 1e-3])
def test_one_channel_that_is_one_per_cent_off_is_rejected(shape: tuple[int, ...], size: float) -> None:
    """On whichever axis channels lie, and also where it is a thousand times smaller than the others."""
    a = rand(*shape)
    for index in range(7):
        b = a.copy()
        b[channel(a, index)] *= np.float32(size)
        c = b.copy()
        c[channel(a, index)] *= np.float32(1.01)
        assert same(b, b)
        assert not same(b, c), index


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rounding_is_let_pass(dtype: type) -> None:
    a = rand(2, 7, 9, 9, dtype=dtype) * np.logspace(-6, 3, 7).reshape(1, 7, 1, 1).astype(dtype)
    b = a * (1 + np.finfo(dtype).eps * rand(*a.shape, seed=1, dtype=dtype))
    found = compare(a, b)
    assert 0 < found.max_relative_error < 8 * np.finfo(dtype).eps
    assert same(a, b)
    assert not found.bit_identical


def test_a_channel_that_is_but_rounding_noise_is_let_pass() -> None:
    """What is below a few units in the last place of the largest number says nothing."""
    a = rand(2, 7, 9, 9)
    a[:, 3] *= 1e-7
    b = a.copy()
    b[:, 3] *= -5
    assert same(a, b)
    a[:, 3] *= 1e3
    assert not same(a, b)


def test_noise_of_the_runtime_raises_the_floor_for_small_channels_only() -> None:
    a = rand(2, 7, 9, 9)
    a[:, 3] *= 1e-5
    b = a.copy()
    b[:, 3] *= 1.5
    assert not same(a, b)
    assert same(a, b, noise=1e-5)
    b[:, 2] *= 1.01
    assert not same(a, b, noise=1e-5)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_matches_itself_only(wrong: float) -> None:
    a, b = rand(2, 3, 4), rand(2, 3, 4)
    b[1, 2, 3] = wrong
    assert not same(a, b)
    assert not same(b, a)
    assert compare(a, b).max_relative_error == np.inf
    assert same(b, b.copy())
    assert compare(b, b.copy()).bit_identical
    c = b.copy()
    c[1, 2, 3] = -np.inf if wrong == np.inf else np.inf
    assert not same(b, c)


def test_outputs_without_a_finite_number() -> None:
    a = np.full((2, 3), np.nan, np.float32)
    assert same(a, a.copy())
    assert not same(a, np.zeros_like(a))


def test_zeros() -> None:
    zeros = np.zeros((2, 3), np.float32)
    assert same(zeros, zeros.copy())
    assert same(zeros, -zeros)
    assert not compare(zeros, -zeros).bit_identical
    assert not same(zeros, zeros + np.float32(1e-30))
    assert compare(zeros, zeros + np.float32(1e-30)).max_relative_error == np.inf


@pytest.mark.parametrize("other", [(2, 4), (3, 3), (2, 3, 1), (6,)])
def test_another_shape_is_another_output(other: tuple[int, ...]) -> None:
    found = compare(np.ones((2, 3), np.float32), np.ones(other, np.float32))
    assert not found.within(1e9)
    assert not found.bit_identical


@pytest.mark.parametrize("dtype", [np.int64, np.uint8, np.bool_])
def test_whole_numbers_must_be_equal(dtype: type) -> None:
    a: Array = (np.arange(12).reshape(3, 4) % 2).astype(dtype)
    b = a.copy()
    assert same(a, b)
    b[2, 3] = not b[2, 3]
    assert not same(a, b)


def test_strings_must_be_equal() -> None:
    a = np.array([["a", "b"]], dtype=object)
    assert same(a, a.copy())
    assert not same(a, np.array([["a", "c"]], object))


@pytest.mark.parametrize("shape", [(), (5,), (0, 3), (2, 0, 4)])
def test_few_axes_and_no_elements(shape: tuple[int, ...]) -> None:
    a = np.ones(shape, np.float32)
    assert same(a, a.copy())
    if a.size:
        assert not same(a, a * np.float32(1.01))


@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [
        (np.float32, 1e-4),
        (np.float64, 1.8626e-13),
        (np.float16, 16 * 2.0**-10),
        (ml_dtypes.bfloat16, 16 * 2.0**-7),
        (np.int64, 0.0),
        (np.bool_, 0.0),
    ],
)
def test_the_tolerance_follows_from_the_dtype(dtype: type, tolerance: float) -> None:
    assert default_tolerance(np.dtype(dtype)) == pytest.approx(tolerance, rel=1e-3)


def test_noise_raises_the_tolerance() -> None:
    assert default_tolerance(np.dtype(np.float32), 1e-2) == pytest.approx(3e-2)
    assert default_tolerance(np.dtype(np.float16), 1e-2) == pytest.approx(16 * 2.0**-10 + 3e-2)


def test_brain_floats() -> None:
    dtype = np.dtype(ml_dtypes.bfloat16)
    assert unit_in_last_place(dtype) == 2**-7
    a = rand(2, 3, 4).astype(dtype)
    assert compare(a, a.copy()).bit_identical
    b = a.copy()
    b[0, 0, 0] = 100
    assert compare(a, b).max_relative_error > 10


def test_another_dtype_is_not_bit_identical() -> None:
    a = np.ones((2, 3), np.float32)
    assert not compare(a, a.astype(np.float64)).bit_identical


def test_no_tolerance_at_all() -> None:
    a = rand(2, 3, 4)
    b = a.copy()
    b[0, 0, 0] = np.nextafter(b[0, 0, 0], np.float32(9))
    assert compare(a, a.copy()).within(0.0)
    assert not compare(a, b).within(0.0)


def test_a_tolerance_that_is_not_a_number_lets_nothing_pass() -> None:
    assert not compare(rand(2, 3), rand(2, 3)).within(float("nan"))


def test_the_worst_channel_is_named() -> None:
    a = rand(2, 7, 5, 6)
    b = a.copy()
    b[:, 4] *= np.float32(1.25)
    axis, index, error = compare(a, b).worst_channel
    assert (axis, index) == (1, 4)
    assert error == pytest.approx(0.25, rel=1e-5)


def values_of(found: Comparison) -> list[float | bool]:
    return [found.max_relative_error, found.relative_rms_error, found.bit_identical, *found.worst_channel]


@given(st.lists(st.integers(1, 4), min_size=1, max_size=6), st.integers(0, 99))
def test_samples_compared_apart_equal_the_whole(sizes: list[int], seed: int) -> None:
    a = rand(sum(sizes), 3, 4, 5, seed=seed)
    b = a + np.float32(1e-3) * rand(*a.shape, seed=seed + 1)
    ends = np.cumsum(sizes)
    parts = [compare(a[end - size : end], b[end - size : end]) for size, end in zip(sizes, ends, strict=True)]
    together = reduce(Comparison.__add__, parts)
    assert values_of(together) == pytest.approx(values_of(compare(a, b)), rel=1e-12)


def test_samples_of_different_sizes_add_up() -> None:
    parts = []
    for side in (4, 6):
        a = rand(1, 7, side, side)
        b = a.copy()
        b[:, 2] *= np.float32(1.01)
        parts.append(compare(a, b))
    together = parts[0] + parts[1]
    assert not together.within(F32)
    assert together.worst_channel[:2] == (1, 2)
    other = together + compare(rand(1, 5), rand(1, 5))
    assert other.max_relative_error >= 0
    assert not other.within(F32)


def test_the_root_mean_square() -> None:
    a, b = rand(3, 4, 5, seed=1), rand(3, 4, 5, seed=2)
    wanted = np.sqrt(((a.astype(float) - b) ** 2).mean() / (a.astype(float) ** 2).mean())
    assert compare(a, b).relative_rms_error == pytest.approx(wanted)
