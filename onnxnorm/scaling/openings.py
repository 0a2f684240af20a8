"""Where a graph can be opened, so that scales on both sides are free: the walk once more, with every edge open.

A value then has slots of its own where its node writes it, under its name (where filters are measured), and at each of
its readers. What laws tie or pin stays so. That the slots of an edge agree is a choice: a multiplication by constants
there, a *bridge*, lets them differ. The same holds for one element of a constant that meets several channels: it can
become one per channel, which costs nothing. The bounds of a Clip stay one number for all channels, with a Mul behind:
runtimes fuse a Clip with the convolution before it, and a Min with a bound for each channel took far longer.

==========  ==========================================================  ============================================
place       what is added                                               elements touched
==========  ==========================================================  ============================================
`behind`    a Mul between a node and the value that it writes           those of the value
`before`    a Mul between a value and one of its readers                those of the value
`output`    a Mul between a value and the graph output of its name      those of the value
`constant`  elements of a constant                                      none
`computed`  a Mul behind what nodes compute from constants               none: the runtime computes it once
==========  ==========================================================  ============================================
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from onnxnorm.model.graph import Graph, Node
from onnxnorm.model.tensors import FLOATS
from onnxnorm.scaling.filters import Layer
from onnxnorm.scaling.operand import Operand
from onnxnorm.scaling.slots import ZERO, Barrier, Edit, Ids, at_rank, is_ascending
from onnxnorm.scaling.visit import Visit
from onnxnorm.scaling.walk import Outputs, Walk

__all__ = ["OpenWalk", "Opening", "Place"]

Place = Literal["behind", "before", "output", "constant", "computed"]

_MOST_FACTORS = 1 << 16  # elements of the constant of a bridge


@dataclass(frozen=True)
class Opening:
    """A place in the graph that can be opened.

    Attributes:
        place: what kind of place it is.
        value: name of the value; for `constant` and `computed`, of the constant.
        node: index of the reader, or of the node that has the constant; -1 for `behind` and `output`.
        position: which input of that node it is; -1 where that does not matter.
        shape: shape of the constant that would be added.
        elements: number of elements that the new node would touch.
    """

    place: Place
    value: str
    node: int
    position: int
    shape: tuple[int, ...]
    elements: int


@dataclass
class OpenWalk(Walk):
    """A walk with slots of their own at both ends of every edge; the pairs that have to agree unless it is opened."""

    graph: Graph
    layers: Sequence[Layer]
    pairs: list[tuple[Opening, Ids, Ids]] = field(default_factory=list)
    inputs: bool = False  # whether graph inputs can be multiplied before their readers

    opened = True

    def __post_init__(self) -> None:
        Walk.__init__(self, self.graph, "nodes")
        self._sites = {layer.site.value: (layer.site.axis, layer.channels) for layer in self.layers}
        self._written = {name for node in self.graph.nodes for name in node.outputs}
        self._outputs = set(self.graph.outputs)
        self._read: dict[tuple[int, str], Ids] = {}
        self.written: dict[str, Ids] = {}  # the slots of values where their nodes write them

    def walk(self, outputs: Outputs) -> None:
        """Visit every node."""
        self.visit_all()
        for name in dict.fromkeys(self.graph.outputs):
            if outputs == "keep" and name in self.ids:
                ids = self.ids[name]
                own = self._apart("output", name, ids, -1, -1) if self._movable(name) else ids
                self.slots.pin(own, Barrier(name, "output", name, "it is a graph output"))

    def _movable(self, name: str) -> bool:
        """Whether a value can be multiplied by a constant on one of its edges."""
        known = self.graph.types.get(name) in FLOATS and bool(self.graph.shapes.get(name))
        return known and name in self._written and name not in self.graph.constants

    def _readable(self, name: str) -> bool:
        """Whether a value can be multiplied before one of its readers."""
        fed = self.inputs and any(spec.name == name for spec in self.graph.inputs)
        known = self.graph.types.get(name) in FLOATS and bool(self.graph.shapes.get(name))
        return (fed and known) or self._movable(name)

    def _apart(self, place: Place, name: str, ids: Ids, node: int, position: int) -> Ids:
        """Slots for the other end of an edge, as many different ones as there are on this end."""
        if ids.size > _MOST_FACTORS:
            return ids
        flat = ids.reshape(-1)
        if flat.size and flat[0] != ZERO and is_ascending(flat):
            own = self.slots.fresh(*ids.shape)
        else:
            known, places = np.unique(ids, return_inverse=True)
            own = np.where(ids == ZERO, ZERO, self.slots.fresh(len(known))[places.reshape(ids.shape)])
        shape = self.graph.shapes[name]
        factors = (1,) * (len(shape) - ids.ndim) + ids.shape
        elements = math.prod(shape)
        self.pairs.append((Opening(place, name, node, position, factors, elements), ids, own))
        return own

    def _settle(self, name: str, ids: Ids) -> None:
        super()._settle(name, ids)
        if self._movable(name):
            written = self.ids[name]
            if name in self._sites and written.size == 1:
                rank = len(self.graph.shapes[name])
                axis, channels = self._sites[name]
                shape = [channels if at == axis else 1 for at in range(rank)]
                each = self.slots.fresh(
                    *shape
                )  # for the filters may have scales that the node's law does not tell apart
                self.slots.tie(at_rank(written, rank), each)
                written = np.where(at_rank(written, rank) == ZERO, ZERO, each)
            self.written[name] = written
            self.ids[name] = self._apart("behind", name, written, -1, -1)

    def _operand(self, node: Node, position: int, name: str) -> Operand | None:
        operand = super()._operand(node, position, name)
        if operand is None or operand.constant is not None or not self._readable(name):
            return operand
        return Operand(name, position, self._read_ids(node, name), operand.shape, None)

    def _captured_ids(self, node: Node, name: str) -> Ids:
        return self._read_ids(node, name) if self._readable(name) else self.ids[name]

    def _read_ids(self, node: Node, name: str) -> Ids:
        """The slots of a value as a node reads it, wherever in the node that is."""
        key = (node.index, name)
        if key not in self._read:
            self._read[key] = self._apart("before", name, self.ids[name], node.index, -1)
        return self._read[key]

    def _commit(self, visit: Visit) -> None:
        out = [self._is_out_of_reach(edit) for edit in visit.edits]
        distant = [edit for edit, far in zip(visit.edits, out, strict=True) if far]
        visit.edits = [edit for edit, far in zip(visit.edits, out, strict=True) if not far]
        super()._commit(visit)
        for edit in distant:
            constant = edit.constant
            parts = [at_rank(ids, len(constant.shape)) for ids in (edit.times, edit.over) if ids is not None]
            shape = np.broadcast_shapes(*(ids.shape for ids in parts))
            opening = Opening("computed", constant.name, edit.reader.node, edit.reader.input, shape, 0)
            one = self.slots.fresh(1)
            self.slots.pin(one, Barrier(visit.node.label, visit.node.op, constant.name, constant.fixed or ""))
            self.pairs.append((opening, one, edit.slots()))
        node = visit.node
        for operand, one, ids in visit.shared:
            shape = self.graph.shapes.get(node.outputs[0], ())
            factors = (1,) * (len(shape) - ids.ndim) + ids.shape
            if 1 < ids.size <= _MOST_FACTORS:
                opening = Opening("constant", operand.name, node.index, operand.position, factors, 0)
                self.pairs.append((opening, np.broadcast_to(one, ids.shape), ids))
            else:
                self.slots.tie(one, ids)

    def _is_out_of_reach(self, edit: Edit) -> bool:
        """Whether an edit is of a computed constant that cannot be followed back to a stored one."""
        constant = edit.constant
        if constant.home != "computed" or constant.index < 0 or constant.by_shape or constant.dtype.kind == "O":
            return False
        return bool(edit.slots().size) and not self.origins.editable(constant)
