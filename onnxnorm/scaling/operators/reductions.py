"""Reductions that are homogeneous of degree one: elements that are reduced into one number must share one scale.

The input has any shape. The output has size 1 on reduced axes, or lacks them.

Source: the specification of ONNX's operators of these names, https://onnx.ai/onnx/operators/.
"""

from __future__ import annotations

from onnxnorm.scaling.laws import Outcome, Refusal, Visit, law
from onnxnorm.scaling.slots import Ids


@law("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceL1", "ReduceL2")
def reduce(visit: Visit) -> Outcome:
    """Scales are tied along the reduced axes: over channels all share one scale, over spatial axes scales pass."""
    return _reduced(visit)


@law("ReduceSumSquare")
def reduce_squares(visit: Visit) -> Outcome:
    """As for other sums, with the square of the scale."""
    outcome = _reduced(visit)
    return outcome if isinstance(outcome, Refusal) else visit.power(outcome, 2, "it squares its input")


def _reduced(visit: Visit) -> Ids | Refusal:
    source = visit.first()
    if source.uniform:
        return source.ids.reshape(())
    if source.shape is None:
        return Refusal("the shape of its input is not known")
    axes = visit.node.attribute("axes")
    if visit.operand(1) is not None:
        axes = visit.numbers(1)
        if axes is None:
            return Refusal("its axes are not constant")
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
    """Scales are tied along the axis over which it sums."""
    source, axis = visit.first(), visit.numbers(1)
    if source.uniform:
        return source.ids
    if source.shape is None or axis is None:
        return Refusal("its axis or the shape of its input is not known")
    return visit.merge(source.ids, int(axis[0]) % source.rank)
