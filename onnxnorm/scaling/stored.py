"""Constants behind nodes: an exporter may leave a Cast, a Transpose or a Reshape between a weight and its reader.

What must be edited is the constant that the file stores. An edit of a computed constant is followed back to it, node by
node, as long as nothing else reads what lies between:

* nodes that keep every element and at most move it (Cast, Identity, Transpose, Reshape, ...): the slots move back with
  the elements;
* a product, or a quotient, of one constant with another: a factor with an element for each scale is edited;
* DequantizeLinear: its scale is edited, where there is one for each element of the axis along which slots vary. Slots
  that vary along other axes must share a scale.

Source: the specification of ONNX's operators of these names, https://onnx.ai/onnx/operators/.
"""

from __future__ import annotations

from collections.abc import Callable, Set
from dataclasses import replace

import numpy as np

from onnxnorm.model.constants import Constant
from onnxnorm.model.graph import Graph, Node, Reader
from onnxnorm.model.tensors import is_float
from onnxnorm.scaling.slots import Edit, Ids, at_rank, squeezed

__all__ = ["Origins", "Tie"]

Tie = tuple[Ids, Ids]
Move = Callable[[Ids], Ids]

_IN_PLACE = frozenset({"Identity", "Cast", "CastLike", "Neg"})
_RESHAPES = frozenset({"Reshape", "Flatten", "Squeeze", "Unsqueeze"})


class Origins:
    """Finds the stored constants that the computed constants of one graph come from."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        once = {name for name, readers in graph.readers.items() if len(readers) == 1}
        captured = {name for node in graph.nodes for name in node.captured()}
        self.private = once - captured - set(graph.outputs)

    def editable(self, constant: Constant) -> bool:
        """Whether a constant is stored, and may be changed, or comes from one that may."""
        if constant.home != "computed":
            return not constant.fixed
        first = (*constant.shape[:2], *(1,) * len(constant.shape[2:]))  # where the channels of weights are
        edit = Edit(constant, Reader(-1, -1), np.arange(int(np.prod(first))).reshape(first))
        return not self.stored_edit(edit)[0].constant.fixed

    def stored_edit(self, edit: Edit) -> tuple[Edit, list[Tie]]:
        """Follow an edit of any constant back to a constant that is stored in the file.

        Returns:
            The edit of the stored constant, and slots that must share a scale for that. The edit itself if there is no
            way back.
        """
        ties: list[Tie] = []
        followed = edit
        while followed.constant.home == "computed":
            step = _step_back(followed, self.graph, self.private)
            if step is None:
                return edit, []
            followed, more = step
            ties += more
        if followed is edit or followed.constant.fixed:
            return edit, []
        return replace(followed, demanded=edit), ties


def _step_back(edit: Edit, graph: Graph, private: Set[str]) -> tuple[Edit, list[Tie]] | None:
    """The edit of an input of the node that computes the edit's constant; None if there is none that does it."""
    node = graph.by_index.get(edit.constant.index)
    if node is None or edit.constant.by_shape or edit.constant.name not in private:
        return None
    if node.op == "DequantizeLinear":
        return _dequantized(edit, graph, node)
    position = _factor_position(edit, graph, node) if node.op in {"Mul", "Div"} else 0
    source = graph.constants.get(node.inputs[position]) if position is not None and node.inputs else None
    if source is None or position is None or not is_float(source.dtype):
        return None
    back = _moving_back(node, edit.constant, source)
    return None if back is None else (_moved(edit, source, Reader(node.index, position), back), [])


def _moving_back(node: Node, constant: Constant, source: Constant) -> Move | None:
    """How slots of what a node computes move back to its source."""
    if node.op in _IN_PLACE | {"Mul", "Div"}:
        return lambda ids: ids
    if node.op == "Transpose":
        order = node.attribute("perm") or range(len(source.shape))[::-1]
        return lambda ids: ids.transpose(np.argsort(order))
    if node.op in _RESHAPES and source.size == constant.size:
        return lambda ids: np.broadcast_to(ids, constant.shape).reshape(source.shape)
    return None


def _factor_position(edit: Edit, graph: Graph, node: Node) -> int | None:
    """Which factor of a product is edited: one with an element for each scale. Of a quotient, the dividend."""
    positions = (0,) if node.op == "Div" else (0, 1)
    factors = {position: graph.constants.get(node.inputs[position]) for position in positions}
    fitting = [k for k, factor in factors.items() if factor is not None and _tells(factor, edit)]
    return min(fitting, key=lambda k: getattr(factors[k], "home", "") == "computed", default=None)


def _tells(factor: Constant, edit: Edit) -> bool:
    """Whether a factor of an edit's constant has an element for each of the scales."""
    rank = len(edit.constant.shape)
    if len(factor.shape) > rank:
        return False
    shape = (1,) * (rank - len(factor.shape)) + factor.shape
    parts = [at_rank(ids, rank) for ids in (edit.times, edit.over) if ids is not None]
    varies = np.broadcast_shapes((1,) * rank, *(ids.shape for ids in parts))
    return all(size > 1 or needed == 1 for size, needed in zip(shape, varies, strict=True))


def _moved(edit: Edit, source: Constant, reader: Reader, back: Move) -> Edit:
    rank = len(edit.constant.shape)
    times, over = (None if ids is None else squeezed(back(at_rank(ids, rank))) for ids in (edit.times, edit.over))
    times, over = (None if ids is None else at_rank(ids, len(source.shape)) for ids in (times, over))
    return replace(edit, constant=source, reader=reader, times=times, over=over)


def _dequantized(edit: Edit, graph: Graph, node: Node) -> tuple[Edit, list[Tie]] | None:
    """`(x - zero point) * scale`: the scale is edited, a number or a vector along an axis."""
    scale = graph.constants.get(node.inputs[1])
    if scale is None or len(scale.shape) > 1 or not is_float(scale.dtype) or node.attribute("block_size", 0):
        return None
    rank = len(edit.constant.shape)
    axis = node.attribute("axis", 1) % max(rank, 1) if scale.size > 1 else None
    ties: list[Tie] = []

    def along(ids: Ids | None) -> Ids | None:
        if ids is None:
            return None
        ids = at_rank(ids, rank)
        others = tuple(k for k in range(rank) if k != axis)
        one: Ids = ids.max(axis=others, keepdims=True)
        if one.shape != ids.shape:
            ties.append((one, ids))
        return one.reshape(-1) if scale.shape else one.reshape(())

    times, over = along(edit.times), along(edit.over)
    return replace(edit, constant=scale, reader=Reader(node.index, 1), times=times, over=over), ties
