"""One array of an exported file: its name, and how its values come from constants of the model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from onnxnorm.model.boundary import model_errors
from onnxnorm.model.constants import Constant

__all__ = ["Entry", "arrays_of", "as_stored", "zeros"]

Array = NDArray[np.generic]


@dataclass(frozen=True)
class Entry:
    """One array of a file.

    Attributes:
        name: its name there.
        shape: its shape there.
        dtype: its dtype, that of the constant.
        constant: name of the constant that it comes from; None for zeros that the model does not have.
        read: returns the values; they are read when they are written, one array at a time.
        layer: the group that it belongs to in a weight file of Keras; empty in other layouts.
        release: gives the memory of the values back once they are written.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]
    constant: str | None
    read: Callable[[], Array] = field(repr=False)
    layer: str = ""
    release: Callable[[], None] = field(repr=False, default=lambda: None)

    def values(self) -> Array:
        """The values, in row-major order."""
        with model_errors(f"constant {self.constant!r}"):
            return np.ascontiguousarray(self.read()).reshape(self.shape)


def arrays_of(entries: Iterable[Entry]) -> Iterator[tuple[Entry, Array]]:
    """The entries with their values, of which only one is in memory at a time."""
    for entry in entries:
        yield entry, entry.values()
        entry.release()


def as_stored(
    name: str,
    constant: Constant,
    shape: tuple[int, ...] | None = None,
    change: Callable[[Array], Array] = lambda values: values,
) -> Entry:
    """An entry with the values of a constant, moved by `change` (which gives this shape) if that is given."""
    return Entry(
        name,
        constant.shape if shape is None else shape,
        constant.dtype,
        constant.name,
        lambda: change(constant.values()),
    )


def zeros(name: str, count: int, dtype: np.dtype[np.generic]) -> Entry:
    """A bias of zeros, for a layer that has none."""
    return Entry(name, (count,), dtype, None, lambda: np.zeros(count, dtype))
