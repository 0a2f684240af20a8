"""Many arrays of columns as one, so that thousands of nodes cost a few operations of NumPy and not one each.

What a walk finds at each node, a pair of slots for every channel, say, is an array `(rows, n)`. Those of all nodes are
put side by side, and a second array tells which of them each column came from: its *number*. Numbers ascend.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnxnorm.scaling.slots import Ids

__all__ = ["Columns", "bundled", "distinct_of_each", "gathered"]

Columns = tuple[Ids, Ids]


def gathered(parts: Sequence[tuple[int, Ids]], rows: int = 2) -> Columns:
    """Columns of arrays `(rows, n)` side by side, and the number of each."""
    numbers = [np.full(columns.shape[1], number) for number, columns in parts]
    return (
        np.concatenate([np.empty((rows, 0), np.int64), *(columns for _, columns in parts)], axis=1),
        np.concatenate([np.empty(0, np.int64), *numbers]),
    )


def bundled(parts: Sequence[tuple[int, Ids]]) -> list[Columns]:
    """The same for arrays of different numbers of rows: one bundle for each of these."""
    heights = sorted({len(columns) for _, columns in parts})
    return [gathered([part for part in parts if len(part[1]) == rows], rows) for rows in heights]


def distinct_of_each(pairs: Ids, numbers: Ids) -> Columns:
    """The distinct columns of each number, in the order of their elements, from pairs `(2, n)`.

    Most are in order already: then the first elements ascend.
    """
    left, right = pairs
    again = numbers[1:] == numbers[:-1]
    mixed = np.unique(numbers[1:][again & (left[1:] <= left[:-1])])
    if not mixed.size:
        return pairs, numbers
    unsorted = np.isin(numbers, mixed)
    order = np.flatnonzero(unsorted)
    order = order[np.lexsort((right[order], left[order], numbers[order]))]
    changes = np.ones(len(order), np.bool_)
    changes[1:] = False
    for values in (left, right, numbers):
        changes[1:] |= values[order[1:]] != values[order[:-1]]
    columns = np.concatenate([np.flatnonzero(~unsorted), order[changes]])
    columns = columns[np.argsort(numbers[columns], kind="stable")]
    return pairs[:, columns], numbers[columns]
