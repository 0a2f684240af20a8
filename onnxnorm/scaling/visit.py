"""One node as its law sees it, and what a law may demand: that slots are one, are pinned, or are related."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np

from onnxnorm.errors import ModelError
from onnxnorm.model.constants import Constant
from onnxnorm.model.graph import Graph, Node, Reader
from onnxnorm.scaling.levels import Level
from onnxnorm.scaling.operand import Operand, Refusal
from onnxnorm.scaling.slots import ZERO, Barrier, Edit, Ids, Slots, Term, at_rank, together
from onnxnorm.scaling.stored import Origins

__all__ = ["Outcome", "Visit", "barrier_at"]


Outcome = Ids | Sequence[Ids] | Refusal


@dataclass
class Visit:
    """One node as its law sees it. What the law demands is collected here, and is discarded if the law refuses.

    Attributes:
        node: the node.
        graph: the graph that it is in.
        operands: its inputs; None for an optional one that is left out.
        slots: all slots of the walk, for making new ones.
        origins: where computed constants come from.
        level: how much of the graph may change.
        shared: constants of which one element meets several slots, with one slot and those; only where `opened`.
        wants_attributes: whether the outcome depends on whether attributes may change.
        opened: whether such slots are collected there instead of tied, since the constant could get more elements.
        scaleless: why outputs for which the law returns no slots keep scale 1.
    """

    node: Node
    graph: Graph = field(repr=False)
    operands: tuple[Operand | None, ...]
    slots: Slots = field(repr=False)
    origins: Origins = field(repr=False)
    level: Level = "constants"
    ties: list[tuple[Ids, Ids]] = field(default_factory=list)
    pins: list[tuple[Ids, str, str]] = field(default_factory=list)
    relations: list[tuple[Sequence[Term], str]] = field(default_factory=list)
    edits: list[Edit] = field(default_factory=list)
    shared: list[tuple[Operand, Ids, Ids]] = field(default_factory=list)
    opened: bool = False
    wants_attributes: bool = False
    scaleless: str = "it counts or points at elements, so it has no scale"

    def operand(self, position: int) -> Operand | None:
        """The input at a position, or None if it is left out."""
        return self.operands[position] if position < len(self.operands) else None

    def first(self) -> Operand:
        """The first input, which every operator with a law has."""
        operand = self.operands[0]
        assert operand is not None, self.node.label
        return operand

    def present(self) -> list[Operand]:
        """The inputs that are not left out."""
        return [operand for operand in self.operands if operand is not None]

    def constant(self, position: int) -> Constant | None:
        """The constant at a position, or None if that input is left out or depends on the graph's inputs."""
        operand = self.operand(position)
        return operand.constant if operand else None

    def numbers_by_size(self, position: int) -> list[list[Any]]:
        """A constant input as lists of numbers, one for each size of the graph's inputs that is known if they differ.

        None at all if the input is left out, or is not known for all sizes.
        """
        constant = self.constant(position)
        resized = self.graph.resized if constant is not None and constant.by_shape else ()
        constants = [constant, *(size.constants.get(self.node.inputs[position]) for size in resized)]
        if None in constants:
            return []
        return [found.values().reshape(-1).tolist() for found in constants if found is not None]

    def numbers(self, position: int) -> list[Any] | None:
        """A constant input as a list of numbers; None if it is left out, or depends on the size of the inputs."""
        found = self.numbers_by_size(position)
        return found[0] if found and all(numbers == found[0] for numbers in found) else None

    def output_shape(self, position: int = 0) -> tuple[int, ...] | None:
        """Shape of an output, or None if it is not known."""
        return self.graph.shapes.get(self.node.outputs[position])

    def fresh(self, *shape: int) -> Ids:
        """New slots in an array of this shape."""
        return self.slots.fresh(*shape)

    def tie(self, a: Ids, b: Ids) -> None:
        """Demand one scale wherever elements of `a` and `b` meet when they are broadcast."""
        self.ties.append((a, b))

    def pin(self, operand: Operand, reason: str) -> None:
        """Demand that an input keeps scale 1."""
        self.pins.append((operand.ids, operand.name, reason))

    def pin_rest(self, start: int, reason: str) -> None:
        """Demand that those inputs from position `start` on that are no constants keep scale 1."""
        for operand in self.operands[start:]:
            if operand is not None and operand.constant is None:
                self.pin(operand, reason)

    def unscaled(self, reason: str) -> tuple[Ids, ...]:
        """Outcome of a law whose outputs keep scale 1, whatever the scales of the inputs."""
        self.scaleless = reason
        return ()

    def relate(self, terms: Sequence[Term], reason: str) -> None:
        """Demand that the product of `scale ** factor` over all terms `(factor, slots)`, which broadcast, is 1."""
        self.relations.append((terms, reason))

    def power(self, ids: Ids, factor: int | Fraction, reason: str) -> Ids:
        """New slots with `scale = scale[ids] ** factor`; none where `ids` are zeros and stay zeros."""
        out = self.like(ids)
        self.relate([(-1, out), (factor, ids)], reason)
        return out

    def like(self, *ids: Ids) -> Ids:
        """New slots in the shape of these, broadcast; `ZERO` where one of them is."""
        zero = np.logical_or.reduce([array == ZERO for array in together(*ids)])
        fresh = self.fresh(*zero.shape)
        return np.where(zero, ZERO, fresh) if zero.any() else fresh

    def edit(
        self, operand: Operand, times: Ids | None = None, over: Ids | None = None, *, bounds: bool = False
    ) -> None:
        """Multiply a constant operand by `scale[times] / scale[over]`; a single 0 needs no change."""
        constant = operand.constant
        assert constant is not None, operand.name
        if constant.size > 1 or constant.nonzero().any():
            self.edits.append(Edit(constant, Reader(self.node.index, operand.position), times, over, bounds))

    def editable(self, operand: Operand) -> bool:
        """Whether the values of a constant operand may be changed."""
        constant = operand.constant
        if constant is None or constant.by_shape:
            return False
        return self.origins.editable(constant) or (self.opened and constant.home == "computed" and constant.index >= 0)

    def may_change_attributes(self) -> bool:
        """Whether numbers in attributes may follow scales; that the law wants to know is noted."""
        self.wants_attributes = True
        return self.level != "constants" and not self.node.keeps_attributes

    def number(self, name: str, default: float) -> Operand | None:
        """An attribute that is a number, as a constant operand; None where attributes may not be changed."""
        if not self.may_change_attributes():
            return None
        value = np.float32(self.node.attribute(name, default))
        title = f"{self.node.outputs[0]}:{name}"
        constant = Constant(
            title, (), np.dtype(np.float32), "attribute", self.node.index, read=lambda: np.asarray(value)
        )
        return Operand(title, -1, np.empty(0, np.int64), (), constant)

    def keep_rest(self, start: int) -> None:
        """Declare that the node needs its constants from position `start` on unchanged."""
        for operand in self.operands[start:]:
            if operand is not None:
                self.keep(operand)

    def keep(self, operand: Operand) -> None:
        """Declare that the node needs a constant unchanged, so that it is cloned if another reader needs it scaled."""
        if operand.constant is not None:
            self.edits.append(Edit(operand.constant, Reader(self.node.index, operand.position)))

    def aligned(self, operands: Sequence[Operand]) -> bool:
        """Whether it is known which axes of the operands' common result their slots belong to.

        Slots that vary have the rank of their value. If the result has no known shape, the axes are known only if no
        operand can have more axes than the slots that vary.
        """
        if self.output_shape() is not None or all(operand.uniform for operand in operands):
            return True
        ranks = {operand.rank for operand in operands if not operand.uniform}
        rest = [operand for operand in operands if operand.uniform]
        return len(ranks) == 1 and all(o.shape is not None and len(o.shape) <= min(ranks) for o in rest)

    def solid(self, ids: Ids) -> Ids:
        """The same ids with new slots in place of `ZERO`, for an operator that can turn zeros into other values."""
        if not (ids == ZERO).any():
            return ids
        return np.where(ids == ZERO, self.fresh(*ids.shape), ids)

    def merge(self, ids: Ids, axis: int) -> Ids:
        """Tie all slots along an axis; the result has size 1 on that axis."""
        if ids.shape[axis] == 1:
            return ids
        merged: Ids = ids.max(axis=axis, keepdims=True)
        self.tie(merged, ids)
        return merged

    def merge_but(self, ids: Ids, axes: Sequence[int]) -> Ids:
        """Tie all slots along every axis except `axes`; the result has size 1 on the tied axes."""
        for axis in range(ids.ndim):
            if axis not in axes:
                ids = self.merge(ids, axis)
        return ids

    def one(self, operand: Operand) -> Ids:
        """Tie all slots of a value; the one slot that is left, shape `(1,)`."""
        return self.merge_but(self.solid(operand.ids), []).reshape(-1)[:1]

    def along(self, operand: Operand, axis: int, size: int, rank: int | None = None) -> Ids:
        """Slots of a value along one axis, shape `(size,)`; along all other axes they are tied."""
        ids = at_rank(operand.ids, operand.rank if rank is None else rank)
        axis %= ids.ndim
        return np.broadcast_to(self.merge_but(ids, [axis]).reshape(-1), (size,))

    def share(self, operand: Operand, ids: Ids) -> Ids:
        """Tie slots that a constant cannot tell apart; the one slot that is left, in the rank of `ids`."""
        if not self.opened or not self.editable(operand):
            return self.merge_but(ids, [])
        one = self.fresh(*(1,) * ids.ndim)
        self.shared.append((operand, one, ids))
        return one

    def spread(self, ids: Ids, operand: Operand) -> Ids:
        """Slots for scaling a constant operand that is broadcast against a value with slots `ids`.

        Where one element of the constant meets several slots, these are tied, unless the element is zero.

        Returns:
            Slots that broadcast against the constant, of its rank.
        """
        constant = operand.constant
        assert constant is not None, operand.name
        rank = max(ids.ndim, len(constant.shape))
        ids, shape = at_rank(ids, rank), (1,) * (rank - len(constant.shape)) + constant.shape
        if any(a != b and 1 not in {a, b} for a, b in zip(shape, ids.shape, strict=True)):
            raise ModelError(f"values of shapes that do not fit meet ({constant.shape} and {ids.shape} scales)")
        crowded = [axis for axis in range(rank) if shape[axis] == 1 and ids.shape[axis] > 1]
        if crowded:
            ids = np.where(constant.nonzero().reshape(shape), ids, ZERO)
            if self.opened and constant.size == 1:
                return at_rank(self.share(operand, ids), 0 if not constant.shape else len(constant.shape))
            for axis in crowded:
                ids = self.merge(ids, axis)
        return at_rank(ids, len(constant.shape))


def barrier_at(node: Node, value: str, reason: str) -> Barrier:
    """The barrier that a node sets at a value that it reads or writes."""
    return Barrier(node.label, node.op, value, reason)
