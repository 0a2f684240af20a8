"""Comparing two arrays that should hold the same numbers up to rounding.

Two measures, both relative to magnitudes and not to single elements, which may be zero:

* the whole output: `max|a - b| / max|a|` must not exceed the tolerance;
* every channel by itself: `max|a - b|` within the channel must not exceed `CHANNEL_SLACK` times the tolerance of the
  channel's own magnitude. It catches a wrong channel that is too small to show in the whole. The slack leaves room for
  channels that are sums of larger numbers.

A channel that is 1 % off is rejected by the second at the tolerance of float32, however small it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["CHANNEL_SLACK", "Comparison", "compare", "default_tolerance"]

CHANNEL_SLACK = 10.0

# Of the largest magnitude. For float32, 1e-4 is about 800 units in the last place; the others keep that proportion.
_UNITS = 1e-4 / float(np.finfo(np.float32).eps)


@dataclass(frozen=True)
class Comparison:
    """How far `b` is from `a`. `channel_errors` has shape `(channels,)`: the error relative to each channel's magnitude."""

    max_relative_error: float
    relative_rms_error: float
    bit_identical: bool
    channel_errors: NDArray[np.float64]

    @property
    def worst_channel(self) -> tuple[int, float]:
        """Index and error of the channel that is furthest off; (-1, 0) if there are none."""
        if not self.channel_errors.size:
            return -1, 0.0
        index = int(np.argmax(self.channel_errors))
        return index, float(self.channel_errors[index])

    def within(self, tolerance: float, noise: Comparison | None = None) -> bool:
        """Whether the two are the same up to `tolerance` and, per channel, three times the runtime's own noise."""
        if not self.max_relative_error <= tolerance:
            return False
        allowed = np.full_like(self.channel_errors, CHANNEL_SLACK * tolerance)
        if noise is not None:
            allowed = np.maximum(allowed, 3 * np.nan_to_num(noise.channel_errors, nan=0.0, posinf=0.0))
        return bool((self.channel_errors <= allowed).all())


def default_tolerance(dtype: np.dtype[Any]) -> float:
    """The tolerance for outputs of a dtype, relative to the largest magnitude: 1e-4 for float32."""
    if dtype.kind in "iub":
        return 0.0
    try:
        return _UNITS * float(np.finfo(dtype).eps)
    except ValueError:  # bfloat16, which NumPy does not know: 8 bits of mantissa
        return _UNITS * 2.0**-7


def compare(a: NDArray[Any], b: NDArray[Any], axis: int = 1) -> Comparison:
    """Compare the original's `a` with `b`; channels are along `axis`. NaN and infinity match only themselves."""
    if a.shape != b.shape:
        return Comparison(np.inf, np.inf, False, np.full(1, np.inf))
    x, y = a.astype(np.float64), b.astype(np.float64)
    same = (x == y) | (np.isnan(x) & np.isnan(y))
    with np.errstate(invalid="ignore"):
        error = np.where(same, 0.0, np.abs(x - y))
    error = np.where(np.isnan(error), np.inf, error)
    magnitude = np.where(np.isfinite(x), np.abs(x), 0.0)
    others = tuple(k for k in range(x.ndim) if k != axis) if x.ndim > axis else None
    channels = _ratio(error.max(axis=others, initial=0.0), magnitude.max(axis=others, initial=0.0))
    rms = _ratio(np.sqrt(np.mean(error**2)) if error.size else 0.0, np.sqrt(np.mean(magnitude**2)) if error.size else 0.0)
    return Comparison(
        max_relative_error=float(_ratio(error.max(initial=0.0), magnitude.max(initial=0.0))),
        relative_rms_error=float(rms),
        bit_identical=a.dtype == b.dtype and a.tobytes() == b.tobytes(),
        channel_errors=np.atleast_1d(channels),
    )


def _ratio(error: Any, magnitude: Any) -> NDArray[np.float64]:
    """error / magnitude, where 0 / 0 is 0 and x / 0 is infinite."""
    error, magnitude = np.asarray(error, np.float64), np.asarray(magnitude, np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(error == 0, 0.0, error / magnitude)
