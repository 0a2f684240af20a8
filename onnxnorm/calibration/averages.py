"""The averages of a batch, from what a probe returns: those of many small values at once.

Every operation of NumPy has a price, which a small network notices. Values of which samples have as many rows and
positions are concatenated along their channels, and averaged together.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxnorm.calibration.taps import Positions, Tap
from onnxnorm.errors import ModelError

__all__ = ["Averages", "averages_of", "rows_of"]

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Averages:
    """The means over positions of each sample, of values of which samples have as many rows and positions.

    Attributes:
        places: which taps measured the values.
        widths: how many channels each value has.
        rows: rows of each sample.
        spread: the positions of each sample.
        means: the means, one value behind the other, shape `(samples, channels)`; 0 without rows.
    """

    places: tuple[int, ...]
    widths: tuple[int, ...]
    rows: int
    spread: Positions
    means: NDArray[np.float64] = field(repr=False)

    def each(self) -> Iterator[tuple[int, NDArray[np.float64]]]:
        """The place of each tap, and the means that it measured, shape `(samples, width)`."""
        yield from zip(self.places, np.split(self.means, np.cumsum(self.widths)[:-1], axis=1), strict=True)


def averages_of(
    taps: Sequence[Tap], results: Arrays, spreads: Sequence[Positions | None], count: int, batch: int
) -> list[Averages]:
    """The averages of the first `count` samples of a batch, each value in one of them.

    Args:
        taps: what was measured.
        results: the outputs of the probe by name.
        spreads: the positions of each tap; None if only the run tells the shape.
        count: number of samples that are counted.
        batch: number of samples in the batch.

    Raises:
        ModelError: if the first axis of a value is not the batch.
    """
    rows, groups = list[NDArray[Any]](), dict[tuple[int, float, int, int], list[int]]()
    for place, (tap, spread) in enumerate(zip(taps, spreads, strict=True)):
        known = spread or tap.spread(tuple(results[tap.shape].tolist()), batch)
        array = rows_of(_averages(tap, results), batch, tap.site.value)[:count]
        rows.append(array)
        alone = (
            place if array.shape[1] > 1 and array.shape[2] == 1 else -1
        )  # NumPy sums a single column in another order
        groups.setdefault((known.positions, known.factor, array.shape[1], alone), []).append(place)
    found = []
    for (positions, factor, each, _), places in groups.items():
        arrays = [rows[place] for place in places]
        means = _means(np.concatenate(arrays, axis=2) if len(arrays) > 1 else arrays[0])
        widths = tuple(array.shape[2] for array in arrays)
        found.append(Averages(tuple(places), widths, each, Positions(positions, factor), means * factor))
    return found


def rows_of(result: NDArray[Any], batch: int, value: str) -> NDArray[Any]:
    """Return an output as `(batch, k, channels)`: k rows for each sample. Raises ModelError if that does not fit."""
    channels = math.prod(result.shape[1:])
    if result.shape[0] % batch:
        raise ModelError(
            f"value {value!r} has {result.shape[0]} rows for {batch} samples: its first axis is not the batch"
        )
    return result.reshape(batch, result.shape[0] // batch, channels)


def _averages(tap: Tap, results: Arrays) -> NDArray[Any]:
    """The mean of a tap: an output, or computed of two."""
    mean = results[tap.mean]
    return 2 * mean.astype(np.float64) - results[tap.signed] if tap.signed else mean


def _means(rows: NDArray[Any]) -> NDArray[np.float64]:
    """Return the means over the rows of each sample, `(batch, channels)`; 0 without rows."""
    if rows.shape[1] == 1:
        return rows[:, 0].astype(np.float64)
    return np.asarray(rows.mean(axis=1, dtype=np.float64) if rows.shape[1] else np.zeros((len(rows), rows.shape[2])))
