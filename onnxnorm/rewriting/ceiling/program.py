"""Integers u with `rows @ u <= bounds`, of which the fewest that count are not 0.

Rows with a bound of 0 or more hold for `u = 0`, and hold in the end in any case. Those with a negative bound are
wishes: they hold in the end where they can, and come as near as they can elsewhere.

**Algorithm.** Unknowns that no chain of rows connects are solved for apart, and only where a wish is. An unknown by
itself has a range, of which the end next to 0 is taken. For several, two integer programs (`scipy.optimize.milp`):
first by how much the wishes have to be missed, if they have to be; then the fewest weighted unknowns that move, by the
fewest octaves. Channels make many programs that are the same but for names, so results are kept. Where time runs out,
the solution without integrality is rounded. Whatever comes out is checked in whole numbers, and 0 takes its place if
it breaks a row.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import coo_array, csr_array, eye_array, hstack, vstack
from scipy.sparse.csgraph import connected_components

__all__ = ["Solution", "solve_integers"]

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]

_OCTAVE = 1e-3  # what one octave costs, where moving an unknown costs its weight
_FAR = 200  # no scale is further from 1 than 2 to this power


@dataclass(frozen=True)
class Solution:
    """The unknowns, `(unknowns,)`, and whether they are known to be the best."""

    unknowns: Integers = field(repr=False)
    proven: bool


def solve_integers(rows: csr_array, bounds: Integers, weights: Floats, seconds: float) -> Solution:
    """Solve the program.

    Args:
        rows: the rows, integers, shape `(rows, unknowns)`.
        bounds: their bounds, shape `(rows,)`; negative ones are wishes.
        weights: what it costs to move each unknown, shape `(unknowns,)`.
        seconds: after this time, the rest is solved without integrality and rounded.
    """
    unknowns = np.zeros(rows.shape[1], np.int64)
    proven, end = True, time.monotonic() + seconds
    known: dict[bytes, tuple[Integers, bool]] = {}
    single = _alone(rows, bounds, unknowns)
    for part, columns in _parts(rows, bounds, single):
        some = csr_array(rows[part][:, columns])
        some.sort_indices()
        arrays = (some.indptr, some.indices, some.data, bounds[part], weights[columns])
        key = b"|".join(np.ascontiguousarray(array).tobytes() for array in arrays)
        if key not in known:
            known[key] = _solved(some, bounds[part], weights[columns], end)
        unknowns[columns], best = known[key]
        proven &= best
    return Solution(unknowns, proven)


def _alone(rows: csr_array, bounds: Integers, unknowns: Integers) -> NDArray[np.bool_]:
    """Solve, in place, for unknowns that share no row with another; returns which those are, `(unknowns,)`."""
    length = np.diff(rows.indptr)
    of_entry = np.repeat(np.arange(rows.shape[0]), length)
    single = np.ones(rows.shape[1], np.bool_)
    single[rows.indices[length[of_entry] > 1]] = False
    here = single[rows.indices]
    columns, factors, limits = rows.indices[here], rows.data[here], bounds[of_entry[here]]
    up, low = np.full(rows.shape[1], _FAR), np.full(rows.shape[1], -_FAR)
    most = np.floor_divide(limits, np.abs(factors))
    np.minimum.at(up, columns[factors > 0], most[factors > 0])
    np.maximum.at(low, columns[factors < 0], -most[factors < 0])
    # Of two wishes that exclude each other, to be smaller counts; the row of a wish never limits the other way.
    nearest = np.where(up < 0, np.maximum(up, np.minimum(low, 0)), np.minimum(np.maximum(low, 0), np.maximum(up, 0)))
    unknowns[single] = nearest[single]
    return single


def _parts(rows: csr_array, bounds: Integers, single: NDArray[np.bool_]) -> list[tuple[Integers, Integers]]:
    """Rows and unknowns that belong together, apart from single unknowns, wherever there is a wish."""
    length = np.diff(rows.indptr)
    kept = np.flatnonzero(length)
    kept = kept[~single[rows.indices[rows.indptr[kept]]]]
    some = rows[kept]
    count = some.shape[0]
    entries = some.tocoo()
    graph = coo_array(
        (np.ones(entries.nnz, np.int8), (entries.row, entries.col + count)), shape=(count + rows.shape[1],) * 2
    )
    label = connected_components(graph, directed=False)[1]
    wished = np.unique(label[:count][bounds[kept] < 0])
    row_order, column_order = (np.argsort(part, kind="stable") for part in (label[:count], label[count:]))
    row_label, column_label = label[:count][row_order], label[count:][column_order]
    parts = []
    for one in wished.tolist():
        here, there = (slice(*np.searchsorted(part, [one, one + 1])) for part in (row_label, column_label))
        parts.append((kept[np.sort(row_order[here])], np.sort(column_order[there])))
    return parts


def _solved(rows: csr_array, bounds: Integers, weights: Floats, end: float) -> tuple[Integers, bool]:
    """The unknowns of one part, and whether they are the best."""
    far = min(_FAR, 4 * int(-bounds.min()) + 16)
    found = _fewest(rows, bounds, weights, far, end)
    if found is None:
        missed = _missed(rows, bounds, far, end)
        found = None if missed is None else _fewest(rows, bounds + missed, weights, far, end)
    if found is not None and _holds(rows, bounds, found):
        return found, True
    return _rounded(rows, bounds, far), False


def _fewest(rows: csr_array, bounds: Integers, weights: Floats, far: int, end: float) -> Integers | None:
    """The unknowns that keep all rows, the fewest of them moved; None if there are none, or time is short.

    An unknown is `up - down`, and `up + down <= far * moves`, with `moves` 0 or 1.
    """
    count = rows.shape[1]
    one = csr_array(eye_array(count))
    above = hstack([rows, -rows, csr_array((rows.shape[0], count))])
    matrix = csr_array(vstack([above, hstack([one, one, -far * one])]))
    cost = np.concatenate([np.full(2 * count, _OCTAVE), weights])
    limits = np.concatenate([bounds, np.zeros(count)])
    top = np.concatenate([np.full(2 * count, far), np.ones(count)])
    found = _run(cost, matrix, limits, top, end)
    return None if found is None else found[:count] - found[count : 2 * count]


def _missed(rows: csr_array, bounds: Integers, far: int, end: float) -> Integers | None:
    """By how many octaves each row is missed, in a solution that misses wishes by the fewest; 0 for other rows."""
    count, wishes = rows.shape[1], np.flatnonzero(bounds < 0)
    slack = coo_array((-np.ones(len(wishes)), (wishes, np.arange(len(wishes)))), shape=(len(bounds), len(wishes)))
    matrix = csr_array(hstack([rows, -rows, slack]))
    cost = np.concatenate([np.zeros(2 * count), np.ones(len(wishes))])
    top = np.concatenate([np.full(2 * count, far), -bounds[wishes]])
    found = _run(cost, matrix, bounds.astype(np.float64), top, end)
    if found is None:
        return None
    missed = np.zeros(len(bounds), np.int64)
    missed[wishes] = found[2 * count :]
    return missed


def _run(cost: Floats, matrix: csr_array, limits: Floats, top: Floats, end: float) -> Integers | None:
    left = end - time.monotonic()
    if left <= 0:
        return None
    whole = np.ones(len(cost), np.int64)
    constraint = LinearConstraint(matrix, -np.inf, limits)
    found = milp(
        cost,
        constraints=constraint,
        bounds=Bounds(0, top),
        integrality=whole,
        options={"time_limit": left, "mip_rel_gap": 0.0},
    )
    return np.rint(found.x).astype(np.int64) if found.status == 0 else None


def _rounded(rows: csr_array, bounds: Integers, far: int) -> Integers:
    """Whole numbers near a solution without integrality: those that keep what must hold and miss the wishes least."""
    count, wishes = rows.shape[1], np.flatnonzero(bounds < 0)
    slack = coo_array((-np.ones(len(wishes)), (wishes, np.arange(len(wishes)))), shape=(len(bounds), len(wishes)))
    matrix = LinearConstraint(csr_array(hstack([rows, -rows, slack])), -np.inf, bounds)
    cost = np.concatenate([np.full(2 * count, _OCTAVE), np.ones(len(wishes))])
    top = np.concatenate([np.full(2 * count, far), -bounds[wishes]])
    found = milp(cost, constraints=matrix, bounds=Bounds(0, top))
    zero = np.zeros(count, np.int64)
    if found.status != 0:
        return zero
    exact = found.x[:count] - found.x[count : 2 * count]
    candidates = [np.floor(exact), np.rint(exact), np.trunc(exact), np.ceil(exact)]
    whole = [zero, *(candidate.astype(np.int64) for candidate in candidates)]
    return min((u for u in whole if _holds(rows, bounds, u)), key=lambda u: _excess(rows, bounds, u))


def _holds(rows: csr_array, bounds: Integers, unknowns: Integers) -> bool:
    """Whether all rows hold that must, and no wish is missed by more than before."""
    return bool((rows @ unknowns <= np.maximum(bounds, 0)).all())


def _excess(rows: csr_array, bounds: Integers, unknowns: Integers) -> int:
    return int(np.maximum(rows @ unknowns - bounds, 0).sum())
