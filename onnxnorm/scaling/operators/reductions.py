"""Reductions that are homogeneous of degree one: all that is reduced into one number must share one scale."""

from __future__ import annotations

from onnxnorm.scaling.laws import Outcome, Refusal, Visit, law
from onnxnorm.scaling.slots import Ids


@law("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceL1", "ReduceL2")
def reduce(visit: Visit) -> Outcome:
    """What is reduced into one number shares a scale: over channels they are tied, over space scales pass."""
    source = visit.first()
    if source.uniform:
        return source.ids.reshape(())
    if source.shape is None:
        return Refusal("the shape of its input is not known")
    axes = visit.node.attribute("axes")
    if visit.operand(1) is not None:
        constant = visit.constant(1)
        if constant is None:
            return Refusal("its axes are not constant")
        axes = constant.values().reshape(-1).tolist()
    if not axes and visit.node.attribute("noop_with_empty_axes", 0):
        return source.ids
    reduced = [axis % source.rank for axis in axes] if axes else list(range(source.rank))
    ids: Ids = source.ids
    for axis in reduced:
        ids = visit.merge(ids, axis)
    if visit.node.attribute("keepdims", 1):
        return ids
    return ids.reshape([size for axis, size in enumerate(ids.shape) if axis not in reduced])


@law("CumSum")
def cumsum(visit: Visit) -> Outcome:
    """What lies along its axis is tied."""
    source, axis = visit.first(), visit.constant(1)
    if source.uniform:
        return source.ids
    if source.shape is None or axis is None:
        return Refusal("its axis or the shape of its input is not known")
    return visit.merge(source.ids, int(axis.values().reshape(-1)[0]) % source.rank)
