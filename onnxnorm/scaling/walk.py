"""The walk: from a graph to slots for every value, edits for constants, and the groups.

Nodes are visited once, in order. Constants are not visited; a law meets them as operands. A constant that is also read
by a node whose law does not edit it must keep its values there, which an edit that changes nothing states.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import onnx

from onnxnorm.errors import ModelError
from onnxnorm.model.constants import Constant
from onnxnorm.model.graph import Graph, Node, Reader
from onnxnorm.model.shapes import check_fitting, check_legal
from onnxnorm.scaling.groups import Groups, solve
from onnxnorm.scaling.laws import LAWS
from onnxnorm.scaling.levels import Level
from onnxnorm.scaling.operand import Operand, Refusal
from onnxnorm.scaling.operators import load_all
from onnxnorm.scaling.slots import ZERO, Barrier, Edit, Ids, Slots, at_rank, squeezed
from onnxnorm.scaling.stored import Origins
from onnxnorm.scaling.visit import Outcome, Visit, barrier_at

__all__ = ["Outputs", "Trace", "Walk", "trace"]

Outputs = Literal["keep", "scale"]

# Operators that read the shape of a value only, and so do not notice that it is scaled.
_READS_NO_VALUES = {"Shape", "Size"}

# Before opset 7 operators had attributes for broadcasting; opsets newer than the installed onnx are not known.
_OPSETS = range(7, onnx.defs.onnx_opset_version() + 1)


@dataclass(frozen=True)
class Trace:
    """The result of a walk.

    Attributes:
        graph: the graph that was walked.
        ids: the slots of every value, by its name; each array broadcasts against the value.
        edits: how constants depend on slots.
        groups: the groups of slots.
        slots: the constraints from which the groups follow.
        wants_attributes: whether it depends on whether attributes may change.
        tying: for each tie of the walk, in order, the place of its node among the graph's.
    """

    graph: Graph = field(repr=False)
    ids: Mapping[str, Ids] = field(repr=False)
    edits: tuple[Edit, ...] = field(repr=False)
    groups: Groups = field(repr=False)
    slots: Slots = field(repr=False)
    wants_attributes: bool = False
    tying: Sequence[int] = field(repr=False, default=())


_MOST_SLOTS = 1 << 21  # and one for each number that the file stores: else a few nodes can stand for any number of them


def trace(graph: Graph, outputs: Outputs = "keep", level: Level = "constants") -> Trace:
    """Walk a graph.

    Args:
        graph: the graph, with concrete shapes.
        outputs: "keep" pins graph outputs to scale 1; "scale" lets them be scaled like other values.
        level: how much of the graph may change.

    Raises:
        ModelError: if a node is not legal ONNX.
    """
    load_all()
    try:
        return Walk(graph, level).run(outputs)
    except MemoryError as error:
        raise ModelError(
            "the graph's shapes need more memory than there is; check them, else use a larger machine"
        ) from error


class Walk:
    """One walk over a graph. `bridges` walks the same way, with the edges open."""

    opened = False

    def __init__(self, graph: Graph, level: Level) -> None:
        self.graph = graph
        self.level = level
        self.origins = Origins(graph)
        self.slots = Slots(most=_MOST_SLOTS + sum(c.size for c in graph.constants.values() if c.home != "computed"))
        self.ids: dict[str, Ids] = {}
        self.edits: list[Edit] = []
        self.wants_attributes = False
        self.tying: list[int] = []
        empty = {name for name, shape in graph.shapes.items() if 0 in shape}
        self.empty = empty - graph.constants.keys()

    def run(self, outputs: Outputs) -> Trace:
        """Visit every node and solve what their laws demand."""
        self.visit_all()
        self._keep_shared_constants()
        for name in self.graph.outputs:
            if outputs == "keep" and name in self.ids:
                self.slots.pin(self.ids[name], Barrier(name, "output", name, "it is a graph output"))
        groups, edits = solve(self.slots), tuple(self.edits)
        return Trace(self.graph, self.ids, edits, groups, self.slots, self.wants_attributes, self.tying)

    def visit_all(self) -> None:
        """Visit every node, in order."""
        for spec in self.graph.inputs:
            self._pinned(spec.name, Barrier(spec.name, "input", spec.name, "it is a graph input"))
        for place, node in enumerate(self.graph.nodes):
            self._visit_legal(node)
            self.tying += [place] * (len(self.slots.ties) - len(self.tying))

    def _visit_legal(self, node: Node) -> None:
        try:
            self._visit(node)
        except (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as e:
            check_legal(node, self.graph)
            check_fitting(node, self.graph, e)  # if the node is legal, the law is at fault
            raise

    def _visit(self, node: Node) -> None:
        if all(name in self.graph.constants for name in node.outputs if name):
            return
        operands = tuple(self._operand(node, position, name) for position, name in enumerate(node.inputs))
        visit = Visit(node, self.graph, operands, self.slots, self.origins, self.level, opened=self.opened)
        entry = LAWS.get(node.op)
        if node.captured():
            outcome: Outcome = Refusal("it runs a subgraph, and scales are not followed into it")
        elif (node.domain, node.proto.op_type) in self.graph.functions:
            outcome = Refusal("it is a function of the model's own, and scales are not followed into it")
        elif not node.domain and node.opset not in _OPSETS:
            outcome = Refusal(f"the laws hold for opsets {_OPSETS[0]} to {_OPSETS[-1]}, and this is opset {node.opset}")
        elif not self.graph.unsteady.isdisjoint((*node.inputs, *node.outputs)):
            outcome = Refusal("the number of axes that it reads or writes depends on the size of the graph's inputs")
        elif self._is_empty(node):
            outcome = self._emptied(visit)
        elif entry is None:
            outcome = Refusal(f"{node.op} has no law, so its input and output keep their scales")
        else:
            outcome = entry.apply(visit)
        self.wants_attributes |= visit.wants_attributes
        if isinstance(outcome, Refusal):
            self._refuse(visit, outcome.reason)
            return
        self._commit(visit)
        results = (outcome,) if isinstance(outcome, np.ndarray) else tuple(outcome)
        for position, name in enumerate(node.outputs):
            if name and position < len(results):
                self._settle(name, results[position])
            else:
                self._settle_pinned(node, name, visit.scaleless)

    def _is_empty(self, node: Node) -> bool:
        return bool(self.empty) and not self.empty.isdisjoint((*node.inputs, *node.outputs))

    def _emptied(self, visit: Visit) -> Outcome:
        """What has no elements constrains nothing, if it has none for inputs of any size."""
        node = visit.node
        read = [operand for operand in visit.present() if operand.constant is None and 0 in (operand.shape or ())]
        shapes = [self.graph.shapes.get(name, ()) for name in node.outputs]
        steady = all((operand.ids == ZERO).all() for operand in read)
        if not steady or (not read and not all(self._cuts(visit.operand(0), shape) for shape in shapes if 0 in shape)):
            return Refusal("it reads or writes a tensor without elements, for this size of the input")
        if all(0 in shape for shape in shapes):
            return [np.full((1,) * len(shape), ZERO, np.int64) for shape in shapes]
        if node.op in {"Concat", "Split"}:
            return LAWS[node.op].apply(visit)
        return Refusal("it reads a tensor without elements")

    def _cuts(self, source: Operand | None, shape: tuple[int, ...]) -> bool:
        """Whether a value of this shape, without elements, is cut from axes whose size is the same for all inputs."""
        if source is None:
            return False
        varying = self.graph.varying.get(source.name, ())
        known = source.shape is not None and len(source.shape) == len(shape)
        return known and all(axis not in varying for axis, size in enumerate(shape) if size == 0)

    def _refuse(self, visit: Visit, reason: str) -> None:
        node = visit.node
        read = {operand.name: operand.ids for operand in visit.present() if operand.constant is None}
        read |= {name: self._captured_ids(node, name) for name in sorted(node.captured()) if name in self.ids}
        for name, ids in read.items():
            self.slots.pin(ids, barrier_at(node, name, reason))
        for name in node.outputs:
            self._settle_pinned(node, name, reason)

    def _captured_ids(self, node: Node, name: str) -> Ids:
        """The slots of a value that a subgraph of a node reads."""
        del node
        return self.ids[name]

    def _commit(self, visit: Visit) -> None:
        for a, b in visit.ties:
            self.slots.tie(a, b)
        for ids, name, reason in visit.pins:
            self.slots.pin(ids, barrier_at(visit.node, name, reason))
        for terms, reason in visit.relations:
            self.slots.relate(terms, barrier_at(visit.node, visit.node.outputs[0], reason))
        for demanded in visit.edits:
            edit, ties = self.origins.stored_edit(demanded)
            for a, b in ties:
                self.slots.tie(a, b)
            if edit.constant.fixed:
                self._pin_edit(edit, f"constant {edit.constant.name!r} {edit.constant.fixed}")
            self.edits.append(edit)

    def _pin_edit(self, edit: Edit, reason: str) -> None:
        node = self.graph.by_index[edit.reader.node]
        self.slots.pin(edit.slots(), barrier_at(node, edit.constant.name, reason))

    def _operand(self, node: Node, position: int, name: str) -> Operand | None:
        if not name:
            return None
        shape = self.graph.shapes.get(name)
        constant = self.graph.constants.get(name)
        if constant is not None and name not in self.ids:
            self.ids[name] = self._constant_ids(node, constant)
        if name not in self.ids:  # an undefined name, which the runtime will report
            self._settle_pinned(node, name, "it is not defined in the graph")
        return Operand(name, position, self.ids[name], shape, constant)

    def _constant_ids(self, node: Node, constant: Constant) -> Ids:
        """A pinned slot for a constant that is moved or joined like an activation, since it keeps its values."""
        ids = self.slots.fresh(*(1,) * len(constant.shape))
        self.slots.pin(ids, barrier_at(node, constant.name, f"it meets constant {constant.name!r}, which stays"))
        return ids

    def _settle_pinned(self, node: Node, name: str, reason: str) -> None:
        if name:
            self._pinned(name, barrier_at(node, name, reason))

    def _pinned(self, name: str, barrier: Barrier) -> None:
        ids = self.slots.fresh(1)
        self.slots.pin(ids, barrier)
        self._settle(name, ids)

    def _settle(self, name: str, ids: Ids) -> None:
        """Store the slots of a value, in its rank, after tying those along axes whose size the model leaves open."""
        shape = self.graph.shapes.get(name)
        ids = squeezed(at_rank(ids, ids.ndim if shape is None else len(shape)))
        for axis in self.graph.varying.get(name, ()):
            if axis < ids.ndim and ids.shape[axis] > 1:
                merged: Ids = ids.max(axis=axis, keepdims=True)
                self.slots.tie(merged, ids)
                ids = merged
        self.ids[name] = ids

    def _keep_shared_constants(self) -> None:
        """Other readers of a constant that is edited read it unchanged: whoever needs it scaled reads a copy."""
        touched = {(edit.constant.name, edit.reader) for edit in self.edits}
        edited = {edit.constant.name: edit.constant for edit in self.edits}
        unchanged = [Edit(edited[name], Reader(node.index, -1)) for name, node in self._captured() if name in edited]
        unchanged += [Edit(constant, Reader(-1, -1)) for constant in edited.values() if constant.kept]
        for name, constant in edited.items():
            for reader in self.graph.readers.get(name, ()):
                reads_values = self.graph.by_index[reader.node].op not in _READS_NO_VALUES
                if reads_values and (name, reader) not in touched:
                    self.edits.append(Edit(constant, reader))
        self.edits[:0] = unchanged  # the first reader of a constant reads it under its name

    def _captured(self) -> Iterator[tuple[str, Node]]:
        """Names that subgraphs read, and the nodes that run these."""
        for node in self.graph.nodes:
            for name in sorted(node.captured()):
                yield name, node
