"""From constraints to groups: which slots share a scale, which are pinned to 1, and what the others depend on.

In logarithms, `x = log(scale)`, every constraint is a linear equation: a tie is `x_a = x_b`, a pin `x_a = 0`, a product
of two values `x_c = x_a + x_b`, a power `x_c = k x_a`. Ties are the edges of a graph of slots, and its connected
components are the groups. Most relations of more terms become ties or pins as soon as pinned terms are left out. What
remains is eliminated exactly (`elimination`), once for all channels that look alike (`alike`), so that at the end every
group is a combination of *unknowns*, which may have any value::

    x = B u

Groups that are the same combination are one group, and a group that is no combination of anything is pinned. Without
relations, B is a selection: every group that is not pinned has an unknown of its own. Coefficients are integers, so if
all unknowns are integers (exponents of powers of two), then so are the logarithms of all groups.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from typing import Any

import numpy as np
import scipy
from numpy.typing import NDArray

from onnxnorm.scaling.alike import Likeness, find_likeness
from onnxnorm.scaling.columns import bundled
from onnxnorm.scaling.components import components
from onnxnorm.scaling.elimination import Number, Row, System
from onnxnorm.scaling.slots import ZERO, Barrier, Ids, Relation, Slots

__all__ = ["Groups", "solve", "tied"]

# A relation that would depend on more unknowns than this pins all of them, so that long chains of products stay cheap.
_MOST_TERMS = 64
# So does one with a larger power: a channel that is squared so often has no scale but 1 that keeps it a number.
_LARGEST_POWER = 1 << 16


@dataclass(frozen=True)
class Groups:
    """Groups of slots; the slots of one group share one scale.

    Attributes:
        of: the group of every slot, shape `(slots,)`.
        pinned: index of the barrier that pins each group, or -1; shape `(groups,)`.
        barriers: all barriers of the walk.
        pins: slots that are pinned, each array with the index of its barrier.
        entries: of the matrix B: the group, the unknown and the integer of each, shape `(3, n)`.
        unknowns: for each unknown a group that is a multiple of it, shape `(unknowns,)`; and that multiple.
    """

    of: NDArray[np.int64]
    pinned: NDArray[np.int64]
    barriers: tuple[Barrier, ...]
    pins: tuple[tuple[Ids, int], ...]
    entries: NDArray[np.int64] = field(repr=False)
    unknowns: tuple[NDArray[np.int64], NDArray[np.int64]] = field(repr=False)

    @cached_property
    def basis(self) -> scipy.sparse.csr_array:
        """The matrix B of integers, shape `(groups, unknowns)`."""
        groups, unknowns, factors = self.entries
        return scipy.sparse.csr_array((factors, (groups, unknowns)), shape=(self.count, len(self.unknowns[0])))

    def at(self, logs: NDArray[Any]) -> NDArray[Any]:
        """Logarithms of the scales of all groups, `(groups,)`, from the unknowns, `(unknowns,)`, of any number type."""
        return np.asarray(self.basis @ logs, logs.dtype)

    def unknown(self, logs: NDArray[np.float64]) -> NDArray[np.float64]:
        """The unknowns, `(unknowns,)`, from logarithms of the scales of all groups, `(groups,)`."""
        groups, multiples = self.unknowns
        return np.asarray(logs[groups] / multiples, np.float64)

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
    """Solve the constraints of a walk: ties, pins and relations."""
    ties, pins = list(slots.ties), list(slots.pins)
    relations = list(slots.relations)
    for _ in range(2):  # in most products a factor is pinned: a gate
        of = tied(slots.count, ties)
        pinned = _pinned(of, pins)
        relations = [rest for relation in relations for rest in _simplified(relation, of, pinned, ties, pins)]
    of = tied(slots.count, ties)
    pinned = _pinned(of, pins)
    if not relations:
        return Groups(of, pinned, tuple(slots.barriers), tuple(pins), *_basis({}, np.arange(len(pinned)), pinned))
    combinations, zero = _eliminated(relations, of, pinned)
    first = np.asarray(np.unique(of, return_index=True)[1], np.int64)
    pins += [(first[np.asarray(sorted(gone), np.int64)], barrier) for barrier, gone in zero.items()]
    label, rows = _labels(combinations, len(pinned))
    merged, of = np.unique(label[of], return_inverse=True)
    pinned = _pinned(of, pins)
    return Groups(of.astype(np.int64), pinned, tuple(slots.barriers), tuple(pins), *_basis(rows, merged, pinned))


def _simplified(
    relation: Relation,
    of: NDArray[np.int64],
    pinned: NDArray[np.int64],
    ties: list[Ids],
    pins: list[tuple[Ids, int]],
) -> list[Relation]:
    """A relation without the columns in which terms that are not pinned make a tie or a pin; those are added instead.

    Terms of one group are not added up here, so the caller must not rely on all ties being found.
    """
    free = pinned[of[relation.slots]] < 0
    terms = free.sum(axis=0)
    factors = np.asarray([float(factor) for factor in relation.factors])
    for one in np.flatnonzero(free.any(axis=1)).tolist():
        alone = free[one] & (terms == 1)
        if alone.any():
            pins.append((np.unique(relation.slots[one, alone]), relation.barrier))
    for one, other in ((i, j) for j in range(len(factors)) for i in range(j) if factors[i] == -factors[j]):
        two = free[one] & free[other] & (terms == 2)
        if two.any():
            ties.append(relation.slots[[one, other]][:, two])
            terms[two] = 0
    rest = terms > 1
    return [Relation(relation.slots[:, rest], relation.factors, relation.barrier)] if rest.any() else []


def _eliminated(
    relations: list[Relation], of: NDArray[np.int64], pinned: NDArray[np.int64]
) -> tuple[dict[int, Row], dict[int, set[int]]]:
    """The combination of each group that is one, and the groups that turn out to be 0, by the barrier that is why.

    Components of groups that look alike have the same combinations: those of the first are copied.
    """
    system, zero = System(), dict[int, set[int]]()
    system.rows.update((group, {}) for group in np.flatnonzero(pinned >= 0).tolist())
    bundles = bundled([(k, of[relation.slots]) for k, relation in enumerate(relations)])
    likeness = find_likeness(pinned >= 0, bundles)
    chosen = likeness.chosen | (pinned >= 0)
    for relation in relations:
        columns = of[relation.slots]
        for column in columns[:, chosen[columns].all(axis=0)].T.tolist():
            equation: dict[int, Number] = {}
            for group, factor in zip(column, relation.factors, strict=True):
                equation[group] = equation.get(group, 0) + factor
            row = system.reduced(equation)
            demands = [row] if _is_cheap(row) else [{unknown: 1} for unknown in row]
            for demand in demands:
                gone = system.demand(demand)
                if gone:
                    zero.setdefault(relation.barrier, set()).update(gone)
    for group in list(system.rows):  # what was cheap can have grown since
        for unknown in [] if _is_cheap(system.rows[group]) else list(system.rows[group]):
            zero.setdefault(relations[-1].barrier, set()).update(system.demand({unknown: 1}))
    return _copied(system.rows, zero, likeness)


def _copied(
    rows: dict[int, Row], zero: dict[int, set[int]], likeness: Likeness
) -> tuple[dict[int, Row], dict[int, set[int]]]:
    """The same for all components, from the first of those that look alike."""
    why = {group: barrier for barrier, gone in zero.items() for group in gone}
    for one, other in likeness.copies():
        known = dict(zip(one.tolist(), other.tolist(), strict=True))
        for group, copy in known.items():
            if group in rows:
                rows[copy] = {known[k]: factor for k, factor in rows[group].items()}
            if group in why:
                zero[why[group]].add(copy)
    return rows, zero


def _is_cheap(row: Row) -> bool:
    powers = (max(abs(factor.numerator), factor.denominator) for factor in row.values())
    return len(row) <= _MOST_TERMS and max(powers, default=0) <= _LARGEST_POWER


def _labels(combinations: dict[int, Row], count: int) -> tuple[NDArray[np.int64], dict[int, Row]]:
    """One group to stand for those that are the same combination, shape `(groups,)`; and the combination of each.

    Groups that are pinned stand for themselves, each with its own reason.
    """
    label, rows = np.arange(count), dict[int, Row]()
    same: dict[tuple[tuple[int, Number], ...], int] = {}
    for group, row in combinations.items():
        if len(row) == 1 and next(iter(row.values())) == 1:
            label[group] = next(iter(row))
        elif row:
            label[group] = same.setdefault(tuple(sorted(row.items())), group)
            rows[int(label[group])] = row
    return label, rows


def _basis(
    rows: dict[int, Row], names: NDArray[np.int64], pinned: NDArray[np.int64]
) -> tuple[NDArray[np.int64], tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Entries of B for groups that rows know as `names`, `(groups,)`; and of each unknown the group and the multiple.

    A group without a row is an unknown, times the common denominator of all that depends on it.
    """
    known = np.isin(names, np.fromiter(rows, np.int64, len(rows)))
    own = np.flatnonzero((pinned < 0) & ~known)
    column = dict(zip(names[own].tolist(), range(len(own)), strict=True)) if rows else {}
    multiples = np.ones(len(own), np.int64)
    for row in rows.values():
        for unknown, factor in row.items():
            place = column[unknown]
            multiples[place] = math.lcm(int(multiples[place]), Fraction(factor).denominator)
    others = [
        (index, column[unknown], int(factor * int(multiples[column[unknown]])))
        for index, group in zip(np.flatnonzero(known).tolist(), names[known].tolist(), strict=True)
        for unknown, factor in rows[group].items()
    ]
    of_rows = np.asarray(others, np.int64).reshape(-1, 3)
    entries = np.concatenate([np.stack([own, np.arange(len(own)), multiples], axis=1), of_rows]).T
    return entries, (own, multiples)


def tied(count: int, ties: Sequence[Ids]) -> NDArray[np.int64]:
    """The group that each of `count` slots is in, shape `(count,)`; a tie is an array of pairs `(2, n)`."""
    return components(count, np.concatenate([np.empty((2, 0), np.int64), *ties], axis=1))


def _pinned(of: NDArray[np.int64], pins: list[tuple[Ids, int]]) -> NDArray[np.int64]:
    pinned = np.full(int(of.max()) + 1, -1, np.int64)
    for ids, barrier in reversed(pins):
        pinned[of[ids]] = barrier
    return pinned
