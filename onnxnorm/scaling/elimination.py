"""Exact elimination for a sparse homogeneous system of linear equations, one equation at a time.

Every variable is either *unknown* or *determined*: then it is a combination of unknowns. An equation is first written
in unknowns. If nothing is left, it holds already. If one unknown is left, that is 0. Otherwise one unknown becomes
determined by the others and is replaced wherever it occurs, so that combinations consist of unknowns at all times
(Gauss-Jordan elimination). The unknown that occurs least is replaced, as in union-find, so that a long chain of
equations between two variables costs little; of several, the one with the largest number. Coefficients are integers or
fractions: nothing is rounded.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from fractions import Fraction

__all__ = ["Number", "Row", "System"]

Number = int | Fraction
Row = dict[int, Number]


class System:
    """Variables that are combinations of unknowns.

    Attributes:
        rows: the combination of each determined variable; empty for one that is 0.
    """

    def __init__(self) -> None:
        self.rows: dict[int, Row] = {}
        self._users: dict[int, set[int]] = {}  # the determined variables whose rows contain an unknown

    def of(self, variable: int) -> Mapping[int, Number]:
        """A variable as a combination of unknowns."""
        return self.rows.get(variable, {variable: 1})

    def reduced(self, equation: Mapping[int, Number]) -> Row:
        """The left side of an equation, written in unknowns."""
        row: Row = {}
        for variable, factor in equation.items():
            _add(row, self.of(variable), factor)
        return row

    def difference(self, a: int, b: int) -> Row:
        """One variable less another, written in unknowns."""
        if a not in self.rows and b not in self.rows:
            return {a: 1, b: -1} if a != b else {}
        row = dict(self.of(a))
        _add(row, self.of(b), -1)
        return row

    def demand(self, row: Mapping[int, Number], keep: Collection[int] = ()) -> list[int]:
        """Demand that a combination of unknowns is 0.

        Args:
            row: the combination, as `reduced` returns it.
            keep: unknowns to keep unknown where another can be replaced.

        Returns:
            The variables that have become 0 by this.
        """
        if not row:
            return []
        if len(row) == 1:
            return self.determine(next(iter(row)), {})
        pivot = self._pivot(row, keep)
        scale = row[pivot]
        return self.determine(pivot, {k: _divided(-factor, scale) for k, factor in row.items() if k != pivot})

    def _pivot(self, row: Mapping[int, Number], keep: Collection[int]) -> int:
        """The unknown to replace. Most that are new occur nowhere: of these the one with the largest number."""
        users = self._users
        fresh = [k for k in row if not users.get(k) and k not in keep and row[k] in (1, -1)]
        if fresh:
            return max(fresh)
        return min(row, key=lambda k: (k in keep, row[k] not in (1, -1), len(users.get(k, ())), -k))

    def determine(self, unknown: int, row: Row) -> list[int]:
        """Replace an unknown by a combination of others; returns the variables that have become 0 by this."""
        zero = [] if row else [unknown]
        for user in self._users.pop(unknown, ()):
            combination = self.rows[user]
            factor = combination.pop(unknown)
            for k in _add(combination, row, factor):
                self._users[k].discard(user)
            for k in row:
                if k in combination:
                    self._users.setdefault(k, set()).add(user)
            if not combination:
                zero.append(user)
        self.rows[unknown] = row
        for k in row:
            self._users.setdefault(k, set()).add(unknown)
        return zero


def _add(row: Row, other: Mapping[int, Number], factor: Number) -> list[int]:
    """Add a multiple of another row, in place; returns the unknowns that are gone by this."""
    gone = []
    for k, value in other.items():
        total = row.get(k, 0) + factor * value
        if total:
            row[k] = total
        elif k in row:
            del row[k]
            gone.append(k)
    return gone


def _divided(a: Number, b: Number) -> Number:
    if b in (1, -1):
        return a * b
    quotient = Fraction(a) / Fraction(b)
    return int(quotient) if quotient.denominator == 1 else quotient
