"""Operators that are positively homogeneous element by element: `f(s * x) = s * f(x)` for s > 0. Nothing changes.

The values decide, not the operator alone. Clip is one of them if its bounds are 0 and infinity; other bounds must be
scaled too, and since one bound holds for all channels, these must share one scale. The same holds for numbers that
other operators have as attributes.

Input and output have the same shape, of any rank. Bounds of a Clip have shape `()`; the slope of a PRelu broadcasts
against the input.

Source: the specification of ONNX's operators of these names, https://onnx.ai/onnx/operators/.
"""

from __future__ import annotations

import ml_dtypes
import numpy as np

from onnxnorm.model.tensors import FLOATS
from onnxnorm.scaling.laws import law
from onnxnorm.scaling.operand import Operand, Refusal
from onnxnorm.scaling.slots import Ids
from onnxnorm.scaling.visit import Outcome, Visit

__all__ = ["holds_for_any_scale"]


@law("Relu", "LeakyRelu", "Abs", role="nonlinearity")
@law("Identity", "Neg", "Dropout", role="transparent")
def homogeneous(visit: Visit) -> Outcome:
    """Scales pass. The ratio of a Dropout keeps scale 1 if it is not a constant."""
    visit.pin_rest(1, "it decides how much is dropped")
    return visit.first().ids


@law("Trilu")
def triangle(visit: Visit) -> Outcome:
    """Scales pass: it puts zeros in place of some elements, which agree with any scale."""
    return visit.first().ids


@law("PRelu", role="nonlinearity")
def prelu(visit: Visit) -> Outcome:
    """Scales pass for constant slopes of any shape. Other slopes keep scale 1, as positive elements have no slope."""
    visit.keep_rest(1)
    visit.pin_rest(1, "it is a slope for negative elements, and positive ones have none")
    return visit.first().ids


@law("ThresholdedRelu", role="nonlinearity")
def thresholded_relu(visit: Visit) -> Outcome:
    """Scales pass if the threshold is 0. Another one follows one scale of all channels, where attributes may change."""
    alpha = visit.node.attribute("alpha", 1.0)
    if alpha == 0:
        return visit.first().ids
    return _follows(visit, {"alpha": 1.0}, f"its threshold {alpha:g} is not 0, and an attribute")


@law("Shrink", role="nonlinearity")
def shrink(visit: Visit) -> Outcome:
    """lambd and bias follow one scale of all channels, where attributes may change."""
    return _follows(visit, {"lambd": 0.5, "bias": 0.0}, "it shrinks by lambd and bias, which are attributes")


@law("Celu", role="nonlinearity")
def celu(visit: Visit) -> Outcome:
    """`max(0, x) + min(0, alpha * (exp(x / alpha) - 1))`: alpha follows one scale, where attributes may change."""
    return _follows(visit, {"alpha": 1.0}, "it bends at alpha, which is an attribute")


@law("Swish", role="nonlinearity")
def swish(visit: Visit) -> Outcome:
    """`x * sigmoid(alpha * x)`: alpha follows the inverse of one scale, where attributes may change."""
    alpha = visit.number("alpha", 1.0)
    if alpha is None:
        return Refusal("scaling its input does not just scale its output, since alpha is an attribute")
    one = visit.one(visit.first())
    visit.edit(alpha, over=one)
    return one


@law("HardSigmoid", role="nonlinearity")
def hard_sigmoid(visit: Visit) -> Outcome:
    """`max(0, min(1, alpha * x + beta))`: alpha follows the inverse of one scale; the output has none."""
    alpha = visit.number("alpha", 0.2)
    if alpha is None:
        return Refusal("scaling its input does not just scale its output, since alpha is an attribute")
    visit.edit(alpha, over=visit.one(visit.first()))
    return visit.unscaled("it lies between 0 and 1")


def _follows(visit: Visit, defaults: dict[str, float], reason: str) -> Outcome:
    """One scale for all channels passes, and attributes follow it. Refused where attributes may not change."""
    one: Ids | None = None
    for name, default in defaults.items():
        number = visit.number(name, default)
        if number is None:
            return Refusal(reason)
        one = visit.one(visit.first()) if one is None else one
        visit.edit(number, times=one)
    assert one is not None
    return one


@law("Cast", "CastLike", role="transparent")
def cast(visit: Visit) -> Outcome:
    """Scales pass between floating-point types of 16 bits or more; casts of other types are refused."""
    source, target = visit.graph.types.get(visit.node.inputs[0]), visit.graph.types.get(visit.node.outputs[0])
    if source in FLOATS and target in FLOATS:
        return visit.first().ids
    return Refusal("it casts to or from something else than floating point of 16 bits or more")


@law("Sign", "IsNaN", "IsInf", "NonZero")
def sign(visit: Visit) -> Outcome:
    """The output does not depend on the scale of the input, so it has scale 1, and the input may have any."""
    return visit.unscaled("it does not depend on the scale of its input")


@law("Clip", role="nonlinearity")
def clip(visit: Visit) -> Outcome:
    """Scales pass if the bounds are 0 or infinite. For other bounds all channels are tied, and the bounds scaled."""
    source = visit.first()
    if visit.node.opset < 11:
        return _clipped_by_attributes(visit, source)
    given = [operand for operand in (visit.operand(1), visit.operand(2)) if operand is not None]
    if any(operand.constant is None for operand in given):
        return Refusal("its bounds are not constants")
    bounding = [operand for operand in given if not _bounds_nothing(operand)]
    if not bounding:
        return source.ids
    return _clipped(visit, visit.solid(source.ids), bounding)


def _clipped_by_attributes(visit: Visit, source: Operand) -> Outcome:
    bounds = {name: visit.node.attribute(name, None) for name in ("min", "max")}
    bounding = [
        name for name, bound in bounds.items() if bound is not None and not holds_for_any_scale(np.asarray(bound, "f4"))
    ]
    if not bounding:
        return source.ids
    if not visit.may_change_attributes():
        return Refusal("its bounds are attributes")
    numbers = [visit.number(name, 0.0) for name in bounding]
    return _clipped(visit, visit.solid(source.ids), [number for number in numbers if number is not None])


def _clipped(visit: Visit, ids: Ids, bounding: list[Operand]) -> Ids:
    one = visit.merge_but(ids, [])
    for operand in bounding:
        visit.edit(operand, times=one.reshape(-1)[:1], bounds=True)
    return ids


def _bounds_nothing(bound: Operand) -> bool:
    constant = bound.constant
    return constant is not None and not constant.by_shape and holds_for_any_scale(np.asarray(constant.values()))


def holds_for_any_scale(bound: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> bool:
    """Whether a bound holds for a scaled value too: 0, and bounds that no number of the type exceeds."""
    value = abs(float(bound.reshape(-1)[0])) if bound.size else np.inf
    dtype = np.float32 if bound.dtype.kind in "biu" else bound.dtype
    return value == 0 or value >= float(ml_dtypes.finfo(dtype).max)  # type: ignore[no-untyped-call]
