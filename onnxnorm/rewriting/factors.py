"""Factors that constants are multiplied by, elementwise, and the errors of rounding the products to their types.

Products, and the errors of rounding them, are float64. They are made for a part of a constant at a time, in arrays that
stay in the processor's cache: to have large ones from the system, again and again, takes longer than all arithmetic.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import product

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from onnxnorm.errors import ModelError
from onnxnorm.scaling.slots import squeezed

__all__ = ["Factor", "Rounding"]

Floats = NDArray[np.float64]

# Elements that are multiplied at a time.
_PART = 1 << 15


@dataclass
class Rounding:
    """The largest relative error that rounding made, by constant; completed while constants are written."""

    of: dict[str, float] = field(default_factory=dict)

    @property
    def worst(self) -> tuple[str, float] | None:
        """The constant with the largest relative error, and that error; None if nothing was rounded yet."""
        return max(self.of.items(), key=lambda item: item[1]) if self.of else None

    def note(self, name: str, error: float) -> None:
        """Record a relative error."""
        self.of[name] = max(self.of.get(name, 0.0), error)


@dataclass(frozen=True)
class Factor:
    """The factor `times / over` of a constant; both are float64 arrays that broadcast against it."""

    times: Floats
    over: Floats

    @property
    def changes(self) -> bool:
        """Whether any element is multiplied by a number other than 1."""
        return (
            bool((self.times != self.over).any())
            if self.times.shape == self.over.shape
            else bool((self.times != 1).any() or (self.over != 1).any())
        )

    @property
    def inverse(self) -> Factor:
        """The factor that undoes this one."""
        return Factor(self.over, self.times)

    def __eq__(self, other: object) -> bool:
        """Whether the two have the same `times` and the same `over`, elementwise."""
        return isinstance(other, Factor) and _same(self.times, other.times) and _same(self.over, other.over)

    def key(self) -> object:
        """A hashable value that is equal for factors that are equal."""
        parts = [squeezed(part) for part in (self.times, self.over)]
        return tuple((part.shape, part.tobytes()) for part in parts)

    __hash__ = None  # type: ignore[assignment]

    def __mul__(self, other: Factor) -> Factor:
        """The factor of applying both, one after the other."""
        return Factor(self.times * other.times, self.over * other.over)

    def apply(self, values: NDArray[np.generic], name: str, rounding: Rounding | None = None) -> NDArray[np.generic]:
        """Multiply values by the factor, in float64, and round to their own dtype.

        Args:
            values: the constant's values, or some of its rows.
            name: name of the constant.
            rounding: where to record the rounding error.

        Raises:
            ModelError: if a product leaves the range of the dtype.
        """
        shape = np.broadcast_shapes(values.shape, self.times.shape, self.over.shape)
        given = np.atleast_1d(values if values.shape == shape else np.broadcast_to(values, shape))
        scaled = np.empty(given.shape, values.dtype)
        room = np.empty((2, min(_PART, scaled.size)))
        finite, error = True, 0.0
        with np.errstate(all="ignore"):
            for index in _parts(scaled.shape):
                part = scaled[index]
                products, errors = (array[: part.size].reshape(part.shape) for array in room)
                np.copyto(products, given[index])
                products *= _at(self.times, index) / _at(self.over, index)
                np.copyto(part, products, casting="unsafe")
                finite = finite and bool(np.isfinite(part).all())
                if rounding is not None:
                    error = max(error, _largest_error(part, products, errors))
        if not finite and np.isfinite(values).all():
            raise ModelError(
                f"constant {name!r} would overflow {values.dtype}; choose a smaller --target, use --power-of-two, "
                "which stays within the range, or rewrite the float32 model"
            )
        if rounding is not None:
            rounding.note(name, error)
        return scaled.reshape(shape)

    def kept_finite(self, values: NDArray[np.generic]) -> Factor:
        """A factor that brings values to the largest number of their type at most, where this one would pass that."""
        magnitudes = np.abs(values[np.isfinite(values)].astype(np.float64))
        top = float(ml_dtypes.finfo(values.dtype).max)  # type: ignore[no-untyped-call]
        with np.errstate(over="ignore"):
            room = np.nextafter(top / magnitudes.max(), 0) if magnitudes.any() else np.inf
            if (self.times <= self.over * room).all():
                return self
        return Factor(np.minimum(self.times / self.over, room), np.ones_like(self.over))

    def rows(self, start: int, stop: int) -> Factor:
        """The part of the factor for rows `[start, stop)` of the constant's first axis."""
        parts = (self.times, self.over)
        return Factor(*(part[start:stop] if part.ndim and part.shape[0] > 1 else part for part in parts))


def _parts(shape: tuple[int, ...]) -> Iterator[tuple[slice, ...]]:
    """Indices of the parts of an array of one axis or more, each with a slice for every axis."""
    axis, row = 0, math.prod(shape[1:])
    while row > _PART:
        axis, row = axis + 1, math.prod(shape[axis + 2 :])
    step = _PART // max(1, row)
    whole = (slice(None),) * (len(shape) - axis - 1)
    for outer in product(*map(range, shape[:axis])):
        for start in range(0, shape[axis], step):
            yield (*(slice(at, at + 1) for at in outer), slice(start, start + step), *whole)


def _at(factors: Floats, index: tuple[slice, ...]) -> Floats:
    """What belongs to a part of the array that factors broadcast against."""
    sides = zip(index[len(index) - factors.ndim :], factors.shape, strict=True)
    return np.asarray(factors[tuple(at if size > 1 else slice(None) for at, size in sides)])


def _largest_error(rounded: NDArray[np.generic], products: Floats, errors: Floats) -> float:
    """The largest relative error of products that were rounded; `errors` is overwritten.

    Products that are 0, infinite or no numbers leave NaN there, which does not count.
    """
    np.copyto(errors, rounded)
    errors -= products
    errors /= products
    return float(np.fmax.reduce(np.abs(errors, out=errors), axis=None, initial=0.0))


def _same(a: Floats, b: Floats) -> bool:
    left, right = np.broadcast_arrays(a, b)
    return np.array_equal(left, right)
