"""Products, quotients and powers: logarithms of scales are added, subtracted and multiplied.

A constant factor is a free place, like the scale of a BatchNormalization: it follows both sides::

    c' = c * s_out / s_in

The scale of a product of two activations is the product of their scales. So the scales of `q @ k^T` cancel if one is
the inverse of the other, a gate whose scale is 1 passes the other scale on, and a layer normalization that is written
out has scale 1 whatever that of its input is.

Operands have any shapes that broadcast against each other.

Source: the specification of ONNX's operators of these names, https://onnx.ai/onnx/operators/.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from onnxnorm.scaling.laws import law
from onnxnorm.scaling.operand import Operand, Refusal
from onnxnorm.scaling.slots import ZERO, Ids, at_rank
from onnxnorm.scaling.visit import Outcome, Visit

__all__ = ["MOST_PRODUCTS", "contracted", "kept_reason"]

_UNALIGNED = "the shapes of what it multiplies are not known"
_CANCELS = "it multiplies or divides, as in x * sigmoid(x), and the other scales there leave this one no choice but 1"

MOST_PRODUCTS = 1 << 18  # of two activations that are multiplied as matrices
_MOST_TOLD = 1 << 12  # scales of a constant that is multiplied by a value of one scale
_ROOTS = 12  # the largest denominator of an exponent


@law("Mul", role="transparent")
def multiply(visit: Visit) -> Outcome:
    """A constant factor follows the scales on both sides. Scales of two activations are multiplied."""
    a, b = visit.present()
    if not visit.aligned([a, b]):
        return Refusal(_UNALIGNED)
    if a.constant is not None or b.constant is not None:
        source, constant = (b, a) if a.constant is not None else (a, b)
        return _by_constant(visit, source, constant)
    out = visit.like(a.ids, b.ids)
    visit.relate([(-1, out), (1, a.ids), (1, b.ids)], _CANCELS)
    return out


@law("Div", role="transparent")
def divide(visit: Visit) -> Outcome:
    """A constant divisor or dividend follows the scales on both sides. Scales of two activations are divided."""
    a, b = visit.present()
    if not visit.aligned([a, b]):
        return Refusal(_UNALIGNED)
    if b.constant is not None:
        return _by_constant(visit, a, b, divides=True)
    if a.constant is not None:
        return _dividing_constant(visit, a, b)
    out = visit.like(a.ids, b.ids)
    visit.relate([(-1, out), (1, np.where(at_rank(a.ids, out.ndim) == ZERO, ZERO, a.ids)), (-1, b.ids)], _CANCELS)
    return out


@law("Reciprocal")
def reciprocal(visit: Visit) -> Outcome:
    """The scale is inverted."""
    return visit.power(visit.solid(visit.first().ids), -1, _CANCELS)


@law("Sqrt")
def square_root(visit: Visit) -> Outcome:
    """The scale is the root."""
    return visit.power(visit.first().ids, Fraction(1, 2), _CANCELS)


@law("Pow")
def power(visit: Visit) -> Outcome:
    """The scale is raised to the same power, if that is one constant, a fraction of small numbers."""
    base, exponent = visit.operand(0), visit.constant(1)
    assert base is not None
    if exponent is None:
        return Refusal("its exponent is not a constant")
    if exponent.by_shape or not exponent.size:
        return Refusal("its exponent depends on the size of the input")
    if base.constant is not None:
        return Refusal("it raises a constant to a power")
    values = np.unique(exponent.values().astype(np.float64))
    if len(values) > 1 or not np.isfinite(values).all():
        return Refusal("it raises different elements to different powers")
    factor = Fraction(float(values[0])).limit_denominator(_ROOTS)
    if abs(float(factor) - values[0]) > np.finfo(np.float32).eps * abs(values[0]):
        return Refusal(f"its exponent {values[0]:g} is not a fraction of small numbers")
    visit.keep_rest(1)
    if factor == 1:
        return base.ids
    if factor == 0:
        return visit.unscaled("anything to the power of 0 is 1")
    return visit.power(base.ids if factor > 0 else visit.solid(base.ids), factor, _CANCELS)


@law("SwiGLU")
def gated(visit: Visit) -> Outcome:
    """`a * sigmoid(alpha * a) * b`: the scale of b passes. The gate a keeps scale 1, or has one that alpha follows."""
    gate, value = visit.present()
    if not visit.aligned([gate, value]):
        return Refusal(_UNALIGNED)
    alpha = visit.number("alpha", 1.0)
    if alpha is None:
        visit.pin(gate, "scaling its input does not just scale its output, since alpha is an attribute")
        return value.ids
    one = visit.one(gate)
    visit.edit(alpha, over=one)
    out = visit.like(value.ids)
    visit.relate([(-1, out), (1, value.ids), (1, at_rank(one, out.ndim))], _CANCELS)
    return out


def _by_constant(visit: Visit, source: Operand, operand: Operand, *, divides: bool = False) -> Ids:
    """Slots of a value times a constant, or divided by one.

    Scales of the output are free where the constant has an element for each scale of the input. Otherwise the constant
    follows one scale for each of those that it can tell apart, which is a factor of the output's scales.
    """
    constant = operand.constant
    assert constant is not None
    if not visit.editable(operand) or not constant.size or not constant.nonzero().any():
        visit.keep(operand)
        return source.ids
    rank = max(source.ids.ndim, len(constant.shape))
    ids, shape = at_rank(source.ids, rank), (1,) * (rank - len(constant.shape)) + constant.shape
    varies = [axis for axis in range(rank) if ids.shape[axis] > 1]
    told = [axis for axis in varies if shape[axis] > 1]
    if not varies:
        sizes = np.cumprod(shape)
        told = [axis for axis in range(rank) if shape[axis] > 1 and sizes[axis] <= _MOST_TOLD]
    factor = visit.fresh(*(shape[axis] if axis in told else 1 for axis in range(rank)))
    if set(varies) <= set(told):
        out = np.where(np.broadcast_to(ids, factor.shape) == ZERO, ZERO, factor)
        _edit(visit, operand, out, ids, divides=divides)
        return out
    out = visit.like(ids, factor)
    if visit.opened and constant.size == 1:
        each = visit.like(ids)
        visit.share(operand, each)
        visit.relate([(-1, out), (1, ids), (1, each)], _CANCELS)
        return out
    visit.relate([(-1, out), (1, ids), (1, factor)], _CANCELS)
    _edit(visit, operand, factor, None, divides=divides)
    return out


def _edit(visit: Visit, operand: Operand, gain: Ids, loss: Ids | None, *, divides: bool) -> None:
    assert operand.constant is not None
    rank = len(operand.constant.shape)
    up, down = (None if ids is None else at_rank(ids, rank) for ids in (gain, loss))
    visit.edit(operand, times=down if divides else up, over=up if divides else down)


def _dividing_constant(visit: Visit, dividend: Operand, divisor: Operand) -> Ids:
    """`c / x`: the scale of x is inverted, and the constant is a free place."""
    return _by_constant(visit, divisor._replace(ids=visit.power(visit.solid(divisor.ids), -1, _CANCELS)), dividend)


def contracted(visit: Visit, a: Ids, b: Ids, reason: str) -> Ids:
    """Slots of `A @ B` for two activations with slots `(..., M, K)` and `(..., K, N)`: those of all k must agree."""
    k = max(a.shape[-1], b.shape[-2])
    rows = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    if np.prod(rows) * a.shape[-2] * k * b.shape[-1] > MOST_PRODUCTS:
        a, b = visit.merge(a, a.ndim - 1), visit.merge(b, b.ndim - 2)
    out = visit.fresh(*rows, a.shape[-2], b.shape[-1])
    visit.relate([(-1, out[..., :, None, :]), (1, a[..., :, :, None]), (1, b[..., None, :, :])], reason)
    return out


def kept_reason(*operands: Operand) -> str:
    """Why scales around a product have to cancel: a constant that may not change, if there is one."""
    constants = [operand.constant for operand in operands if operand.constant is not None and operand.constant.fixed]
    return f"constant {constants[0].name!r} {constants[0].fixed}" if constants else _CANCELS
