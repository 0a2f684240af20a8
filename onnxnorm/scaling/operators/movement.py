"""Operators that move data: scales move with the data.

The operator itself is run, by ONNX's reference implementation, on the slots instead of the values. They are first
broadcast to the value's real shape along the axes that the operator works on, and reduced again afterwards. So Concat,
channel shuffles, NHWC round trips and DepthToSpace need no index arithmetic here. Where the result can depend on sizes
that the model leaves open, the same is done for some other sizes, and slots that end at one place are tied. Where they
would be too many, those of runs (`runs`) or of one block of pixels are moved instead, if that says the same; channels
that a DepthToSpace puts in turn are tied then, as the next convolution would do. Of an image of open size, one block
says all. Zeros that an operator inserts (Pad) come out as slot `ZERO`, which stands for zeros. Inputs and outputs have
any shape.

Source: the specification of ONNX's operators of these names, https://onnx.ai/onnx/operators/.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from onnxnorm.model.evaluation import evaluate
from onnxnorm.model.graph import Node, Resized
from onnxnorm.scaling.laws import law
from onnxnorm.scaling.operand import Operand, Refusal
from onnxnorm.scaling.operators.runs import lengthened, reshaped, shortened_axes
from onnxnorm.scaling.slots import ZERO, Ids, at_rank, squeezed
from onnxnorm.scaling.visit import Outcome, Visit

__all__ = ["moved", "moving_ids"]

_MOST_ELEMENTS = 1 << 24  # moved as slots of 8 bytes each, at several sizes of the inputs: half a gigabyte
_RESHAPES = {"Reshape", "Flatten"}
_BLOCKS = {"DepthToSpace", "SpaceToDepth"}


class _Moved(NamedTuple):
    """Slots of an output, along each axis of size 1, or a divisor of the real one: then every slot is repeated.

    Along axes `in_turn` they come in turn, and are tied.
    """

    ids: Ids
    shape: Sequence[int]
    in_turn: Sequence[int] = ()


@law("Reshape", "Flatten", "DepthToSpace", "SpaceToDepth", "Tile", "GatherND", "GatherElements")
def rearrange(visit: Visit) -> Outcome:
    """Scales move with the data. Refused if its destination depends on the graph's inputs."""
    return moved(visit)


@law("Compress")
def compress(visit: Visit) -> Outcome:
    """Scales move with the data. Without an axis, its places depend on all sizes, so that one that is open ties all."""
    axis, source = visit.node.attribute("axis"), visit.first()
    if axis is None and visit.graph.varying.get(source.name):
        return visit.merge_but(source.ids, []).reshape(-1)[:1]
    return moved(visit, axes=None if axis is None else (axis,))


@law("Transpose", role="transparent")
def transpose(visit: Visit) -> Outcome:
    """Scales move with the data."""
    return moved(visit, axes=())


@law("Squeeze", "Unsqueeze")
def squeeze(visit: Visit) -> Outcome:
    """Scales move with the data. A Squeeze without axes removes all axes of size 1."""
    named = visit.node.attribute("axes") is not None or visit.operand(1) is not None
    return moved(visit, axes=() if named else None)


@law("Split")
def split(visit: Visit) -> Outcome:
    """Scales move with the data, each to the output that its channel is in."""
    return moved(visit, axes=(visit.node.attribute("axis", 0),))


@law("Slice")
def slice_(visit: Visit) -> Outcome:
    """Scales move with the data. Refused if starts, ends or steps depend on the graph's inputs."""
    axes = visit.numbers(3) if visit.operand(3) is not None else visit.node.attribute("axes")
    return moved(visit, axes=None if axes is None else tuple(axes))


@law("Gather")
def gather(visit: Visit) -> Outcome:
    """Scales move with the data. Refused if indices along an axis where scales vary depend on the graph's inputs."""
    source, indices, axis = visit.first(), visit.operand(1), visit.node.attribute("axis", 0)
    if indices is not None and None not in (source.shape, indices.shape) and source.name != indices.name:
        axis %= source.rank
        before, along, after = source.ids.shape[:axis], source.ids.shape[axis], source.ids.shape[axis + 1 :]
        if along == 1:
            return source.ids.reshape((*before, *[1] * indices.rank, *after))
    return moved(visit, axes=(axis,))


@law("ReverseSequence")
def reverse_sequence(visit: Visit) -> Outcome:
    """It reverses parts of the time axis, so scales are tied along that axis."""
    source = visit.first()
    if source.shape is None:
        return source.ids if source.uniform else Refusal("the shape of what it moves is not known")
    return visit.merge(source.ids, source.axis(visit.node.attribute("time_axis", 0)))


