"""Operators that move data: scales move along.

The operator itself is run, by ONNX's reference implementation, on the slots in place of the values. They are first
broadcast to the value's real shape along the axes that the operator works on, and squeezed again afterwards. Concat,
channel shuffles, NHWC round trips and DepthToSpace thus need no index arithmetic of ours. Zeros that an operator puts
in (Pad, Trilu) come out as slot `ZERO`, which is what they are.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnxnorm.model.shapes import evaluate
from onnxnorm.scaling.laws import Operand, Outcome, Refusal, Visit, law
from onnxnorm.scaling.slots import ZERO, Ids, at_rank, squeezed

__all__ = ["moved", "moving_ids"]


@law("Reshape", "Flatten", "DepthToSpace", "SpaceToDepth", "Tile", "Trilu", "GatherND", "GatherElements")
def rearrange(visit: Visit) -> Outcome:
    """The first input is moved; the others say where to."""
    return moved(visit)


@law("Transpose", role="keeps")
def transpose(visit: Visit) -> Outcome:
    """Works on the order of axes alone."""
    return moved(visit, axes=())


@law("Squeeze", "Unsqueeze")
def squeeze(visit: Visit) -> Outcome:
    """Works on axes of size 1; a Squeeze that names none must see the real sizes of the others."""
    named = visit.node.attribute("axes") is not None or visit.operand(1) is not None
    return moved(visit, axes=() if named else None)


@law("Split")
def split(visit: Visit) -> Outcome:
    """Works on one axis."""
    return moved(visit, axes=(visit.node.attribute("axis", 0),))


@law("Slice")
def slice_(visit: Visit) -> Outcome:
    """Works on the axes it names."""
    axes = visit.node.attribute("axes")
    constant = visit.constant(3)
    if constant is not None:
        axes = constant.values().reshape(-1).tolist()
    return moved(visit, axes=None if axes is None else tuple(axes))


@law("Gather")
def gather(visit: Visit) -> Outcome:
    """Works on one axis, which the indices replace."""
    return moved(visit, axes=(visit.node.attribute("axis", 0),))


@law("Concat")
def concat(visit: Visit) -> Outcome:
    """Works on one axis; every input is moved."""
    return moved(visit, data=range(len(visit.operands)), axes=(visit.node.attribute("axis", 0),))


@law("Expand")
def expand(visit: Visit) -> Outcome:
    """Repeats along axes, which is what broadcasting slots does anyway."""
    shape = visit.output_shape()
    return at_rank(visit.first().ids, visit.first().ids.ndim if shape is None else len(shape))


def moving_ids(visit: Visit, operand: Operand) -> Ids:
    """The slots of an operand that may be a constant: one that is all zeros fits any scale."""
    del visit
    if operand.constant is not None and not np.any(operand.constant.values()):
        return np.full((1,) * len(operand.constant.shape), ZERO, np.int64)
    return operand.ids


def moved(visit: Visit, data: Sequence[int] = (0,), axes: Sequence[int] | None = None) -> Outcome:
    """Run the node on the slots of the inputs `data`; it works on `axes` only (None: on all)."""
    operands = [visit.operands[position] for position in data]
    sources = [operand for operand in operands if operand is not None]
    ids = {operand.name: moving_ids(visit, operand) for operand in sources}
    if all(array.size == 1 and array.flat[0] == ids[sources[0].name].flat[0] for array in ids.values()):
        one = ids[sources[0].name].reshape(())
        return [one for _ in visit.node.outputs]
    if any(operand.shape is None for operand in sources):
        return Refusal("the shape of what it moves is not known")
    for operand in visit.present():
        if operand.name in ids:
            continue
        if operand.constant is None:
            return Refusal(f"where it moves things is computed from the graph's inputs ({operand.name!r})")
    real = _broadcast(sources, ids, axes)
    real |= {o.name: o.constant.values() for o in visit.present() if o.constant is not None and o.name not in ids}
    return [squeezed(np.asarray(result, np.int64)) for result in evaluate(visit.node, real)]


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
