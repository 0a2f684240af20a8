"""Operators that move data: scales move along.

The operator itself is run, by ONNX's reference implementation, on the slots in place of the values. They are first
broadcast to the value's real shape along the axes that the operator works on, and squeezed again afterwards. Concat,
channel shuffles, NHWC round trips and DepthToSpace thus need no index arithmetic of ours. Zeros that an operator puts
in (Pad, Trilu) come out as slot `ZERO`, which is what they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxnorm.model.shapes import evaluate
from onnxnorm.scaling.laws import Operand, Outcome, Refusal, Visit, law
from onnxnorm.scaling.slots import ZERO, Ids, at_rank, squeezed

__all__ = ["moved", "moving_ids"]


@law("Reshape", "Flatten", "DepthToSpace", "SpaceToDepth", "Tile", "Trilu", "GatherND", "GatherElements", "Compress")
def rearrange(visit: Visit) -> Outcome:
    """Scales move with the data; where to must be known without running the network."""
    return moved(visit)


@law("Transpose", role="transparent")
def transpose(visit: Visit) -> Outcome:
    """Scales move along."""
    return moved(visit, axes=())


@law("Squeeze", "Unsqueeze")
def squeeze(visit: Visit) -> Outcome:
    """Scales move along; a Squeeze that names no axis goes by the sizes."""
    named = visit.node.attribute("axes") is not None or visit.operand(1) is not None
    return moved(visit, axes=() if named else None)


@law("Split")
def split(visit: Visit) -> Outcome:
    """Scales move along, to the part that their channel is in."""
    return moved(visit, axes=(visit.node.attribute("axis", 0),))


@law("Slice")
def slice_(visit: Visit) -> Outcome:
    """Scales move along; starts, ends and steps must be known."""
    axes = visit.node.attribute("axes")
    constant = visit.constant(3)
    if constant is not None:
        axes = constant.values().reshape(-1).tolist()
    return moved(visit, axes=None if axes is None else tuple(axes))


@law("Gather")
def gather(visit: Visit) -> Outcome:
    """Scales move along; along an axis where they do not vary the indices may be anything."""
    source, indices, axis = visit.first(), visit.operand(1), visit.node.attribute("axis", 0)
    if indices is not None and None not in (source.shape, indices.shape) and source.name != indices.name:
        axis %= source.rank
        before, along, after = source.ids.shape[:axis], source.ids.shape[axis], source.ids.shape[axis + 1 :]
        if along == 1:
            return source.ids.reshape(*before, *[1] * indices.rank, *after)
    return moved(visit, axes=(axis,))


@law("ReverseSequence")
def reverse_sequence(visit: Visit) -> Outcome:
    """It reverses parts of one axis, so what varies along that is tied."""
    source = visit.first()
    if source.shape is None:
        return source.ids if source.uniform else Refusal("the shape of what it moves is not known")
    return visit.merge(source.ids, visit.node.attribute("time_axis", 0) % source.rank)


@law("Concat")
def concat(visit: Visit) -> Outcome:
    """Scales move along; a constant that is not zero keeps its part at scale 1."""
    return moved(visit, data=range(len(visit.operands)), axes=(visit.node.attribute("axis", 0),))


@law("Expand")
def expand(visit: Visit) -> Outcome:
    """Scales pass."""
    source = visit.first()
    if visit.output_shape() is None and not source.uniform:
        return Refusal("the shape of its output is not known")
    return source.ids


def moving_ids(operand: Operand) -> Ids:
    """The slots of an operand that may be a constant: one that is all zeros fits any scale."""
    if operand.constant is not None and not operand.constant.nonzero().any():
        return np.full((1,) * len(operand.constant.shape), ZERO, np.int64)
    return operand.ids


def moved(visit: Visit, data: Sequence[int] = (0,), axes: Sequence[int] | None = None) -> Outcome:
    """Run the node on the slots of the inputs `data`; it works on `axes` only (None: on all)."""
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
    real: dict[str, NDArray[Any]] = {**_broadcast(sources, ids, axes)}
    real |= {operand.name: operand.constant.values() for operand in others if operand.constant is not None}
    try:
        results = iter(evaluate(visit.node, real))
    except Exception as error:  # noqa: BLE001 (whatever the reference implementation raises)
        return Refusal(f"ONNX's reference implementation does not run it for these shapes ({type(error).__name__})")
    return [squeezed(np.asarray(next(results), np.int64)) if name else one for name in visit.node.outputs]


def _broadcast(sources: list[Operand], ids: dict[str, Ids], axes: Sequence[int] | None) -> dict[str, Ids]:
    """Slots at the real size of the axes worked on, and at one common size along the others."""
    shapes = [operand.shape or () for operand in sources]
    rank = len(shapes[0])
    worked = set(range(rank)) if axes is None else {axis % rank for axis in axes}
    common = [max(ids[operand.name].shape[axis] for operand in sources) for axis in range(rank)] if rank else []
    real: dict[str, Ids] = {}
    for operand, shape in zip(sources, shapes, strict=True):
        target = [shape[axis] if axis in worked else common[axis] for axis in range(rank)]
        real[operand.name] = np.broadcast_to(at_rank(ids[operand.name], rank), target)
    return real