@law("Concat")
def concat(visit: Visit) -> Outcome:
    """Scales move with the data. The part of a constant that is not zero keeps scale 1."""
    return moved(visit, data=range(len(visit.operands)), axes=(visit.node.attribute("axis", 0),))


@law("Expand")
def expand(visit: Visit) -> Outcome:
    """Scales pass: elements are repeated along axes of size 1."""
    source = visit.first()
    if visit.output_shape() is None and not source.uniform:
        return Refusal("the shape of its output is not known")
    return source.ids


def moving_ids(operand: Operand) -> Ids:
    """Slots of an operand for moving: `ZERO` for a constant of zeros only, which agrees with any scale."""
    if operand.constant is not None and not operand.constant.nonzero().any():
        return np.full((1,) * len(operand.constant.shape), ZERO, np.int64)
    return operand.ids


def moved(visit: Visit, data: Sequence[int] = (0,), axes: Sequence[int] | None = None) -> Outcome:
    """Run a node on slots instead of values.

    Args:
        visit: the visit of the node.
        data: positions of the inputs that are data, whose slots are moved; all other inputs must be constants.
        axes: the axes that the operator works on; None for all.

    Returns:
        Slots per output, or a refusal if the shapes or the other inputs are not known.
    """
    sources = [operand for operand in (visit.operands[position] for position in data) if operand is not None]
    ids = {operand.name: moving_ids(operand) for operand in sources}
    one = ids[sources[0].name]
    if all(array.size == 1 and array.flat[0] == one.flat[0] for array in ids.values()):
        return [one.reshape(()) for _ in visit.node.outputs]
    if any(operand.shape is None for operand in sources):
        return Refusal("the shape of what it moves is not known")
    others = [operand for operand in visit.present() if operand.name not in ids]
    for operand in others:
        if operand.constant is None:
            return Refusal(f"where it moves things is computed from the graph's inputs ({operand.name!r})")
    graph = visit.graph
    sizes = [Resized(graph.shapes, graph.constants)]
    if axes is None or _depends_on_size(visit, sources, others, axes):
        sizes += graph.resized
    moves, by_block = [], _works_by_block(visit)
    for size in sizes:
        move = _moved_at(visit.node, size, ids, axes, by_block=by_block)
        if isinstance(move, Refusal):
            return move
        moves.append(move)
    outputs = zip(visit.node.outputs, zip(*moves, strict=True), strict=True)
    return [_agreed(visit, name, move) if name else one for name, move in outputs]


def _depends_on_size(visit: Visit, sources: list[Operand], others: list[Operand], axes: Sequence[int]) -> bool:
    """Whether a move along some axes can be another one for other sizes of the graph's inputs."""
    worked = {(operand.name, axis % operand.rank) for operand in sources for axis in axes if operand.rank}
    varying = any(axis in visit.graph.varying.get(name, ()) for name, axis in worked)
    return varying or any(operand.constant is not None and operand.constant.by_shape for operand in others)


def _works_by_block(visit: Visit) -> bool:
    """Whether one block of pixels says all: positions behind it are of open size, so that slots are tied along them."""
    return visit.node.op in _BLOCKS and {2, 3}.issubset(visit.graph.varying.get(visit.node.outputs[0], ()))


def _moved_at(
    node: Node, size: Resized, ids: dict[str, Ids], axes: Sequence[int] | None, *, by_block: bool
) -> list[_Moved] | Refusal:
    """Slots of the outputs, not reduced, for one size of the graph's inputs; of outputs that are left out too."""
    if max(math.prod(size.shapes[name]) for name in ids) > sys.maxsize:
        return Refusal("it moves more elements than can be counted")
    short = _reshaped_at(node, size, ids)
    if short is not None:
        return [short]
    real: dict[str, NDArray[Any]] = {**_broadcast({name: size.shapes[name] for name in ids}, ids, axes)}
    block = _one_block(node, size, ids) if by_block or _elements(node, size, real) > _MOST_ELEMENTS else {}
    real |= block
    if _elements(node, size, real) > _MOST_ELEMENTS:
        return Refusal(f"it moves more than {_MOST_ELEMENTS:,} elements")
    try:
        real |= {name: size.constants[name].values() for name in node.inputs if name and name not in real}
        results = iter(evaluate(node, real))
    except Exception as error:  # noqa: BLE001 (the reference implementation may raise anything)
        kind = type(error.__cause__ or error).__name__
        return Refusal(f"ONNX's reference implementation does not run it for these shapes ({kind})")
    arrays = [np.asarray(next(results), np.int64) if name else np.empty(0, np.int64) for name in node.outputs]
    if any(
        array.size == 0 and 0 not in size.shapes.get(name, ())
        for array, name in zip(arrays, node.outputs, strict=True)
        if name
    ):
        return Refusal("ONNX's reference implementation finds no elements there, but shape inference does")
    if block:
        (name,), (array,) = node.outputs, arrays
        return [_Moved(squeezed(array), size.shapes[name], (2, 3) if node.op == "DepthToSpace" else ())]
    return [_Moved(array, array.shape) for array in arrays]


