"""Integers u with `rows @ u <= bounds`, with the least cost of what moves: of forms `costs @ u` that are not 0.

Rows with a bound of 0 or more hold for `u = 0`, and hold in the end in any case. Those with a negative bound are
wishes: they hold in the end where they can, and come as near as they can elsewhere.

**Algorithm.** Unknowns that no chain of rows connects are solved for apart, and only where a wish is. An unknown by
itself has a range, of which the end next to 0 is taken. For several, two integer programs (`scipy.optimize.milp`):
first by how much the wishes have to be missed, if they have to be; then the least cost, and the fewest octaves.
Channels make many programs that are the same but for names, so results are kept. Where time runs out, the solution
without integrality is rounded. Whatever comes out is checked in whole numbers, and 0 takes its place if it breaks a
row.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array, csr_array, eye_array, hstack, vstack
from scipy.sparse.csgraph import connected_components

from onnxnorm.rewriting.ceiling.muted import muted

__all__ = ["Costs", "Solution", "solve_integers"]

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]

_OCTAVE = 1e-3  # what one octave costs, where moving an unknown costs its weight
_FAR = 200  # no scale is further from 1 than 2 to this power


@dataclass(frozen=True)
class Costs:
    """What it costs that a form is not 0: forms of integers, `(forms, unknowns)`, and the cost of each, `(forms,)`."""

    forms: csr_array = field(repr=False)
    weights: Floats = field(repr=False)


@dataclass(frozen=True)
class Solution:
    """The unknowns, `(unknowns,)`, and whether they are known to be the best."""

    unknowns: Integers = field(repr=False)
    proven: bool


def solve_integers(rows: csr_array, bounds: Integers, costs: Costs, seconds: float) -> Solution:
    """Solve the program.

    Args:
        rows: the rows, integers, shape `(rows, unknowns)`.
        bounds: their bounds, shape `(rows,)`; negative ones are wishes.
        costs: what it costs to move.
        seconds: after this time, the rest is solved without integrality and rounded.
    """
    unknowns = np.zeros(rows.shape[1], np.int64)
    proven, end = True, time.monotonic() + seconds
    known: dict[bytes, tuple[Integers, bool]] = {}
    single = _alone(rows, bounds, costs, unknowns)
    for part, here, columns in _parts(rows, bounds, costs, single):
        some, forms = (_cut(matrix, which, columns) for matrix, which in ((rows, part), (costs.forms, here)))
        weights = costs.weights[here]
        arrays = [array for m in (some, forms) for array in (m.indptr, m.indices, m.data)]
        key = b"|".join(np.ascontiguousarray(array).tobytes() for array in (*arrays, bounds[part], weights))
        if key not in known:
            known[key] = _solved(some, bounds[part], Costs(forms, weights), end)
        unknowns[columns], best = known[key]
        proven &= best
    return Solution(unknowns, proven)


def _cut(matrix: csr_array, rows: Integers, columns: Integers) -> csr_array:
    part = csr_array(matrix[rows][:, columns])
    part.sort_indices()
    return part


def _alone(rows: csr_array, bounds: Integers, costs: Costs, unknowns: Integers) -> NDArray[np.bool_]:
    """Solve, in place, for unknowns that share no row or form with another; returns which those are, `(unknowns,)`."""
    single = np.ones(rows.shape[1], np.bool_)
    for matrix in (rows, costs.forms):
        length = np.diff(matrix.indptr)
        single[matrix.indices[np.repeat(length, length) > 1]] = False
    of_entry = np.repeat(np.arange(rows.shape[0]), np.diff(rows.indptr))
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


def _parts(
    rows: csr_array, bounds: Integers, costs: Costs, single: NDArray[np.bool_]
) -> list[tuple[Integers, Integers, Integers]]:
    """Rows, forms and unknowns that belong together, apart from single unknowns, wherever there is a wish."""
    count = rows.shape[1]
    links = [np.stack([m.indices[m.indptr[:-1].repeat(np.diff(m.indptr))], m.indices]) for m in (rows, costs.forms)]
    left, right = np.concatenate(links, axis=1)
    graph = coo_array((np.ones(len(left), np.int8), (left, right)), shape=(count, count))
    label = connected_components(graph, directed=False)[1]
    places = [np.flatnonzero(np.diff(m.indptr)) for m in (rows, costs.forms)]
    own = [label[m.indices[m.indptr[place]]] for m, place in zip((rows, costs.forms), places, strict=True)]
    wished = np.unique(own[0][bounds[places[0]] < 0])
    wished = np.setdiff1d(wished, label[single])
    members = zip((*places, np.arange(count)), (*own, label), strict=True)
    by_label = [
        (place[order], found[order]) for place, found in members for order in [np.argsort(found, kind="stable")]
    ]
    parts = []
    for one in wished.tolist():
        rows_here, forms_here, columns = (
            place[slice(*np.searchsorted(found, [one, one + 1]))] for place, found in by_label
        )
        parts.append((rows_here, forms_here, columns))
    return parts


def _solved(rows: csr_array, bounds: Integers, costs: Costs, end: float) -> tuple[Integers, bool]:
    """The unknowns of one part, and whether they are the best."""
    far = min(_FAR, 4 * int(-bounds.min()) + 16)
    found = _cheapest(rows, bounds, costs, far, end)
    if found is None:
        missed = _missed(rows, bounds, far, end)
        found = None if missed is None else _cheapest(rows, bounds + missed, costs, far, end)
    if found is not None and _holds(rows, bounds, found):
        return found, True
    return _rounded(rows, bounds, far), False


def _cheapest(rows: csr_array, bounds: Integers, costs: Costs, far: int, end: float) -> Integers | None:
    """The unknowns that keep all rows at the least cost; None if there are none, or time is short.

    An unknown is `up - down`, and each form lies between `-far * moves` and `far * moves`, with `moves` 0 or 1.
    """
    count, forms = rows.shape[1], costs.forms
    widest = far * max(1, int(np.asarray(abs(forms).sum(axis=1)).max(initial=1)))
    moves = widest * csr_array(eye_array(forms.shape[0]))
    above = hstack([rows, -rows, csr_array((rows.shape[0], forms.shape[0]))])
    matrix = csr_array(vstack([above, hstack([forms, -forms, -moves]), hstack([-forms, forms, -moves])]))
    cost = np.concatenate([np.full(2 * count, _OCTAVE), costs.weights])
    limits = np.concatenate([bounds, np.zeros(2 * forms.shape[0])])
    top = np.concatenate([np.full(2 * count, far), np.ones(forms.shape[0])])
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
    options = {"time_limit": left, "mip_rel_gap": 0.0}
    found = _minimized(cost, matrix, limits, top, integrality=whole, options=options)
    return np.rint(found.x).astype(np.int64) if found.status == 0 else None


def _minimized(cost: Floats, matrix: csr_array, limits: Floats | Integers, top: Floats, **words: Any) -> Any:
    """Solve for numbers from 0 to `top` of the least cost, `matrix @ numbers <= limits`."""
    from scipy.optimize import Bounds, LinearConstraint, milp  # takes a tenth of a second, so only where it is needed

    with muted():
        return milp(cost, constraints=LinearConstraint(matrix, -np.inf, limits), bounds=Bounds(0, top), **words)


def _rounded(rows: csr_array, bounds: Integers, far: int) -> Integers:
    """Whole numbers near a solution without integrality: those that keep what must hold and miss the wishes least."""
    count, wishes = rows.shape[1], np.flatnonzero(bounds < 0)
    slack = coo_array((-np.ones(len(wishes)), (wishes, np.arange(len(wishes)))), shape=(len(bounds), len(wishes)))
    matrix = csr_array(hstack([rows, -rows, slack]))
    cost = np.concatenate([np.full(2 * count, _OCTAVE), np.ones(len(wishes))])
    top = np.concatenate([np.full(2 * count, far), -bounds[wishes]])
    found = _minimized(cost, matrix, bounds, top)
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
