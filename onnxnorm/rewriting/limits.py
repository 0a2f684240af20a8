"""Scales nearer to 1 than their own where a constant would leave the range of its type.

Every element w of a constant that follows the scales becomes `w * scale[times] / scale[over]`. That it stays finite is
a constraint between two groups, in logarithms::

    log2 scale[a] - log2 scale[b] <= log2(largest number of the type / |w|)

The bound is never negative, so scales of 1 satisfy all constraints. Where scales violate some, one of the unknowns from
which the two follow (as a rule they are unknowns themselves), the one that violates more, is moved towards 0, until
none is violated. Unknowns only move towards 0, so this terminates; the solution is conservative, not the nearest.
`power_of_two` solves the same for integers.

The bounds of a Clip are no such constants. A bound past the largest number of its type bounds nothing, and stays there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import ml_dtypes
import numpy as np
import scipy
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
    groups = trace.groups
    of = groups.of
    logs = np.zeros(groups.count)
    logs[of] = np.log2(scales.of_slot)
    logs[of[0]] = 0
    unknowns = groups.unknown(logs)
    start = limited = groups.at(unknowns)
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
        settle(groups.basis, unknowns, known, _MARGIN / 2)
        limited = groups.at(unknowns)
    moved = limited != start
    return scales.at(np.where(moved[of], np.exp2(limited[of]), scales.of_slot), moved[of]) if moved.any() else scales


def settle(
    basis: scipy.sparse.csr_array, unknowns: NDArray[Any], constraints: NDArray[Any], tolerance: float = 0
) -> None:
    """Move unknowns towards 0, in place, until no constraint is violated by more than a tolerance.

    Args:
        basis: the matrix by which the logarithms of the groups follow from the unknowns, `(groups, unknowns)`.
        unknowns: `(unknowns,)`, integers or floats.
        constraints: `(3, n)`: groups a and b, and the bounds h of `logs[a] - logs[b] <= h`.
        tolerance: 0 for integers.
    """
    a, b = constraints[:2].astype(np.int64)
    rows = scipy.sparse.csr_array(basis[a] - basis[b])
    rows.eliminate_zeros()
    row = np.repeat(np.arange(rows.shape[0]), np.diff(rows.indptr))
    while True:
        excess = np.asarray(rows @ unknowns - constraints[2], unknowns.dtype)
        violated = excess > tolerance
        if not violated.any():
            return
        # Whichever of a violated constraint's unknowns adds to it can be moved, the one with most violations first.
        can = violated[row] & (rows.data * unknowns[rows.indices] > 0)
        violations = np.bincount(rows.indices[can], minlength=len(unknowns))
        most = np.zeros(rows.shape[0], np.int64)
        np.maximum.at(most, row[can], violations[rows.indices[can]])
        moves = can & (violations[rows.indices] == most[row])
        moves &= np.isin(np.arange(len(row)), np.unique(np.where(moves, row, -1), return_index=True)[1])
        steps = np.zeros_like(unknowns)
        np.maximum.at(steps, rows.indices[moves], _steps(excess[row[moves]], np.abs(rows.data[moves])))
        unknowns -= np.sign(unknowns) * np.minimum(steps, np.abs(unknowns))


def _steps(excess: NDArray[Any], factors: NDArray[np.int64]) -> NDArray[Any]:
    """By how much unknowns that count `factors` times have to move; whole numbers for integers."""
    return -(-excess // factors) if excess.dtype.kind == "i" else excess / factors


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
