"""From constraints to groups: which slots share a scale, and which of those are pinned to 1.

Ties are the edges of a graph of slots, and its connected components are the groups. A product `c = a * b` of scales
becomes a tie as soon as one factor is known to be 1, and two factors that must be equal (`x * x`) are pinned. Pins are
only added and groups only merged, so the result does not depend on the order in which products are examined.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from onnxnorm.scaling.slots import ZERO, Barrier, Ids, Slots

__all__ = ["Groups", "solve"]


@dataclass(frozen=True)
class Groups:
    """Groups of slots; the slots of one group share one scale.

    Attributes:
        of: the group of every slot, shape `(slots,)`.
        pinned: index of the barrier that pins each group, or -1; shape `(groups,)`.
        barriers: all barriers of the walk.
        pins: slots that are pinned, each array with the index of its barrier.
    """

    of: NDArray[np.int64]
    pinned: NDArray[np.int64]
    barriers: tuple[Barrier, ...]
    pins: tuple[tuple[Ids, int], ...]

    @property
    def count(self) -> int:
        """Number of groups."""
        return len(self.pinned)

    def is_pinned(self, slots: Ids) -> NDArray[np.bool_]:
        """Whether each slot must keep scale 1; same shape as `slots`. Zeros are counted as pinned."""
        return np.asarray((self.pinned[self.of[slots]] >= 0) | (slots == ZERO))

    def reasons(self, slots: Ids) -> list[Barrier]:
        """Why these slots are pinned: the first barrier of each of their groups, without duplicates."""
        indices = self.pinned[self.of[slots[slots != ZERO]]]
        return list(dict.fromkeys(self.barriers[index] for index in indices.tolist() if index >= 0))


def solve(slots: Slots) -> Groups:
    """Solve the constraints of a walk: ties, pins and products."""
    of = _components(slots.count, slots.ties)
    pinned = _pinned(of, slots.pins)
    if not slots.products:
        return Groups(of, pinned, tuple(slots.barriers), tuple(slots.pins))
    ties, products = list(slots.ties), []
    for triple, barrier in slots.products:  # in most products a factor is pinned already: a gate
        _, one_a, one_b = pinned[of[triple]] >= 0
        ties += [triple[[0, 2]][:, one_a], triple[[0, 1]][:, one_b]]
        products.append((triple[:, ~(one_a | one_b)], barrier))
    of = _components(slots.count, ties)
    closure = _Closure(of, _pinned(of, slots.pins), products)
    of = closure.solve()
    pins = [*slots.pins, *((np.unique(ids), barrier) for barrier, ids in closure.pins.items())]
    return Groups(of, _pinned(of, pins), tuple(slots.barriers), tuple(pins))


class _Closure:
    """The consequences of products `c = a * b`. A product is examined again when one of its groups has changed.

    Groups are merged as in union-find, and the shorter list of their products is appended to the longer one, so that a
    long chain of products costs little more than as many short ones.
    """

    def __init__(self, of: NDArray[np.int64], pinned: NDArray[np.int64], products: list[tuple[Ids, int]]) -> None:
        self.pins: dict[int, list[int]] = {}
        self._of = of
        self._parent = list(range(len(pinned)))
        self._one: list[bool] = (pinned >= 0).tolist()
        self._products = [(triple, barrier) for triples, barrier in products for triple in triples.T.tolist()]
        self._open = dict.fromkeys(range(len(self._products)))
        self._queue = deque(self._open)
        self._watchers: dict[int, list[int]] = {}
        for index, (triple, _) in enumerate(self._products):
            for group in {*of[triple].tolist()}:
                self._watchers.setdefault(group, []).append(index)

    def solve(self) -> NDArray[np.int64]:
        """The group of every slot, shape `(slots,)`. In products that nothing else decides, b is pinned."""
        self._follow()
        for index in list(self._open):
            self._pin(index, 2)
        self._follow()
        roots = np.asarray([self._root(group) for group in range(len(self._parent))], np.int64)
        return np.unique(roots, return_inverse=True)[1][self._of].astype(np.int64)

    def _follow(self) -> None:
        while self._queue:
            index = self._queue.popleft()
            if index in self._open:
                self._decide(index)

    def _decide(self, index: int) -> None:
        c, a, b = (self._root(int(self._of[slot])) for slot in self._products[index][0])
        if self._one[a] or self._one[b]:
            del self._open[index]
            if self._one[a]:
                self._unite(c, b)
            if self._one[b]:
                self._unite(self._root(c), self._root(a))
            return
        # c = a implies b = 1, and c = b implies a = 1. In squares and in products that must be 1, both factors are 1.
        if b in {a, c}:
            self._pin(index, 1)
        if c == a or self._one[c]:
            self._pin(index, 2)

    def _pin(self, index: int, factor: int) -> None:
        triple, barrier = self._products[index]
        self.pins.setdefault(barrier, []).append(triple[factor])
        group = self._root(int(self._of[triple[factor]]))
        if not self._one[group]:
            self._one[group] = True
            self._queue.extend(self._watchers.get(group, ()))

    def _unite(self, a: int, b: int) -> None:
        a, b = sorted((self._root(a), self._root(b)), key=lambda group: len(self._watchers.get(group, ())))
        if a == b:
            return
        few, many = self._watchers.pop(a, []), self._watchers.setdefault(b, [])
        self._queue.extend(few)
        if self._one[a] and not self._one[b]:
            self._queue.extend(many)
        self._one[b] |= self._one[a]
        self._parent[a] = b
        many.extend(few)

    def _root(self, group: int) -> int:
        while self._parent[group] != group:
            self._parent[group] = self._parent[self._parent[group]]
            group = self._parent[group]
        return group


def _components(count: int, ties: list[Ids]) -> NDArray[np.int64]:
    pairs = np.concatenate(ties, axis=1) if ties else np.empty((2, 0), np.int64)
    graph = coo_array((np.ones(pairs.shape[1], np.int8), (pairs[0], pairs[1])), shape=(count, count))
    return connected_components(graph, directed=False)[1].astype(np.int64)


def _pinned(of: NDArray[np.int64], pins: list[tuple[Ids, int]]) -> NDArray[np.int64]:
    pinned = np.full(int(of.max()) + 1, -1, np.int64)
    for ids, barrier in reversed(pins):
        pinned[of[ids]] = barrier
    return pinned
