"""The range of the numbers of a model's inputs, by which a verification without DATA makes similar inputs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxnorm.data.batches import Batch

__all__ = ["Range", "merge_ranges", "ranges_of"]

_PART = 1 << 16  # numbers that are converted to float64 at a time where memory is short,
_LARGE = 1 << 24  # and in arrays of more numbers than this


@dataclass(frozen=True)
class Range:
    """Mean, standard deviation, minimum and maximum of an input's numbers."""

    mean: float
    std: float
    low: float
    high: float


def ranges_of(batch: Batch, known: Mapping[str, Range] = MappingProxyType({})) -> dict[str, Range]:
    """Return the range of the numbers of each input in a batch and in those before it.

    Only minimum and maximum are looked for if the range of an input is `known` from batches before: its mean and its
    deviation stay. If memory is short, they are those of some samples.
    """
    try:
        return _ranges(batch, known, _range)
    except MemoryError:
        if batch.count < 2:
            return _ranges(batch, known, _range_in_parts)
        first, second = batch.split(batch.count // 2)
        return ranges_of(second, ranges_of(first, known))


def _ranges(batch: Batch, known: Mapping[str, Range], measure: Callable[[NDArray[Any]], Range]) -> dict[str, Range]:
    feeds = batch.feeds.items()
    return {name: _widened(known[name], array) if name in known else measure(array) for name, array in feeds}


def _widened(known: Range, array: NDArray[Any]) -> Range:
    return replace(known, low=min(known.low, float(array.min())), high=max(known.high, float(array.max())))


def _range(array: NDArray[Any]) -> Range:
    if array.size > _LARGE:
        return _range_in_parts(array)
    x = np.asarray(array, np.float64)
    return Range(*(float(f()) for f in (x.mean, x.std, x.min, x.max)))


def _range_in_parts(array: NDArray[Any]) -> Range:
    """The range of an array of which only some thousand numbers at a time are converted to float64."""
    numbers = array.reshape(-1)
    mean = sum(float(part.sum()) for part in _parts(numbers)) / numbers.size
    variance = sum(float(((part - mean) ** 2).sum()) for part in _parts(numbers)) / numbers.size
    return Range(mean, math.sqrt(variance), float(numbers.min()), float(numbers.max()))


def _parts(numbers: NDArray[Any]) -> Iterator[NDArray[np.float64]]:
    return (numbers[start : start + _PART].astype(np.float64) for start in range(0, numbers.size, _PART))


def merge_ranges(known: Mapping[str, Range], added: Mapping[str, Range]) -> dict[str, Range]:
    """Return the known ranges with limits widened to include the added ones; means and deviations do not change."""
    joined = dict(known)
    for name, new in added.items():
        old = joined.get(name, new)
        joined[name] = Range(old.mean, old.std, min(old.low, new.low), max(old.high, new.high))
    return joined
