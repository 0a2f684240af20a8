"""Operators that mix channels with constant weights: Conv, ConvTranspose, Gemm, MatMul.

Output scales are free. For a weight `W[o, i]` and a bias `b[o]`::

    W'[o, i] = W[o, i] * s_out[o] / s_in[i]        b'[o] = b[o] * s_out[o]

A weight that is computed from activations has scales of its own, and one that may not change has scale 1: then the
output has the product of the scales of the weight and of the input.

Scales of the input may vary along its channel axis only; along other axes they are tied. Convolutions read
`(N, C_in, *spatial)` and write `(N, C_out, *spatial)`; their bias has shape `(C_out,)`. Gemm multiplies `(M, K)` by
`(K, N)`, and MatMul `(..., M, K)` by `(..., K, N)`.

Source: the specification of ONNX's operators Conv, ConvTranspose, DeformConv, Gemm and MatMul,
https://onnx.ai/onnx/operators/.
"""

from __future__ import annotations

import numpy as np

from onnxnorm.scaling.laws import law
from onnxnorm.scaling.operand import Operand, Refusal
from onnxnorm.scaling.operators.products import contracted, kept_reason
from onnxnorm.scaling.slots import Ids, at_rank
from onnxnorm.scaling.visit import Outcome, Visit

_MOST_PAIRS = 1 << 18  # of channels that a computed weight connects


@law("Conv", role="mixing")
def conv(visit: Visit) -> Outcome:
    """Output scales are free. Weight: `(C_out, C_in/group, *kernel)`; a filter reads the channels of its group."""
    return _convolved(visit, visit.operand(2))


@law("DeformConv", role="mixing")
def deform_conv(visit: Visit) -> Outcome:
    """As Conv. The offsets at which it samples its input, and the mask that weights the samples, keep scale 1."""
    for position in (2, 4):
        operand = visit.operand(position)
        if operand is not None and operand.constant is None:
            visit.pin(operand, "it says where the operator reads, and how much that counts")
    return _convolved(visit, visit.operand(3))


