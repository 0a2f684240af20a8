"""Slots, and the constraints that laws put on them.

Ids are int64 arrays of slots that broadcast against the value they belong to. Slot `ZERO` marks elements that are zero
for every input (padding). Zero agrees with any scale, so ties and pins ignore it.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from onnxnorm.errors import ModelError
from onnxnorm.model.constants import Constant
from onnxnorm.model.graph import Reader

__all__ = [
    "ZERO",
    "Barrier",
    "Edit",
    "Ids",
    "Relation",
    "Slots",
    "Term",
    "at_rank",
    "distinct",
    "distinct_columns",
    "is_ascending",
    "squeezed",
    "together",
]

Ids = NDArray[np.int64]
Term = tuple[int | Fraction, Ids]
Number = TypeVar("Number", bound=np.generic)

ZERO = 0


class Barrier(NamedTuple):
    """Where scales must stay 1, and why: the node, its operator, the value that is pinned there, and the reason."""

    node: str
    op: str
    value: str
    reason: str


@dataclass(frozen=True)
class Edit:
    """How a constant follows the scales, for one of its readers: `new = old * scale[times] / scale[over]`.

    `times` and `over` broadcast against the constant's shape; None means 1. `bounds` tells that the constant is a
    bound, which stays at the largest number of its type where it would pass it.
    """

    constant: Constant
    reader: Reader
    times: Ids | None = field(repr=False, default=None)
    over: Ids | None = field(repr=False, default=None)
    bounds: bool = False
    demanded: Edit | None = field(repr=False, default=None)

    @property
    def as_read(self) -> Edit:
        """The edit of the constant that the node reads, where this one is of a stored constant behind other nodes."""
        return self.demanded or self

    def slots(self) -> Ids:
        """The distinct slots that the constant depends on, one-dimensional."""
        parts = [ids.reshape(-1) for ids in (self.times, self.over) if ids is not None]
        return np.unique(np.concatenate(parts)) if parts else np.empty(0, np.int64)


@dataclass(frozen=True)
class Relation:
    """The product of powers of scales that is 1: `sum over k of factors[k] * log(scale[slots[k, i]]) = 0` for every i.

    Attributes:
        slots: shape `(terms, n)`.
        factors: one number per term.
        barrier: index of the barrier that applies to slots that are pinned because of this.
    """

    slots: Ids
    factors: tuple[int | Fraction, ...]
    barrier: int


@dataclass
class Slots:
    """All slots of a walk and the constraints between them. Slots and constraints are only added, never removed.

    Attributes:
        count: number of slots, `ZERO` included.
        most: how many there may be.
        ties: pairs of slots that share a scale, arrays of shape `(2, n)`.
        pins: slots that keep scale 1, arrays of shape `(n,)`, each with the index of its barrier.
        relations: between the scales of products, quotients and powers.
        barriers: the barriers that pins and relations refer to.
    """

    count: int = 1
    most: int = sys.maxsize
    ties: list[Ids] = field(default_factory=list)
    pins: list[tuple[Ids, int]] = field(default_factory=list)
    relations: list[Relation] = field(default_factory=list)
    barriers: list[Barrier] = field(default_factory=list)

    def fresh(self, *shape: int) -> Ids:
        """New slots in an array of this shape. Raises ModelError if these are too many."""
        size = math.prod(shape)
        if self.count + size > self.most:
            raise ModelError(
                f"the graph has more than {self.most:,} channels, but few weights; export it with all of them stored"
            )
        ids = np.arange(self.count, self.count + size, dtype=np.int64).reshape(shape)
        self.count += size
        return ids

    def tie(self, a: Ids, b: Ids) -> None:
        """Demand one scale wherever elements meet when the two are broadcast. Raises ModelError if they cannot be."""
        if a is b:
            return
        try:
            pairs = (a * self.count + b).reshape(-1)
        except ValueError:
            raise ModelError(f"values of shapes that do not fit meet ({a.shape} and {b.shape} scales)") from None
        if not is_ascending(pairs):
            runs = np.flatnonzero(pairs[1:] != pairs[:-1])  # the positions of a channel have the same slots
            pairs = pairs[np.append(runs, len(pairs) - 1)]
            pairs = pairs if is_ascending(pairs) else np.unique(pairs)
        ends = np.array(np.divmod(pairs, self.count))
        apart = (ends[0] != ends[1]) & (ends != ZERO).all(axis=0)
        if apart.any():
            self.ties.append(ends if apart.all() else ends[:, apart])

    def pin(self, ids: Ids, barrier: Barrier) -> None:
        """Demand that these slots keep scale 1."""
        pinned = distinct(ids)
        if pinned.size:
            self.pins.append((pinned, len(self.barriers)))
            self.barriers.append(barrier)

    def relate(self, terms: Sequence[Term], barrier: Barrier) -> None:
        """Demand that the product of `scale ** factor` over all terms `(factor, slots)` is 1, wherever elements meet.

        `barrier` is the reason if slots must keep scale 1 because of this. Elements that are zero demand nothing.
        """
        columns = np.array([ids.reshape(-1) for ids in together(*(ids for _, ids in terms))])
        held = (columns != ZERO).all(axis=0)
        columns = distinct_columns(columns if held.all() else columns[:, held])
        if columns.size:
            self.relations.append(Relation(columns, tuple(factor for factor, _ in terms), len(self.barriers)))
            self.barriers.append(barrier)


def together(*arrays: Ids) -> Sequence[Ids]:
    """Arrays broadcast against each other, for reading. Raises ValueError if they do not fit."""
    shape = arrays[0].shape
    return arrays if all(array.shape == shape for array in arrays[1:]) else np.broadcast_arrays(*arrays)


def distinct(ids: Ids) -> Ids:
    """The distinct slots of an array, in ascending order, without `ZERO`."""
    flat = ids.reshape(-1)
    if flat.size and flat[0] > ZERO and (flat.size == 1 or is_ascending(flat)):
        return flat
    largest = int(ids.max(initial=0))
    if ids.size <= 1 or ids.size < largest // 16:  # sorting few ids is cheaper than marking them among many
        unique: Ids = np.unique(ids[ids != ZERO])
        return unique
    seen = np.zeros(largest + 1, np.bool_)
    seen[ids] = True
    seen[ZERO] = False
    return np.flatnonzero(seen)


def distinct_columns(columns: Ids) -> Ids:
    """The distinct columns of an array `(n, m)`, in the order of their first elements."""
    return columns if is_ascending(columns[0]) else np.unique(columns, axis=1)


def is_ascending(ids: Ids) -> bool:
    """Whether every id is larger than the one before, as most are that a walk makes: there is nothing to sort then."""
    return len(ids) < 2 or bool((ids[1:] > ids[:-1]).all())


def at_rank(array: NDArray[Number], rank: int) -> NDArray[Number]:
    """The same array with as many axes: leading axes of size 1 are added, as in broadcasting, or dropped."""
    if array.ndim == rank:
        return array
    if array.ndim > rank and all(size == 1 for size in array.shape[: array.ndim - rank]):
        return array.reshape(array.shape[array.ndim - rank :])
    return array.reshape((1,) * (rank - array.ndim) + array.shape)


def squeezed(array: NDArray[Number]) -> NDArray[Number]:
    """The same array, reduced to size 1 on every axis along which it does not vary."""
    if array.size and array.size in array.shape and array.flat[0] != array.flat[-1]:  # one axis, along which it varies
        return array
    for axis, size in enumerate(array.shape):
        if size > 1:
            before = (slice(None),) * axis
            first, last = array[(*before, slice(0, 1))], array[(*before, slice(-1, None))]
            if (first == last).all() and (array == first).all():
                array = first
    return array
