"""Comparing outputs that should hold the same numbers up to rounding.

Two measures, both relative to magnitudes and not to single elements, which may be zero:

* the whole output: `max|a - b| / max|a|` must not exceed the tolerance;
* every channel by itself: `max|a - b|` within the channel must not exceed `CHANNEL_SLACK` times the tolerance, relative
  to the channel's own magnitude. It catches a wrong channel that is too small to show in the whole. What lies below a
  floor, three times the runtime's own noise on the whole output and at least a few units in its last place, is not an
  error.

So a channel that is 1 % off is rejected at the tolerance of float32, down to a few ten-thousandths of the largest
magnitude. Channels lie on axis 1 or on the last one; an output does not say which, so both are looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxnorm.model.tensors import is_float, unit_in_last_place

__all__ = ["CHANNEL_SLACK", "Comparison", "compare", "default_tolerance"]

CHANNEL_SLACK = 10.0

# In units in the last place: float32's tolerance of 1e-4, the same for float64; that of 16-bit types; and the floor.
_TOLERANCE_UNITS = 1e-4 / float(np.finfo(np.float32).eps)
_HALF_UNITS = 16.0
_FLOOR_UNITS = 16.0

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Comparison:
    """How far `b` is from `a`, over any number of samples: `one + another` is the comparison of both together.

    `errors` and `magnitudes` hold the largest |a - b| and |a| of each channel: an array `(channels,)` per axis of
    `axes`.
    """

    axes: tuple[int, ...]
    errors: tuple[Floats, ...] = field(repr=False)
    magnitudes: tuple[Floats, ...] = field(repr=False)
    error_squares: float
    squares: float
    bit_identical: bool
    dtype: np.dtype[Any]

    def __add__(self, other: Comparison) -> Comparison:
        """Both together; along an axis whose size changes between samples there are no channels."""
        mine, theirs = (dict(zip(c.axes, zip(c.errors, c.magnitudes, strict=True), strict=True)) for c in (self, other))
        axes = [axis for axis in mine if axis in theirs and mine[axis][0].shape == theirs[axis][0].shape]
        errors = [np.maximum(mine[axis][0], theirs[axis][0]) for axis in axes]
        magnitudes = [np.maximum(mine[axis][1], theirs[axis][1]) for axis in axes]
        if not axes:
            axes = [-1]
            errors = [_all([*self.errors, *other.errors])]
            magnitudes = [_all([*self.magnitudes, *other.magnitudes])]
        return Comparison(
            tuple(axes),
            tuple(errors),
            tuple(magnitudes),
            self.error_squares + other.error_squares,
            self.squares + other.squares,
            self.bit_identical and other.bit_identical,
            self.dtype,
        )

    @property
    def largest_error(self) -> float:
        """`max|a - b|`."""
        return float(_all(self.errors)[0])

    @property
    def magnitude(self) -> float:
        """`max|a|`."""
        return float(_all(self.magnitudes)[0])

    @property
    def max_relative_error(self) -> float:
        """`max|a - b| / max|a|`."""
        return float(_ratio(self.largest_error, self.magnitude))

    @property
    def relative_rms_error(self) -> float:
        """Root mean square of a - b over that of a."""
        return float(_ratio(np.sqrt(self.error_squares), np.sqrt(self.squares)))

    @property
    def worst_channel(self) -> tuple[int, int, float]:
        """Axis, index and error of the channel that is furthest off for its own magnitude; (-1, -1, 0) without any."""
        worst = (-1, -1, 0.0)
        for axis, errors, magnitudes in zip(self.axes, self.errors, self.magnitudes, strict=True):
            ratios = _ratio(errors, magnitudes)
            if ratios.size and ratios.max() >= worst[2]:
                worst = (axis, int(np.argmax(ratios)), float(ratios.max()))
        return worst

    def within(self, tolerance: float, noise: float = 0.0, unit: float | None = None) -> bool:
        """Whether the two are the same up to `tolerance`.

        Args:
            tolerance: how far they may differ, relative to the largest magnitude.
            noise: the runtime's own `max_relative_error`.
            unit: the unit in the last place of the narrowest type computed in; None: that of the output's.
        """
        if not self.max_relative_error <= tolerance:
            return False
        if tolerance == 0:
            return self.largest_error == 0
        unit = unit_in_last_place(self.dtype) if unit is None else unit
        floor = max(3 * noise, _FLOOR_UNITS * unit) * self.magnitude
        return all(
            bool((errors <= np.maximum(CHANNEL_SLACK * tolerance * magnitudes, floor)).all())
            for errors, magnitudes in zip(self.errors, self.magnitudes, strict=True)
        )


def default_tolerance(dtype: np.dtype[Any], noise: float = 0.0) -> float:
    """How far outputs computed in a type may differ, relative to the largest magnitude.

    In float32 by 1e-4, or three times the runtime's own noise where that is more. In 16-bit types by 16 units in the
    last place (1.6e-2 in float16) and three times the noise: rounding every value makes half a unit each.
    """
    unit = unit_in_last_place(dtype)
    if is_float(dtype) and dtype.itemsize == 2:
        return _HALF_UNITS * unit + 3 * noise
    return max(_TOLERANCE_UNITS * unit, 3 * noise)


def compare(a: NDArray[Any], b: NDArray[Any]) -> Comparison:
    """Compare the original's `a` with `b`. NaN and infinity match only themselves; axis 0 is the batch."""
    if a.shape != b.shape or a.dtype.kind in "OSU":
        same = a.shape == b.shape and bool((a == b).all())
        wrong = np.full(1, 0.0 if same else np.inf)
        return Comparison((-1,), (wrong,), (np.ones(1),), float(wrong[0]), 1.0, same, np.dtype(np.int64))
    x, y = a.astype(np.float64), b.astype(np.float64)
    with np.errstate(invalid="ignore"):
        error = np.where((x == y) | (np.isnan(x) & np.isnan(y)), 0.0, np.abs(x - y))
    error = np.where(np.isnan(error), np.inf, error)
    magnitude = np.where(np.isfinite(x), np.abs(x), 0.0)
    axes = tuple(dict.fromkeys((1, x.ndim - 1))) if x.ndim > 1 else (-1,)
    return Comparison(
        axes=axes,
        errors=tuple(_along(error, axis) for axis in axes),
        magnitudes=tuple(_along(magnitude, axis) for axis in axes),
        error_squares=float((error**2).sum()),
        squares=float((magnitude**2).sum()),
        bit_identical=a.dtype == b.dtype and a.tobytes() == b.tobytes(),
        dtype=a.dtype,
    )


def _along(values: Floats, axis: int) -> Floats:
    """The largest per channel of an axis; of all, shape `(1,)`, for axis -1."""
    others = tuple(k for k in range(values.ndim) if k != axis)
    return np.atleast_1d(np.asarray(values.max(axis=others, initial=0.0), np.float64))


def _all(parts: Sequence[Floats]) -> Floats:
    return np.full(1, max(float(part.max(initial=0.0)) for part in parts))


def _ratio(error: Any, magnitude: Any) -> Floats:
    """error / magnitude, where 0 / 0 is 0 and x / 0 is infinite."""
    error, magnitude = np.asarray(error, np.float64), np.asarray(magnitude, np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(error == 0, 0.0, error / magnitude), np.float64)
