"""Operators that join values: `f(s * x, s * y) = s * f(x, y)`. Operands share one scale.

Operands broadcast against each other; their slots are tied wherever their elements meet. Constants are multiplied by
the scale.

Source: the specification of ONNX's operators of these names, https://onnx.ai/onnx/operators/.
"""

from __future__ import annotations

import numpy as np

from onnxnorm.scaling.laws import Operand, Outcome, Refusal, Visit, law
from onnxnorm.scaling.operators.movement import moving_ids
from onnxnorm.scaling.slots import Ids, at_rank

_UNALIGNED = "the shapes of what it joins are not known"


@law("Add", "Sub", "Sum", "Mean", "Max", "Min", role="transparent")
def join(visit: Visit) -> Outcome:
    """Elements that meet share a scale; constants are multiplied by it. One that meets several channels ties them."""
    return _joined(visit, visit.present())


@law("Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Equal")
def compare(visit: Visit) -> Outcome:
    """A comparison with the constant 0 depends on signs only, so its input may have any scale. Others are refused."""
    if any(operand.constant is not None and not operand.constant.nonzero().any() for operand in visit.present()):
        return visit.unscaled("it says how a value compares with 0, which does not depend on its scale")
    return Refusal("it compares with something else than the constant 0")


@law("Where")
def where(visit: Visit) -> Outcome:
    """Elements of the two operands that meet share a scale; the condition has none."""
    if not visit.aligned(visit.present()):
        return Refusal(_UNALIGNED)
    return _joined(visit, visit.present()[1:])


def _joined(visit: Visit, operands: list[Operand]) -> Outcome:
    if not visit.aligned(operands):
        return Refusal(_UNALIGNED)
    activations = [moving_ids(operand) for operand in operands if operand.constant is None]
    constants = [operand for operand in operands if operand.constant is not None]
    if not activations:  # a Where that selects from constants
        activations, constants = [moving_ids(operand) for operand in operands], []
    rank = max(ids.ndim for ids in activations)
    aligned = np.broadcast_arrays(*(at_rank(ids, rank) for ids in activations))
    joined: Ids = np.asarray(np.maximum.reduce(aligned))
    for ids in activations:
        visit.tie(joined, at_rank(ids, rank))
    if constants:
        joined = visit.solid(joined)
    for operand in constants:
        assert operand.constant is not None
        if not operand.constant.nonzero().any():
            visit.keep(operand)
            continue
        visit.edit(operand, times=visit.spread(joined, operand))
    return joined
