"""The unknowns from which the scales of all groups follow, so that filters come as near to their wishes as they can.

Every filter wishes a scale. In logarithms, the wishes are the right side of a system of linear equations for the
unknowns, whose least-squares solution is taken. Nearly all unknowns occur in one wish only, and grant it. The others
are solved for part by part: unknowns that no chain of wishes connects do not influence each other. An unknown that no
wish needs is 0, so that constants change no more than they have to.
"""

from __future__ import annotations

import numpy as np
import scipy
from numpy.typing import NDArray

__all__ = ["least_squares"]

Floats = NDArray[np.float64]

_DENSE = 1 << 22  # elements of a matrix that is solved as a dense one
_INDEPENDENT = 1e-9  # the smallest part of a column that must be orthogonal to others


def least_squares(basis: scipy.sparse.csr_array, wishes: Floats, weights: NDArray[np.int64]) -> Floats:
    """The unknowns u that minimize `sum over g of weights[g] * ((basis @ u)[g] - wishes[g]) ** 2`, shape `(unknowns,)`.

    Args:
        basis: shape `(groups, unknowns)`.
        wishes: logarithms of scales, shape `(groups,)`.
        weights: number of filters that wish it, shape `(groups,)`.
    """
    unknowns = np.zeros(basis.shape[1])
    groups = np.flatnonzero(weights)
    rows = basis[groups]
    single = (np.diff(rows.indptr) == 1) & (rows @ (np.bincount(rows.indices, minlength=len(unknowns)) > 1) == 0)
    alone = rows.indptr[:-1][single]
    unknowns[rows.indices[alone]] = wishes[groups[single]] / rows.data[alone]
    entangled = rows[~single]
    if entangled.shape[0]:
        frequency = np.bincount(basis.indices, minlength=len(unknowns))
        wished, weighed = wishes[groups[~single]], np.sqrt(weights[groups[~single]])
        for part, columns in _parts(entangled):
            order = columns[np.argsort(frequency[columns], kind="stable")]
            unknowns[order] = _solved(entangled[part][:, order], wished[part], weighed[part])
    return unknowns


def _parts(rows: scipy.sparse.csr_array) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Rows and columns that are connected by elements which are not 0."""
    touching = abs(rows)
    count, label = scipy.sparse.csgraph.connected_components(touching @ touching.T, directed=False)
    order = np.argsort(label, kind="stable")
    parts = np.split(order, np.cumsum(np.bincount(label, minlength=count))[:-1])
    return [(part, np.unique(rows[part].indices)) for part in parts]


def _solved(rows: scipy.sparse.csr_array, wishes: Floats, weights: Floats) -> Floats:
    """The solution for some rows and columns; columns that depend on those before them get 0."""
    if rows.shape[0] * rows.shape[1] > _DENSE:
        scaled = scipy.sparse.csr_array(rows.multiply(weights[:, None]))
        return np.asarray(scipy.sparse.linalg.lsqr(scaled, wishes * weights, atol=1e-14, btol=1e-14)[0], np.float64)
    matrix = rows.toarray() * weights[:, None]
    needed: list[int] = []
    directions = np.empty((matrix.shape[0], 0))
    for column in range(matrix.shape[1]):
        vector = matrix[:, column]
        rest = vector - directions @ (directions.T @ vector)
        rest -= directions @ (directions.T @ rest)  # once more, against rounding
        size = np.linalg.norm(rest)
        if size > _INDEPENDENT * np.linalg.norm(vector):
            needed.append(column)
            directions = np.column_stack([directions, rest / size])
    solution = np.zeros(matrix.shape[1])
    solution[needed] = np.linalg.lstsq(matrix[:, needed], wishes * weights, rcond=None)[0]
    return solution
