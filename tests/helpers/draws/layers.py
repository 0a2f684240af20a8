"""Operators with weights, and those that normalize."""

from __future__ import annotations

import numpy as np

from tests.helpers.draws.draw import Draw, IllegalDrawError, Step

__all__ = ["LAYERS"]


def conv(d: Draw, x: str) -> str:
    shape = d.shape(x)
    group = d.one(*(g for g in (1, 1, 2, shape[1]) if shape[1] % g == 0 and g))
    filters, kernel = group * d.integer(1, 3), [d.one(1, 1, 2, 3) for _ in shape[2:]]
    pads = [d.integer(0, k - 1) for k in (*kernel, *kernel)]
    bias = [d.weights(filters)] if d.chance() else []
    strides, dilations = [[d.one(1, 1, 2) for _ in kernel] for _ in range(2)]
    weight = d.weights(filters, shape[1] // group, *kernel)
    if d.chance(0.2):
        return d.op("Conv", x, weight, *bias, group=group, auto_pad=d.one("SAME_UPPER", "SAME_LOWER", "VALID"))
    return d.op("Conv", x, weight, *bias, group=group, pads=pads, strides=strides, dilations=dilations)


def conv_transpose(d: Draw, x: str) -> str:
    shape = d.shape(x)
    group = d.one(*(g for g in (1, 1, 2) if shape[1] % g == 0))
    each, kernel = d.integer(1, 3), [d.one(1, 2, 3) for _ in shape[2:]]
    bias = [d.weights(each * group)] if d.chance() else []
    strides = [d.one(1, 2) for _ in kernel]
    return d.op("ConvTranspose", x, d.weights(shape[1], each, *kernel), *bias, group=group, strides=strides)


def deform_conv(d: Draw, x: str) -> str:
    shape = d.shape(x)
    if len(shape) != 4 or d.opset < 19:
        raise IllegalDrawError("only for images")
    offsets = d.op("Conv", x, d.const(np.zeros((2, shape[1], 1, 1))))
    return d.op("DeformConv", x, d.weights(3, shape[1], 1, 1), offsets, d.weights(3))


def gemm(d: Draw, x: str) -> str:
    x = d.op("Flatten", x, axis=1) if len(d.shape(x)) != 2 else x
    trans_a, trans_b = d.one(0, 0, 1), d.one(0, 1)
    inner = d.shape(x)[0 if trans_a else 1]
    outer = d.integer(1, 4)
    weight = d.weights(outer, inner) if trans_b else d.weights(inner, outer)
    shape = d.one((outer,), (1, outer), (1,), (), None)
    bias = [] if shape is None else [d.weights(*shape)]
    return d.op("Gemm", x, weight, *bias, transA=trans_a, transB=trans_b, alpha=d.one(1.0, 0.5), beta=d.one(1.0, 2.0))


def matmul(d: Draw, x: str) -> str:
    shape = d.shape(x)
    kind = d.one("right", "right", "left", "square", "stack")
    if kind == "left" and len(shape) > 1:
        return d.op("MatMul", d.weights(3, shape[-2]), x)
    if kind == "square" and len(shape) > 1:
        turned = d.op("Transpose", x, perm=[*range(len(shape) - 2), len(shape) - 1, len(shape) - 2])
        return d.op("MatMul", *([x, turned] if d.chance() else [turned, x]))
    if kind == "stack" and len(shape) > 2:
        return d.op("MatMul", x, d.weights(d.one(1, shape[-3]), shape[-1], 3))
    return d.op("MatMul", x, d.weights(*((shape[-1], 3) if d.chance(0.9) else (shape[-1],))))


def batch_norm(d: Draw, x: str) -> str:
    channels = d.shape(x)[1]
    return d.op("BatchNormalization", x, *(d.positive(channels) for _ in range(4)))


def instance_norm(d: Draw, x: str) -> str:
    channels = d.shape(x)[1]
    return d.op("InstanceNormalization", x, d.positive(channels), d.weights(channels), epsilon=0.125)


def group_norm(d: Draw, x: str) -> str:
    channels = d.shape(x)[1]
    groups = d.one(*(g for g in (1, 2, 3) if channels % g == 0))
    size = channels if d.opset >= 21 else groups
    return d.op("GroupNormalization", x, d.positive(size), d.weights(size), num_groups=groups, epsilon=0.125)


def last_norm(op: str) -> Step:
    """LayerNormalization, or RMSNormalization."""

    def step(d: Draw, x: str) -> str:
        shape = d.shape(x)
        axis = d.integer(0, len(shape) - 1)
        shift = [d.weights(*shape[axis:])] if op == "LayerNormalization" and d.chance() else []
        return d.op(op, x, d.positive(*shape[axis:]), *shift, axis=axis, epsilon=0.125)

    return step


def lp_norm(d: Draw, x: str) -> str:
    d.inexact = True
    return d.op("LpNormalization", x, axis=d.integer(0, len(d.shape(x)) - 1), p=d.one(1, 2))


def lrn(d: Draw, x: str) -> str:
    d.inexact = True
    return d.op("LRN", x, size=3, alpha=0.5, beta=0.5)


def recurrent(op: str) -> Step:
    """GRU, LSTM or RNN over the last two axes."""
    gates = {"GRU": 3, "LSTM": 4, "RNN": 1}[op]

    def step(d: Draw, x: str) -> str:
        shape = d.shape(x)
        if len(shape) == 4:
            x = d.op("Reshape", x, d.ints(0, 0, -1))
            x = d.op("Transpose", x, perm=d.one([2, 0, 1], [0, 2, 1], [0, 1, 2]))
        size = d.shape(x)[-1]
        if 0 in d.shape(x):
            raise IllegalDrawError("the runtime crashes")
        y = d.op(op, x, d.weights(1, gates * 2, size), d.weights(1, gates * 2, 2), hidden_size=2)
        return d.op("Squeeze", y, axes=[1]) if d.opset < 13 else d.op("Squeeze", y, d.ints(1))

    return step


LAYERS: dict[str, Step] = {
    "Conv": conv,
    "ConvTranspose": conv_transpose,
    "DeformConv": deform_conv,
    "Gemm": gemm,
    "MatMul": matmul,
    "BatchNormalization": batch_norm,
    "InstanceNormalization": instance_norm,
    "GroupNormalization": group_norm,
    "LayerNormalization": last_norm("LayerNormalization"),
    "RMSNormalization": last_norm("RMSNormalization"),
    "LpNormalization": lp_norm,
    "LRN": lrn,
    **{op: recurrent(op) for op in ("GRU", "LSTM", "RNN")},
}
