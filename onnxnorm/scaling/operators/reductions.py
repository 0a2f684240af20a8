"""Reductions, comparisons and sums along axes: elements that end in one number, or are compared, share one scale.

The input has any shape. The output has size 1 on reduced axes, or lacks them.

Source: the specification of ONNX's operators of these names, https://onnx.ai/onnx/operators/.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import prod

from onnxnorm.scaling.laws import law
from onnxnorm.scaling.operand import Refusal
from onnxnorm.scaling.slots import Ids, at_rank
from onnxnorm.scaling.visit import Outcome, Visit

_MOST_FACTORS = 4  # of a product; with more, its scale is soon beyond the range of a type


@law("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceL1", "ReduceL2")
def reduce(visit: Visit) -> Outcome:
    """Scales are tied along the reduced axes: over channels all share one scale, over spatial axes scales pass."""
    return _reduced(visit)


@law("ReduceSumSquare")
def reduce_squares(visit: Visit) -> Outcome:
    """As for other sums, with the square of the scale."""
    outcome = _reduced(visit)
    return outcome if isinstance(outcome, Refusal) else visit.power(outcome, 2, "it squares its input")


@law("ReduceProd")
def reduce_products(visit: Visit) -> Outcome:
    """As for sums; the scale is raised to the number of factors. Refused if sizes of the inputs decide that."""
    source = visit.first()
    axes = _axes(visit)
    if source.shape is None or axes is None:
        return Refusal("its axes or the shape of its input are not known")
    factors = prod(source.shape[axis] for axis in axes)
    if not {*axes}.isdisjoint(visit.graph.varying.get(source.name, ())):
        return Refusal("it raises its input to a power that the size of the input decides")
    if factors > _MOST_FACTORS:
        return Refusal(f"it multiplies {factors} elements, whose product could leave the range of its type")
    outcome = _reduced(visit)
    return outcome if isinstance(outcome, Refusal) else visit.power(outcome, factors, "it multiplies its elements")


@law("Det")
def determinant(visit: Visit) -> Outcome:
    """Scales are tied within a matrix; with n rows they are raised to n. Refused if sizes of the inputs decide that."""
    source = visit.first()
    if source.shape is None:
        return Refusal("the shape of its input is not known")
    rows = source.shape[-1]
    if not {source.rank - 1, source.rank - 2}.isdisjoint(visit.graph.varying.get(source.name, ())):
        return Refusal("it raises its input to a power that the size of the input decides")
    if rows > _MOST_FACTORS:
        return Refusal(f"it multiplies {rows} elements, whose product could leave the range of its type")
    tied = visit.merge_but(at_rank(source.ids, source.rank), range(source.rank - 2))
    return visit.power(tied.reshape(tied.shape[:-2]), rows, "it multiplies elements of a matrix")


def _axes(visit: Visit) -> list[int] | None:
    """The reduced axes; None if they are not known."""
    source = visit.first()
    if source.shape is None:
        return None
    axes = visit.node.attribute("axes")
    if visit.operand(1) is not None:
        axes = visit.numbers(1)
        if axes is None:
            return None
    if not axes and visit.node.attribute("noop_with_empty_axes", 0):
        return []
    return [source.axis(axis) for axis in axes] if axes else list(range(source.rank))


def _reduced(visit: Visit) -> Ids | Refusal:
    source = visit.first()
    if source.uniform:
        return source.ids.reshape(())
    if source.shape is None:
        return Refusal("the shape of its input is not known")
    reduced = _axes(visit)
    if reduced is None:
        return Refusal("its axes are not constant")
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
    return visit.merge(source.ids, source.axis(int(axis[0])))


@law("ArgMax", "ArgMin")
def arg(visit: Visit) -> Outcome:
    """Scales are tied along the axis; the index has none."""
    return _compared(visit, [visit.node.attribute("axis", 0)]) or visit.unscaled("it points at elements")


@law("Hardmax", role="nonlinearity")
def hardmax(visit: Visit) -> Outcome:
    """Scales are tied along the axis, before opset 13 along all from there on. The output is 0 or 1, so it has none."""
    axis = visit.node.attribute("axis", 1 if visit.node.opset < 13 else -1)
    axes = [axis] if visit.node.opset >= 13 else range(axis % max(1, visit.first().rank), visit.first().rank)
    return _compared(visit, axes) or visit.unscaled("it is 0 or 1")


@law("TopK")
def top(visit: Visit) -> Outcome:
    """Scales are tied along the axis, and pass; indices have none."""
    source, axis = visit.first(), visit.node.attribute("axis", -1)
    if source.shape is None:
        return Refusal("the shape of its input is not known")
    return visit.merge(source.ids, source.axis(axis))


@law("Unique")
def unique(visit: Visit) -> Outcome:
    """All elements are compared, so they share one scale, which passes; indices and counts have none."""
    return visit.one(visit.first())


@law("NonMaxSuppression")
def choose_boxes(visit: Visit) -> Outcome:
    """Boxes share one scale, which cancels out of overlaps. Scores share one, which their threshold follows."""
    boxes, scores, threshold = visit.operand(0), visit.operand(1), visit.operand(4)
    if boxes is None or scores is None or (threshold is not None and threshold.constant is None):
        return Refusal("its threshold is not a constant")
    for operand in (boxes, scores):
        if operand.constant is None:
            one = visit.one(operand)
            if operand is scores and threshold is not None:
                visit.edit(threshold, times=one)
    visit.pin_rest(2, "it says how many boxes are chosen")
    return visit.unscaled("it points at boxes")


@law("DFT")
def transform(visit: Visit) -> Outcome:
    """It is a sum: scales are tied along the axis, and between the real and the imaginary part."""
    source = visit.first()
    axis = [visit.node.attribute("axis", 1)]
    if visit.node.opset >= 20:
        axis = [-2] if visit.operand(2) is None else visit.numbers(2) or []
    if source.shape is None or not axis:
        return Refusal("its axis or the shape of its input is not known")
    return visit.merge(visit.merge(source.ids, source.axis(axis[0])), source.rank - 1)


@law("STFT")
def transform_frames(visit: Visit) -> Outcome:
    """It is a sum over a signal `(N, length, parts)`, whose scales are tied. A window that is no constant keeps 1."""
    source, window = visit.first(), visit.operand(2)
    if source.shape is None:
        return Refusal("the shape of its input is not known")
    if window is not None and window.constant is None:
        visit.pin(window, "it weights the signal")
    return visit.merge_but(source.ids, [0]).reshape(-1, 1, 1, 1)


def _compared(visit: Visit, axes: Iterable[int]) -> Refusal | None:
    """Tie scales along axes, since elements are compared."""
    source = visit.first()
    if source.shape is None and not source.uniform:
        return Refusal("the shape of its input is not known")
    ids: Ids = source.ids
    for axis in axes if source.shape else ():
        ids = visit.merge(ids, axis % source.rank)
    return None
