"""Factors that constants are multiplied by, elementwise, and the errors of rounding the products to their types."""

from __future__ import annotations

from dataclasses import dataclass, field

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from onnxnorm.errors import ModelError
from onnxnorm.scaling.slots import squeezed

__all__ = ["Factor", "Rounding"]

Floats = NDArray[np.float64]


@dataclass
class Rounding:
    """The largest relative error that rounding made, by constant; completed while constants are written."""

    of: dict[str, float] = field(default_factory=dict)

    @property
    def worst(self) -> tuple[str, float] | None:
        """The constant with the largest relative error, and that error; None if nothing was rounded yet."""
        return max(self.of.items(), key=lambda item: item[1]) if self.of else None

    def note(self, name: str, products: Floats, rounded: NDArray[np.generic]) -> None:
        """Record the error between products and what they were rounded to."""
        with np.errstate(invalid="ignore", over="ignore"):
            size = np.abs(products)
            error = np.abs(rounded.astype(np.float64) - products)
            relative = np.divide(error, size, out=np.zeros_like(error), where=(size > 0) & np.isfinite(size))
        self.of[name] = max(self.of.get(name, 0.0), float(relative.max(initial=0.0)))


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
        with np.errstate(over="ignore", invalid="ignore", under="ignore"):
            products = values.astype(np.float64) * (self.times / self.over)
            scaled = products.astype(values.dtype)
            overflow = not np.isfinite(scaled).all() and np.isfinite(values).all()
        if overflow:
            raise ModelError(
                f"constant {name!r} would overflow {values.dtype}; choose a smaller --target, use --power-of-two, "
                "which stays within the range, or rewrite the float32 model"
            )
        if rounding is not None:
            rounding.note(name, products, scaled)
        return scaled

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


def _same(a: Floats, b: Floats) -> bool:
    left, right = np.broadcast_arrays(a, b)
    return np.array_equal(left, right)
