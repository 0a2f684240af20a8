"""Multiplication and division.

By a constant, scales pass and nothing changes. For two activations, the scale of the result is the product (or the
quotient) of their scales. If one of the two is pinned, the other scale passes; otherwise the smaller operand, the gate,
is pinned. Which case applies is known only after the walk, so the law states the product, and `groups.solve` decides.

Operands have any shapes that broadcast against each other.

Source: the specification of ONNX's operators Mul and Div, https://onnx.ai/onnx/operators/.
"""

from __future__ import annotations

import numpy as np

from onnxnorm.scaling.laws import Operand, Outcome, Refusal, Visit, law
from onnxnorm.scaling.slots import ZERO, Ids, at_rank

_UNALIGNED = "the shapes of what it multiplies are not known"


@law("Mul", role="transparent")
def multiply(visit: Visit) -> Outcome:
    """By a constant, scales pass. Of two activations, the pinned or else the smaller has scale 1; the other passes."""
    a, b = visit.present()
    if a.constant is not None or b.constant is not None:
        return _passed(visit, *((b, a) if a.constant is not None else (a, b)))
    if not visit.aligned([a, b]):
        return Refusal(_UNALIGNED)
    large, small = (a, b) if a.ids.size >= b.ids.size else (b, a)
    ids = _result(visit, a, b)
    visit.relate(ids, large.ids, small.ids, "it multiplies two activations, so one of them keeps its scale")
    return ids


@law("Div", role="transparent")
def divide(visit: Visit) -> Outcome:
    """By a constant, scales pass. By an activation, as for Mul. A constant divided by an activation is refused."""
    a, b = visit.present()
    if b.constant is not None:
        return _passed(visit, a, b)
    if a.constant is not None:
        return Refusal("it divides a constant by an activation")
    if not visit.aligned([a, b]):
        return Refusal(_UNALIGNED)
    ids = _result(visit, a, b)
    visit.relate(np.where(at_rank(a.ids, ids.ndim) == ZERO, ZERO, a.ids), ids, b.ids, "it divides by an activation")
    return ids


def _passed(visit: Visit, operand: Operand, constant: Operand) -> Outcome:
    if not visit.aligned([operand, constant]):
        return Refusal(_UNALIGNED)
    visit.keep(constant)
    return operand.ids


def _result(visit: Visit, a: Operand, b: Operand) -> Ids:
    """New slots for the product of two values, in the shape of both broadcast; `ZERO` where either is zero."""
    left, right = np.broadcast_arrays(a.ids, b.ids)
    return np.where((left == ZERO) | (right == ZERO), ZERO, visit.fresh(*left.shape))
