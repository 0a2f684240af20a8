"""A factor: what a constant is multiplied by, elementwise, and what rounding the product to its type costs."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from onnxnorm.errors import ModelError
from onnxnorm.scaling.slots import squeezed

__all__ = ["Factor", "Rounding"]

Floats = NDArray[np.float64]


@dataclass
class Rounding:
    """The largest relative error that rounding made, per constant; grows while constants are written."""

    of: dict[str, float] = field(default_factory=dict)

    @property
    def worst(self) -> tuple[str, float] | None:
        """The constant that lost most, and how much; None while nothing was rounded."""
        return max(self.of.items(), key=lambda item: item[1]) if self.of else None

    def note(self, name: str, exact: Floats, rounded: NDArray[np.generic]) -> None:
        """Compare products with what they were rounded to."""
        with np.errstate(invalid="ignore", over="ignore"):
            size = np.abs(exact)
            error = np.abs(rounded.astype(np.float64) - exact)
            relative = np.divide(error, size, out=np.zeros_like(error), where=(size > 0) & np.isfinite(size))
        self.of[name] = max(self.of.get(name, 0.0), float(relative.max(initial=0.0)))


@dataclass(frozen=True)
class Factor:
    """`new = old * times / over`; float64 arrays that broadcast against the constant."""

    times: Floats
    over: Floats

    @property
    def changes(self) -> bool:
        """Whether anything is multiplied by something else than 1."""
        return (
            bool((self.times != self.over).any())
            if self.times.shape == self.over.shape
            else bool((self.times != 1).any() or (self.over != 1).any())
        )

    @property
    def inverse(self) -> Factor:
        """What undoes it."""
        return Factor(self.over, self.times)

    def __eq__(self, other: object) -> bool:
        """Whether both multiply by the same numbers, elementwise."""
        return isinstance(other, Factor) and _same(self.times, other.times) and _same(self.over, other.over)

    def key(self) -> object:
        """The same for all factors that multiply by the same numbers, elementwise."""
        parts = [squeezed(part) for part in (self.times, self.over)]
        return tuple((part.shape, part.tobytes()) for part in parts)

    __hash__ = None  # type: ignore[assignment]

    def __mul__(self, other: Factor) -> Factor:
        """Both, one after the other."""
        return Factor(self.times * other.times, self.over * other.over)

    def apply(self, values: NDArray[np.generic], name: str, rounding: Rounding | None = None) -> NDArray[np.generic]:
        """Scaled values in their own dtype. Raises ModelError if they leave its range."""
        with np.errstate(over="ignore", invalid="ignore", under="ignore"):
            exact = values.astype(np.float64) * (self.times / self.over)
            scaled = exact.astype(values.dtype)
            overflow = not np.isfinite(scaled).all() and np.isfinite(values).all()
        if overflow:
            raise ModelError(
                f"constant {name!r} would overflow {values.dtype}; choose a smaller --target, use --power-of-two, "
                "which stays within the range, or rewrite the float32 model"
            )
        if rounding is not None:
            rounding.note(name, exact, scaled)
        return scaled

    def rows(self, start: int, stop: int) -> Factor:
        """The part for rows `[start, stop)` of the constant's first axis."""
        parts = (self.times, self.over)
        return Factor(*(part[start:stop] if part.ndim and part.shape[0] > 1 else part for part in parts))


def _same(a: Floats, b: Floats) -> bool:
    left, right = np.broadcast_arrays(a, b)
    return np.array_equal(left, right)
