"""Operators that are positively homogeneous element by element: `f(s * x) = s * f(x)` for s > 0. Nothing changes.

The values decide, not the operator alone. Clip is one of them if its bounds are 0 and infinity; other bounds must be
scaled too, and since one bound holds for all channels, these must share one scale.

Input and output have the same shape, of any rank. Bounds of a Clip have shape `()`; the slope of a PRelu broadcasts
against the input.

Source: the specification of ONNX's operators of these names, https://onnx.ai/onnx/operators/.
"""

from __future__ import annotations

import ml_dtypes
import numpy as np

from onnxnorm.model.tensors import FLOATS
from onnxnorm.scaling.laws import Operand, Outcome, Refusal, Visit, law
from onnxnorm.scaling.slots import Ids


@law("Relu", "LeakyRelu", "Abs", role="nonlinearity")
@law("Identity", "Neg", "Dropout", role="transparent")
def homogeneous(visit: Visit) -> Outcome:
    """Scales pass. The ratio of a Dropout keeps scale 1 if it is not a constant."""
    visit.pin_rest(1, "it decides how much is dropped")
    return visit.first().ids


@law("PRelu", role="nonlinearity")
def prelu(visit: Visit) -> Outcome:
    """Scales pass for constant slopes of any shape; other slopes are refused."""
    slope = visit.operand(1)
    if slope is None or slope.constant is None:
        return Refusal("its slope is not a constant")
    visit.keep(slope)
    return visit.first().ids


@law("ThresholdedRelu", role="nonlinearity")
def thresholded_relu(visit: Visit) -> Outcome:
    """Scales pass if the threshold is 0. Others are refused, since a rewrite does not change attributes."""
    alpha = visit.node.attribute("alpha", 1.0)
    return visit.first().ids if alpha == 0 else Refusal(f"its threshold {alpha:g} is not 0")


@law("Cast", "CastLike", role="transparent")
def cast(visit: Visit) -> Outcome:
    """Scales pass between floating-point types of 16 bits or more; casts of other types are refused."""
    source, target = visit.graph.types.get(visit.node.inputs[0]), visit.graph.types.get(visit.node.outputs[0])
    if source in FLOATS and target in FLOATS:
        return visit.first().ids
    return Refusal("it casts to or from something else than floating point of 16 bits or more")


@law("Sign", "IsNaN", "IsInf")
def sign(visit: Visit) -> Outcome:
    """The output does not depend on the scale of the input, so it has scale 1, and the input may have any."""
    return visit.unscaled("it does not depend on the scale of its input")


@law("Clip", role="nonlinearity")
def clip(visit: Visit) -> Outcome:
    """Scales pass if the bounds are 0 or infinite. For other bounds all channels are tied, and the bounds scaled."""
    source = visit.first()
    if visit.node.opset < 11:
        bounds = [visit.node.attribute(name, default) for name, default in (("min", -np.inf), ("max", np.inf))]
        if all(_inert(np.asarray(bound, np.float32)) for bound in bounds):
            return source.ids
        return Refusal("its bounds are attributes, which a rewrite leaves alone")
    given = [operand for operand in (visit.operand(1), visit.operand(2)) if operand is not None]
    if any(operand.constant is None for operand in given):
        return Refusal("its bounds are not constants")
    bounding = [operand for operand in given if not _is_inert(operand)]
    if not bounding:
        return source.ids
    return _clipped(visit, visit.solid(source.ids), bounding)


def _clipped(visit: Visit, ids: Ids, bounding: list[Operand]) -> Ids:
    one = visit.merge_but(ids, [])
    for operand in bounding:
        visit.edit(operand, times=one.reshape(-1)[:1], bounds=True)
    return ids


def _is_inert(bound: Operand) -> bool:
    constant = bound.constant
    return constant is not None and not constant.by_shape and _inert(np.asarray(constant.values()))


def _inert(bound: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> bool:
    """Whether a bound holds for a scaled value too: 0, and bounds that no number of the type exceeds."""
    value = abs(float(bound.reshape(-1)[0])) if bound.size else np.inf
    dtype = np.float32 if bound.dtype.kind in "biu" else bound.dtype
    return value == 0 or value >= float(ml_dtypes.finfo(dtype).max)  # type: ignore[no-untyped-call]
