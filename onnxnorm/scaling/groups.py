"""From constraints to groups: which slots share a scale, and which of those are pinned to 1.

Ties are edges; connected components are the groups. A product `c = a * b` of scales becomes a tie as soon as one factor
is known to be 1, and two factors that must be equal (`x * x`) are pinned. Pins only grow and ties only merge, so the
rounds below end.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from onnxnorm.scaling.slots import ZERO, Barrier, Ids, Slots

__all__ = ["Groups", "solve"]


@dataclass(frozen=True)
class Groups:
    """`of[slot]` is the slot's group; `pinned[group]` is the index of the barrier that pins it, or -1."""

    of: NDArray[np.int64]
    pinned: NDArray[np.int64]
    barriers: tuple[Barrier, ...]
    pins: tuple[tuple[Ids, int], ...]

    @property
    def count(self) -> int:
        """Number of groups."""
        return len(self.pinned)

    def is_pinned(self, slots: Ids) -> NDArray[np.bool_]:
        """Whether each slot must keep scale 1."""
        return (self.pinned[self.of[slots]] >= 0) | (slots == ZERO)

    def reasons(self, slots: Ids) -> list[Barrier]:
        """Why these slots are pinned: the first barrier of each group among them, without repeats."""
        indices = self.pinned[self.of[slots[slots != ZERO]]]
        return list(dict.fromkeys(self.barriers[index] for index in indices.tolist() if index >= 0))


def solve(slots: Slots) -> Groups:
    """Solve the constraints."""
    ties, pins, products = list(slots.ties), list(slots.pins), list(slots.products)
    while True:
        of = _components(slots.count, ties)
        pinned = _pinned(of, pins)
        steps = [(_decide(triple, of, pinned), barrier) for triple, barrier in products]
        products = [(step.rest, barrier) for step, barrier in steps if step.rest.size]
        ties.extend(tie for step, _ in steps for tie in step.ties)
        new_pins = [(ids, barrier) for step, barrier in steps for ids in step.pins]
        if not new_pins and not any(step.ties for step, _ in steps):
            if not products:
                return Groups(of, pinned, tuple(slots.barriers), tuple(pins))
            new_pins = [(np.unique(triple[2]), barrier) for triple, barrier in products]
        pins.extend(new_pins)


@dataclass(frozen=True)
class _Step:
    """What follows from a product now: ties, pins, and the triples that are still open."""

    ties: list[Ids]
    pins: list[Ids]
    rest: Ids


def _decide(triple: Ids, of: NDArray[np.int64], pinned: NDArray[np.int64]) -> _Step:
    """Look at `c = a * b`, slots `(3, n)`, with what is known of their groups."""
    c, a, b = of[triple]
    one_c, one_a, one_b = (pinned[group] >= 0 for group in (c, a, b))
    decided = one_a | one_b
    ties = [triple[[0, 2]][:, one_a], triple[[0, 1]][:, one_b]]
    # c = a leaves b = 1, c = b leaves a = 1; of a square, and of a product that must be 1, nothing else is left.
    pins = [triple[1, ~decided & ((c == b) | (a == b))], triple[2, ~decided & ((c == a) | one_c)]]
    return _Step([tie for tie in ties if tie.size], [np.unique(ids) for ids in pins if ids.size], triple[:, ~decided])


def _components(count: int, ties: list[Ids]) -> NDArray[np.int64]:
    pairs = np.concatenate(ties, axis=1) if ties else np.empty((2, 0), np.int64)
    graph = coo_array((np.ones(pairs.shape[1], np.int8), (pairs[0], pairs[1])), shape=(count, count))
    return connected_components(graph, directed=False)[1].astype(np.int64)


def _pinned(of: NDArray[np.int64], pins: list[tuple[Ids, int]]) -> NDArray[np.int64]:
    pinned = np.full(int(of.max()) + 1, -1, np.int64)
    for ids, barrier in reversed(pins):
        pinned[of[ids]] = barrier
    return pinned