def _one_block(node: Node, size: Resized, ids: Mapping[str, Ids]) -> dict[str, Ids]:
    """Slots of a single block of positions, for operators that do the same to each block where slots do not vary.

    Nothing if they vary there, or for other operators.
    """
    shape, array = size.shapes[node.inputs[0]], at_rank(ids[node.inputs[0]], len(size.shapes[node.inputs[0]]))
    if node.op == "Tile":  # which repeats along each axis by itself
        return {node.inputs[0]: array}
    if node.op not in _BLOCKS or len(shape) != 4 or array.shape[2:] != (1, 1):
        return {}
    side = node.attribute("blocksize", 1) if node.op == "SpaceToDepth" else 1
    return {node.inputs[0]: np.broadcast_to(array, (array.shape[0], shape[1], side, side))}


def _elements(node: Node, size: Resized, real: Mapping[str, NDArray[Any]]) -> int:
    """How many elements a move reads, or writes if these are more, as those of a Concat or a Tile are."""
    shares = [array.size / max(1, math.prod(size.shapes[name])) for name, array in real.items()]
    written = sum(math.prod(size.shapes.get(name, ())) for name in node.outputs if name)
    return max(sum(array.size for array in real.values()), int(written * max(shares)))


def _reshaped_at(node: Node, size: Resized, ids: dict[str, Ids]) -> _Moved | None:
    """The outcome of a Reshape without an array of the value's size.

    None where its shapes tell less than a run, or where slots vary so that the array would be too large all the same.
    """
    source, target = (size.shapes.get(name, ()) for name in (node.inputs[0], node.outputs[0]))
    known = all(name in size.constants for name in node.inputs[1:] if name)
    if node.op not in _RESHAPES or not known or 0 in source or math.prod(source) != math.prod(target):
        return None
    short = reshaped(at_rank(ids[node.inputs[0]], len(source)), source, target, _MOST_ELEMENTS)
    return None if short is None else _Moved(short, target)


def _agreed(visit: Visit, name: str, moves: Sequence[_Moved]) -> Ids:
    """Slots of a value for every size, from those for some sizes: along axes of open size there is one."""
    moves = [_in_turn(visit, move) for move in moves]
    held = [move for move in moves if move.ids.size] or [moves[0]]
    if len(held) == 1 and len(moves) == 1:
        return squeezed(_lengthened(visit, held[0].ids, held[0].shape))
    rank = held[0].ids.ndim
    varying = {axis for axis in range(rank) if len({move.shape[axis] for move in moves}) > 1}
    varying.update(visit.graph.varying.get(name, ()))
    kept = [axis for axis in range(rank) if axis not in varying]
    steady = [_lengthened(visit, visit.merge_but(squeezed(move.ids), kept), move.shape) for move in held]
    agreed: Ids = np.maximum.reduce(np.broadcast_arrays(*steady))
    for ids in steady:
        visit.tie(agreed, ids)
    return agreed


def _in_turn(visit: Visit, move: _Moved) -> _Moved:
    """The move with slots that come in turn tied."""
    kept = [axis for axis in range(move.ids.ndim) if axis not in move.in_turn]
    return _Moved(visit.merge_but(move.ids, kept), move.shape) if move.in_turn else move


def _lengthened(visit: Visit, ids: Ids, shape: Sequence[int]) -> Ids:
    """Slots along axes of their real size, or one for an axis of runs where these would be too many.

    The many groups of a large GroupNormalization are such an axis, whose slots it ties anyway.
    """
    short = shortened_axes(ids, shape)
    if math.prod(shape[axis] if axis in short else held for axis, held in enumerate(ids.shape)) > _MOST_ELEMENTS:
        return visit.merge_but(ids, [axis for axis in range(ids.ndim) if axis not in short])
    return lengthened(ids, shape)


def _broadcast(
    shapes: Mapping[str, tuple[int, ...]], ids: Mapping[str, Ids], axes: Sequence[int] | None
) -> dict[str, Ids]:
    """Slots broadcast to the real size of the axes worked on, and to one common size along the other axes."""
    rank = len(next(iter(shapes.values())))
    worked = set(range(rank)) if axes is None else {axis % rank for axis in axes}
    common = [max(array.shape[axis] for array in ids.values()) for axis in range(rank)] if rank else []
    real: dict[str, Ids] = {}
    for name, shape in shapes.items():
        target = [shape[axis] if axis in worked else common[axis] for axis in range(rank)]
        real[name] = np.broadcast_to(at_rank(ids[name], rank), target)
    return real
