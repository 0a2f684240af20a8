"""Which filters have a scale of their own.

The logarithms of the filters' scales are combinations of unknowns, the rows of a matrix. A filter's scale can be chosen
whatever those of all others are if its row is in no linear dependency between rows. Rows are added one at a time to an
elimination that expresses unknowns by filters. A row that can be written in filters alone depends on those, and they on
it (they are a circuit of the matroid of rows); every dependency is found in this way.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from onnxnorm.scaling.elimination import Number, System
from onnxnorm.scaling.filters import Layer
from onnxnorm.scaling.groups import Groups
from onnxnorm.scaling.walk import Trace

__all__ = ["count_exact", "shared_groups"]


def shared_groups(trace: Trace, layers: Sequence[Layer], *, sites: bool = False) -> NDArray[np.bool_]:
    """Which groups have the scale of a filter that depends on those of other filters, shape `(groups,)`.

    Args:
        trace: a walk.
        layers: its layers of filters.
        sites: count filters that are measured at the same place as one.
    """
    distinct = {layer.site if sites else index: layer for index, layer in enumerate(layers)}
    of = [trace.groups.of[layer.slots] for layer in distinct.values()]
    members = np.bincount(np.concatenate([np.empty(0, np.int64), *of]), minlength=trace.groups.count)
    shared = (members > 1) & (trace.groups.pinned < 0)
    shared[_dependent(trace.groups, np.flatnonzero(members))] = True
    return shared


def count_exact(trace: Trace, layers: Sequence[Layer]) -> int:
    """The number of filters that have a scale of their own, at the place where they are measured."""
    shared = shared_groups(trace, layers, sites=True)
    free = (~shared & (trace.groups.pinned < 0))[trace.groups.of]
    return sum(int(free[layer.slots].sum()) for layer in layers)


def _dependent(groups: Groups, wished: NDArray[np.int64]) -> list[int]:
    """Those of some groups, `(n,)`, whose scales depend on each other."""
    rows = groups.basis[wished]
    used = np.bincount(rows.indices, minlength=groups.basis.shape[1])
    entangled = np.flatnonzero((np.diff(rows.indptr) > 1) | (abs(rows) @ (used > 1) > 0))
    system, found = System(), set[int]()
    for place in entangled.tolist():
        group = int(wished[place])
        part = slice(rows.indptr[place], rows.indptr[place + 1])
        equation: dict[int, Number] = {~group: -1}  # filters are negative numbers, unknowns the others
        equation |= dict(zip(rows.indices[part].tolist(), rows.data[part].tolist(), strict=True))
        row = system.reduced(equation)
        if all(variable < 0 for variable in row):
            found.update(~variable for variable in row)
        else:
            system.demand(row, keep={variable for variable in row if variable < 0})
    return sorted(found)
