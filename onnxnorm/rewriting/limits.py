"""Scales nearer to 1 than their own where a constant would leave the range of its type.

Every element w of a constant that follows the scales becomes `w * scale[times] / scale[over]`. That it stays finite is
a constraint between two groups, in logarithms::

    log2 scale[a] - log2 scale[b] <= log2(largest number of the type / |w|)

The bound is never negative, so scales of 1 satisfy all constraints. Where scales violate some, that of one of the two
groups (the one that violates more) is moved towards 1, until none is violated. Scales only move towards 1, so this
terminates; the solution is conservative, not the nearest. `power_of_two` solves the same for integers.

The bounds of a Clip are no such constants. A bound past the largest number of its type bounds nothing, and stays there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from onnxnorm.model.constants import Constant
from onnxnorm.model.files import Model
from onnxnorm.model.tensors import is_float
from onnxnorm.rewriting.constants import rows_of
from onnxnorm.rewriting.scales import Scales
from onnxnorm.scaling import Edit, Ids, Trace
from onnxnorm.scaling.slots import at_rank

__all__ = ["groups_of", "rows_from", "settle", "tightest", "within_range"]

Floats = NDArray[np.float64]

# Scales end this much (in the logarithm to base 2) below the limit, so that rounding cannot pass it.
_MARGIN = 1e-6


def within_range(model: Model, trace: Trace, scales: Scales) -> Scales:
    """Limit scales so that every constant stays within the range of its type.

    Args:
        model: the model, whose constants are read once.
        trace: a walk over it.
        scales: the scales; those of filters that are limited are marked in the result.
    """
    of = trace.groups.of
    logs = np.zeros(trace.groups.count)
    logs[of] = np.log2(scales.of_slot)
    logs[of[0]] = 0
    limited = logs.copy()
    edits = [
        edit
        for edit in trace.edits
        if not edit.bounds and (edit.times is not None or edit.over is not None) and is_float(edit.constant.dtype)
    ]
    largest = {edit.constant.name: 0.0 for edit in edits}
    for constant in {edit.constant.name: edit.constant for edit in edits}.values():
        largest[constant.name] = _largest(model, constant)
    known = np.empty((3, 0))
    while True:
        violated = [part for edit in edits for part in _violated(model, edit, of, limited, largest)]
        if not violated:
            break
        known = np.concatenate([known, *violated], axis=1)
        settle(limited, known, _MARGIN / 2)
    moved = limited != logs
    return scales.at(np.where(moved[of], np.exp2(limited[of]), scales.of_slot), moved[of]) if moved.any() else scales


def settle(logs: NDArray[Any], constraints: NDArray[Any], tolerance: float = 0) -> None:
    """Move logarithms of scales towards 0, in place, until no constraint is violated by more than a tolerance.

    Args:
        logs: `(groups,)`, integers or floats.
        constraints: `(3, n)`: groups a and b, and the bounds h of `logs[a] - logs[b] <= h`.
        tolerance: 0 for integers.
    """
    a, b = constraints[:2].astype(np.int64)
    bound = constraints[2]
    while True:
        excess = logs[a] - logs[b] - bound
        violated = excess > tolerance
        if not violated.any():
            return
        can_a, can_b = violated & (logs[a] > 0), violated & (logs[b] < 0)
        violations = np.bincount(a[can_a], minlength=len(logs)) + np.bincount(b[can_b], minlength=len(logs))
        moves_a = can_a & (~can_b | (violations[a] >= violations[b]))
        steps = np.zeros_like(logs)
        np.maximum.at(steps, a[moves_a], excess[moves_a])
        np.maximum.at(steps, b[violated & ~moves_a], excess[violated & ~moves_a])
        logs -= np.sign(logs) * np.minimum(steps, np.abs(logs))


def tightest(a: NDArray[np.int64], b: NDArray[np.int64], bound: NDArray[Any]) -> NDArray[Any]:
    """One constraint per pair of groups, the one with the smallest bound, as an array `(3, n)`."""
    order = np.lexsort((bound, b, a))
    rows = np.stack([a, b, bound])[:, order]
    first = np.ones(rows.shape[1], np.bool_)
    first[1:] = (rows[:2, 1:] != rows[:2, :-1]).any(axis=0)
    return rows[:, first]


def groups_of(ids: Ids | None, of: NDArray[np.int64], rank: int) -> NDArray[np.int64]:
    """Groups of an edit's slots, in the constant's rank (at least 1). None stands for slot 0, whose scale is 1."""
    return at_rank(of[np.zeros(1, np.int64) if ids is None else ids], max(rank, 1))


def rows_from(groups: NDArray[np.int64], start: int, count: int) -> NDArray[np.int64]:
    """The groups of some rows of a constant."""
    return groups[start : start + count] if groups.shape[0] > 1 else groups


def _largest(model: Model, constant: Constant) -> float:
    """The largest finite magnitude in a constant."""
    largest = 0.0
    for _, values in rows_of(model, constant):
        extremes = np.array([values.max(), -values.min()], np.float64) if values.size else np.zeros(1)
        if not np.isfinite(extremes).all():
            magnitudes = np.abs(values.astype(np.float64))
            extremes = magnitudes[np.isfinite(magnitudes)]
        largest = max(largest, float(extremes.max(initial=0.0)))
    return largest


def _violated(
    model: Model, edit: Edit, of: NDArray[np.int64], logs: Floats, largest: Mapping[str, float]
) -> Iterator[Floats]:
    """Constraints of one constant that the scales violate, as arrays `(3, n)`."""
    constant = edit.constant
    top = np.log2(float(ml_dtypes.finfo(constant.dtype).max)) - _MARGIN  # type: ignore[no-untyped-call]
    times, over = (groups_of(ids, of, len(constant.shape)) for ids in (edit.times, edit.over))
    if not largest[constant.name] or np.log2(largest[constant.name]) + logs[times].max() - logs[over].min() <= top:
        return
    for start, values in rows_of(model, constant):
        magnitudes = np.abs(values.astype(np.float64))
        magnitudes[~np.isfinite(magnitudes)] = 0
        with np.errstate(divide="ignore"):
            bound = np.maximum(top - np.log2(magnitudes), 0)
        a, b = (np.broadcast_to(rows_from(groups, start, len(values)), values.shape) for groups in (times, over))
        wrong = logs[a] - logs[b] > bound + _MARGIN / 2
        if wrong.any():
            yield tightest(a[wrong], b[wrong], bound[wrong])