def _convolved(visit: Visit, bias: Operand | None) -> Outcome:
    weight = visit.operand(1)
    if weight is None or weight.shape is None:
        return Refusal("the shape of its weight is not known")
    group = visit.node.attribute("group", 1)
    filters, per_group, *kernel = weight.shape
    if group < 1 or filters % group:
        return Refusal(f"its {filters} filters cannot be divided into {group} groups")
    source = _unbiased(bias, filters) or _channels(visit, per_group * group, len(weight.shape))
    if isinstance(source, Refusal):
        return source
    out = visit.fresh(filters)
    ones = [1] * len(kernel)
    over = source.reshape(group, per_group)
    if group > 1:
        over = over.repeat(filters // group, axis=0)
    if visit.editable(weight):
        visit.edit(weight, times=out.reshape(filters, 1, *ones), over=over.reshape(-1, per_group, *ones))
    else:
        _convolved_as_is(visit, weight, (filters, per_group, 1), out.reshape(-1, 1, 1), over[..., None])
    return _biased(visit, bias, out) or out.reshape(1, filters, *ones)


def _convolved_as_is(visit: Visit, weight: Operand, shape: tuple[int, int, int], out: Ids, source: Ids) -> None:
    """A weight that is computed, or that may not change: `s_out = s_weight * s_in`, for all that is summed.

    The slots of the weight, which vary along its first two axes, take this shape, against which those of the output
    and of the input broadcast. The sum is over axis 1.
    """
    held = weight.ids.reshape(-1, 1, 1)
    if weight.constant is None:
        ids = visit.merge_but(at_rank(weight.ids, len(weight.shape or ())), [0, 1])
        held = np.broadcast_to(ids.reshape(ids.shape[:2]), (weight.shape or ())[:2]).reshape(shape)
    if weight.constant is not None or int(np.prod(shape)) > _MOST_PAIRS:
        source, held = visit.merge(source, 1), visit.merge(held, 1)
    visit.keep(weight)
    visit.relate([(-1, out), (1, held), (1, source)], kept_reason(weight))


@law("ConvTranspose", role="mixing")
def conv_transpose(visit: Visit) -> Outcome:
    """Output scales are free. Weight: `(C_in, C_out/group, *kernel)`; a channel feeds the filters of its group."""
    weight = visit.operand(1)
    if weight is None or weight.shape is None:
        return Refusal("the shape of its weight is not known")
    group = visit.node.attribute("group", 1)
    channels, per_group, *kernel = weight.shape
    if group < 1 or channels % group:
        return Refusal(f"its {channels} input channels cannot be divided into {group} groups")
    source = _unbiased(visit.operand(2), per_group * group) or _channels(visit, channels, len(weight.shape))
    if isinstance(source, Refusal):
        return source
    out = visit.fresh(per_group * group)
    ones = [1] * len(kernel)
    each = channels // group
    if visit.editable(weight):
        times = out.reshape(group, per_group).repeat(each, axis=0)
        visit.edit(weight, times=times.reshape(channels, per_group, *ones), over=source.reshape(channels, 1, *ones))
    else:
        summed = source.reshape(group, each, 1)
        _convolved_as_is(visit, weight, (group, each, per_group), out.reshape(group, 1, per_group), summed)
    return _biased(visit, visit.operand(2), out) or out.reshape(1, -1, *ones)


@law("Gemm", role="mixing")
def gemm(visit: Visit) -> Outcome:
    """`alpha * A @ B + beta * C`: output scales are free if A or B is constant. alpha and beta stay as they are."""
    a, b = visit.operand(0), visit.operand(1)
    assert a is not None
    assert b is not None
    inner_a, inner_b = (0 if visit.node.attribute("transA", 0) else 1), (1 if visit.node.attribute("transB", 0) else 0)
    if b.constant is not None and visit.editable(b):
        out = _multiplied(visit, a, inner_a, b, inner_b)
        ids = out if isinstance(out, Refusal) else out.reshape(1, -1)
    elif a.constant is not None and visit.editable(a):
        out = _multiplied(visit, b, inner_b, a, inner_a)
        ids = out if isinstance(out, Refusal) else out.reshape(-1, 1)
    elif a.shape is None or b.shape is None:
        return Refusal("the shapes of what it multiplies are not known")
    else:
        left, right = (at_rank(operand.ids, 2) for operand in (a, b))
        visit.keep(a)
        visit.keep(b)
        reason = kept_reason(a, b)
        ids = contracted(visit, left if inner_a else left.T, right.T if inner_b else right, reason)
    return ids if isinstance(ids, Refusal) else _biased(visit, visit.operand(2), ids) or ids


@law("MatMul", role="mixing")
def matmul(visit: Visit) -> Outcome:
    """`A @ B`: output scales are free if A or B is constant. A stack of constant matrices shares its scales."""
    a, b = visit.operand(0), visit.operand(1)
    assert a is not None
    assert b is not None
    if _is_matrix(visit, b) and a.rank >= 1:
        assert b.constant is not None
        return _multiplied(visit, a, a.rank - 1, b, len(b.constant.shape) - 2)
    if _is_matrix(visit, a) and b.shape is not None:
        assert a.constant is not None
        out = _multiplied(visit, b, max(0, b.rank - 2), a, len(a.constant.shape) - 1)
        return out if isinstance(out, Refusal) or b.rank == 1 else out.reshape(-1, 1)
    if a.shape is None or b.shape is None:
        return Refusal("the shapes of what it multiplies are not known")
    left, right = _factor(visit, a), _factor(visit, b)
    columns = right[:, None] if b.rank == 1 else right
    out = contracted(visit, at_rank(left, max(2, a.rank)), columns, kept_reason(a, b))
    vectors = [axis for axis, operand in ((-2, a), (-1, b)) if operand.rank == 1]
    return np.squeeze(out, axis=tuple(vectors))


def _factor(visit: Visit, operand: Operand) -> Ids:
    """The slots of a factor that is no constant matrix; a constant vector has one for each element."""
    if visit.editable(operand):
        ids = visit.fresh(*(operand.shape or ()))
        visit.edit(operand, times=ids)
        return ids
    visit.keep(operand)
    return at_rank(operand.ids, operand.rank)


def _is_matrix(visit: Visit, operand: Operand) -> bool:
    """Whether an operand is a constant matrix, or a stack of these, that may be changed."""
    return operand.constant is not None and visit.editable(operand) and len(operand.constant.shape) >= 2


def _multiplied(visit: Visit, source: Operand, axis: int, weight: Operand, inner: int) -> Ids | Refusal:
    """New slots, one-dimensional, for the outer axis of a matrix whose axis `inner` meets axis `axis` of `source`."""
    assert weight.constant is not None
    shape = weight.constant.shape
    outer = len(shape) - 1 if inner == len(shape) - 2 else len(shape) - 2
    if source.shape is not None and (len(source.shape) <= axis or source.shape[axis] != shape[inner]):
        return Refusal(f"its input has shape {source.shape}, which does not fit a weight of shape {shape}")
    if source.shape is None and not source.uniform:
        return Refusal("the shape of its input is not known")
    over = (
        visit.along(source, axis, shape[inner])
        if source.shape
        else np.broadcast_to(source.ids.reshape(-1), shape[inner])
    )
    out = visit.fresh(shape[outer])
    visit.edit(weight, times=_on_axis(out, outer, len(shape)), over=_on_axis(over, inner, len(shape)))
    return out


def _on_axis(ids: Ids, axis: int, rank: int) -> Ids:
    shape = [1] * rank
    shape[axis] = -1
    return ids.reshape(shape)


def _channels(visit: Visit, channels: int, rank: int) -> Ids | Refusal:
    """Slots of an input with channels on axis 1, shape `(channels,)`, or a refusal if its shape does not fit."""
    source = visit.first()
    if source.shape is not None and (len(source.shape) != rank or source.shape[1] != channels):
        return Refusal(f"its input has shape {source.shape}, which does not fit its weight")
    if source.shape is None and not source.uniform and source.ids.ndim != rank:
        return Refusal("the shape of its input is not known")
    return visit.along(source, 1, channels, rank)


def _unbiased(bias: Operand | None, filters: int) -> Refusal | None:
    """A refusal if the bias is not one number for each filter, which shape inference does not look at."""
    if bias is None or bias.shape in {None, (filters,)}:
        return None
    return Refusal(f"its bias has shape {bias.shape}, which is not that of its {filters} filters")


def _biased(visit: Visit, bias: Operand | None, out: Ids) -> Refusal | None:
    """Scale the bias with the output, or tie it to the output if it is an activation."""
    if bias is None:
        return None
    if bias.constant is not None:
        visit.edit(bias, times=visit.spread(out, bias))
    else:
        visit.tie(at_rank(bias.ids, out.ndim), out)
    return None
