"""Description of the inputs that a model must be fed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["InputSpec", "fixed_batch"]


@dataclass(frozen=True)
class InputSpec:
    """One graph input: its name, shape and dtype.

    `shape` has None for every dimension that the model leaves open; axis 0 is the batch.
    """

    name: str
    shape: tuple[int | None, ...]
    dtype: np.dtype[np.generic]

    def __str__(self) -> str:
        dims = "x".join("?" if size is None else str(size) for size in self.shape)
        return f"{self.name} ({self.dtype} {dims})"


def fixed_batch(specs: tuple[InputSpec, ...]) -> int | None:
    """The batch size that the model's inputs fix, or None if they leave it open."""
    return next((spec.shape[0] for spec in specs if spec.shape and spec.shape[0] is not None), None)
