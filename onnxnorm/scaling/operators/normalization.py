"""Operators that normalize.

BatchNormalization multiplies and shifts by constants of shape `(C,)`. The scales of its input and output are both free.
The variance is left unchanged, since an epsilon is added to it, which would have to be scaled too::

    scale' = scale * s_out / s_in        mean' = mean * s_in        B' = B * s_out

The others divide by a statistic of their own input and an epsilon; the output is free::

    scale' = scale * s_out        B' = B * s_out

Their input keeps scale 1, unless attributes may change. Then it may have one scale for all its channels, since one
epsilon is added for all of them, and `norm(s x; s^2 epsilon) = norm(x; epsilon)`::

    epsilon' = epsilon * s_in ^ 2

BatchNormalization in training mode is one of these: it divides by the variance of the batch. Scale and B that are
computed from activations have scales of their own, which the output takes.

Input and output have the same shape, `(N, C, *spatial)`; that of Layer-, RMS- and LpNormalization may be any.

Source: the specification of ONNX's operators of these names, https://onnx.ai/onnx/operators/.
"""

from __future__ import annotations

from onnxnorm.scaling.laws import law
from onnxnorm.scaling.operand import Operand, Refusal
from onnxnorm.scaling.slots import Ids, at_rank
from onnxnorm.scaling.visit import Outcome, Visit

_OWN_INPUT = "it divides by a statistic of its input with an epsilon, an attribute, so the input keeps its scale"
_BATCH = "it normalizes by the batch, with an epsilon that is an attribute, so the input keeps its scale"
_SQUARED = "an epsilon of 1e-5 or so is added to its square"


@law("BatchNormalization", role="transparent")
def batch_normalization(visit: Visit) -> Outcome:
    """Output scales are free; the variance stays. In training mode, as InstanceNormalization; the mean follows too."""
    if visit.node.attribute("training_mode", 0):
        return _normalized_by_batch(visit)
    parameters = [operand for operand in visit.operands[1:] if operand is not None and operand.constant is not None]
    if len(parameters) != 4:
        return Refusal("its parameters are not constants")
    if any(visit.node.outputs[1:]) or not visit.node.attribute("spatial", 1):
        return Refusal("it normalizes by the batch or per position, not by constants per channel")
    scale, shift, mean, variance = parameters
    assert scale.constant is not None
    source = visit.first()
    channels = scale.constant.size
    if any(operand.shape != (channels,) for operand in parameters):
        return Refusal(f"its parameters are not {channels} numbers each, one for each channel")
    if source.shape is not None and (len(source.shape) < 2 or source.shape[1] != channels):
        return Refusal(f"its input has shape {source.shape}, its parameters {channels} channels")
    if source.shape is None and (source.uniform or source.ids.ndim < 3):
        return Refusal("the shape of its input is not known")
    over = visit.along(source, 1, channels)
    out = visit.fresh(channels)
    visit.edit(scale, times=out, over=over)
    visit.edit(shift, times=out)
    visit.edit(mean, times=over)
    visit.keep(variance)
    return out.reshape(1, channels, *[1] * (source.rank - 2))


@law("InstanceNormalization", role="transparent")
def instance_normalization(visit: Visit) -> Outcome:
    """The input keeps scale 1, or has one scale by epsilon. Output scales are free, by scale and B, `(C,)`."""
    return _normalized(visit, per_channel=True)


@law("GroupNormalization", role="transparent")
def group_normalization(visit: Visit) -> Outcome:
    """As InstanceNormalization. Before opset 21 scale and B are `(groups,)`, so the channels of a group are tied."""
    return _normalized(visit, per_channel=True)


@law("LayerNormalization", "RMSNormalization", role="transparent")
def layer_normalization(visit: Visit) -> Outcome:
    """As InstanceNormalization, with a scale and B that have the shape of the last axes."""
    return _normalized(visit, per_channel=False)


@law("LpNormalization")
def lp_normalization(visit: Visit) -> Outcome:
    """`x / |x|` without an epsilon: scales are tied along the axis and cancel, so the output has scale 1."""
    source = visit.first()
    if source.shape is None:
        return Refusal("the shape of its input is not known")
    visit.merge(source.ids, source.axis(visit.node.attribute("axis", -1)))
    return visit.unscaled("it does not depend on the scale of its input")


@law("LRN", role="transparent")
def local_response(visit: Visit) -> Outcome:
    """`x / (bias + alpha / size * sum of squares) ^ beta`: one scale passes if alpha may follow it."""
    alpha = visit.number("alpha", 1e-4)
    if alpha is None:
        return Refusal("it compares squares of its input with a bias, by alpha, which is an attribute")
    one = visit.one(visit.first())
    visit.edit(alpha, over=visit.power(one, 2, _SQUARED))
    return one


def _normalized_by_batch(visit: Visit) -> Outcome:
    """The running mean and variance, which are outputs too, follow the scale of the input."""
    one = _own_scale(visit, _BATCH)
    outcome = _affine(visit, per_channel=True)
    if isinstance(outcome, Refusal):
        return outcome
    if one is None:
        visit.keep_rest(3)
        return outcome
    square = visit.power(one, 2, _SQUARED)
    _follow(visit, visit.operand(3), one)
    _follow(visit, visit.operand(4), square)
    return [outcome, one, square]


def _normalized(visit: Visit, *, per_channel: bool) -> Outcome:
    """By statistics of the input; the mean and the inverse deviation of a LayerNormalization are outputs too."""
    one = _own_scale(visit, _OWN_INPUT)
    outcome = _affine(visit, per_channel=per_channel)
    if isinstance(outcome, Refusal):
        return outcome
    return [outcome] if one is None else [outcome, one, visit.power(one, -1, _SQUARED)][: len(visit.node.outputs)]


def _own_scale(visit: Visit, reason: str) -> Ids | None:
    """The one scale of an input that is divided by its own deviation; None if it keeps scale 1, for this reason."""
    visit.scaleless = "it is a statistic of an input that keeps its scale"
    epsilon = visit.number("epsilon", 1e-5)
    if epsilon is None:
        visit.pin(visit.first(), reason)
        return None
    one = visit.one(visit.first())
    visit.edit(epsilon, times=visit.power(one, 2, _SQUARED))
    return one


def _affine(visit: Visit, *, per_channel: bool) -> Ids | Refusal:
    """Slots behind the scale and B of a normalization: new ones if these are constants, else those that they have."""
    source, scale, shift = visit.first(), visit.operand(1), visit.operand(2)
    if source.shape is None or scale is None or scale.shape is None:
        return Refusal("the shape of its input, or that of its scale, is not known")
    if per_channel and len(source.shape) < 2:
        return Refusal(f"its input has shape {source.shape}, without channels")
    out = visit.fresh(*scale.shape) if scale.constant is not None else visit.solid(at_rank(scale.ids, len(scale.shape)))
    _follow(visit, scale, out)
    _follow(visit, shift, out)
    return _on_channels(out, source.shape) if per_channel else at_rank(out, source.rank)


def _follow(visit: Visit, operand: Operand | None, ids: Ids) -> None:
    """A parameter has these scales: a constant is multiplied by them, others share them."""
    if operand is not None and operand.constant is not None:
        visit.edit(operand, times=visit.spread(ids, operand))
    elif operand is not None:
        visit.tie(operand.ids, ids)


def _on_channels(out: Ids, shape: tuple[int, ...]) -> Ids:
    """Slots `(C,)`, or `(groups,)` that consecutive channels share, as `(1, C, 1, ...)` for a value of this shape."""
    return out.repeat(shape[1] // out.size).reshape(1, -1, *[1] * (len(shape) - 2))
