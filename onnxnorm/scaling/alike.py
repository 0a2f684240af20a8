"""Parts of a system of equations that look alike, so that each kind is solved once and not for every channel.

Variables that no chain of equations connects have nothing to do with each other. Two *components* are alike if they
have the same equations in the same order between variables in the same order. Then whatever is concluded of one by
rules that look at no more than this holds of the other, and numbers of variables are all that differs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnxnorm.scaling.columns import Columns
from onnxnorm.scaling.components import components
from onnxnorm.scaling.slots import Ids

__all__ = ["Likeness", "find_likeness"]


@dataclass(frozen=True)
class Likeness:
    """The components of a system, and which of them are alike.

    Attributes:
        component: the component of every variable, shape `(variables,)`; one that connects nothing has one of its own.
        members: all variables in the order of their components, and ascending in each.
        starts: where each component starts there, shape `(components + 1,)`.
        first: for each component the first one that is like it, shape `(components,)`.
    """

    component: Ids
    members: Ids
    starts: Ids
    first: Ids

    @property
    def chosen(self) -> NDArray[np.bool_]:
        """Marks the variables of the first component of each kind, shape `(variables,)`."""
        return np.asarray((self.first == np.arange(len(self.first)))[self.component], np.bool_)

    def copies(self) -> list[tuple[Ids, Ids]]:
        """The variables of a first component, and those of one that is like it, one to one; for each such pair."""
        others = np.flatnonzero(self.first != np.arange(len(self.first)))
        return [
            (self._of(int(first)), self._of(int(other)))
            for first, other in zip(self.first[others], others, strict=True)
        ]

    def _of(self, component: int) -> Ids:
        return self.members[self.starts[component] : self.starts[component + 1]]


def find_likeness(fixed: NDArray[np.bool_], equations: Sequence[Columns]) -> Likeness:
    """Find the components of a system that are alike.

    Args:
        fixed: marks the variables that connect nothing and look alike, shape `(variables,)`.
        equations: bundles of equations: their variables `(terms, n)`, and numbers `(n,)` that tell what kind of
            equation each is, and order them. Those of one number are in one bundle.
    """
    count = len(fixed)
    number, equation, term, variable = _entries(equations)
    total = count + int(equation.max(initial=-1)) + 1
    holds = ~fixed[variable]
    label = components(total, np.stack([variable[holds], count + equation[holds]]))
    known, component = np.unique(label[:count], return_inverse=True)
    members = np.argsort(component, kind="stable")
    starts = np.searchsorted(component[members], np.arange(len(known) + 1))
    place = np.empty(count, np.int64)
    place[members] = np.arange(count) - starts[component[members]]
    place[fixed] = -1
    at = label[count + equation]
    order = np.lexsort((term, equation, number, at))
    order = order[np.isin(at[order], known)]  # equations of fixed variables alone say nothing
    kinds = np.stack([number, place[variable]], axis=1)[order]
    return Likeness(component, members, starts, _first_alike(kinds, np.searchsorted(known, at[order]), len(known)))


def _entries(equations: Sequence[Columns]) -> Ids:
    """For every term of every equation its number, the equation, the place of the term, and the variable."""
    parts, start = [np.empty((4, 0), np.int64)], 0
    for columns, numbers in equations:
        own = start + np.arange(len(numbers))
        parts += [np.stack([numbers, own, np.full_like(own, k), row]) for k, row in enumerate(columns)]
        start += len(numbers)
    return np.concatenate(parts, axis=1)


def _first_alike(kinds: Ids, component: Ids, count: int) -> Ids:
    """For each of `count` components the first one with the same rows of `kinds`; without rows, itself."""
    first = np.arange(count)
    some, starts = np.unique(component, return_index=True)
    seen: dict[bytes, int] = {}
    stops = np.append(starts[1:], len(kinds))[: len(some)]
    for one, start, stop in zip(some.tolist(), starts.tolist(), stops.tolist(), strict=True):
        first[one] = seen.setdefault(kinds[start:stop].tobytes(), one)
    return first
