"""One small graph for each operator that the fuzzer of laws does not draw: most are barriers, or give out no numbers.

Each function adds its operator behind a value, and returns a value of float32 that depends on it. What makes values of
its own is multiplied into the value that it gets, and what gives out truth, text or integers is cast to numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from onnx import TensorProto

from tests.helpers.draws.draw import Draw, IllegalDrawError, Step
from tools.docs.alone_others import OTHERS, cast

__all__ = ["ALONE", "NO_GRAPH"]

FLOAT, INT32 = TensorProto.FLOAT, TensorProto.INT32

NO_GRAPH = {"ImageDecoder": "it reads the bytes of an image file, which no filter computes"}
"""Operators for which there is no graph, and why."""


def _truth(op: str) -> Step:
    """And, Or, Xor, Not: of what is positive and what is negative."""

    def step(d: Draw, x: str) -> str:
        signs = [d.op(comparison, x, d.const(0.0)) for comparison in ("Greater", "Less")]
        return cast(d, d.op(op, *signs[: 1 if op == "Not" else 2]))

    return step


def _says(op: str) -> Step:
    """What says something of each element, or of the shape."""

    def step(d: Draw, x: str) -> str:
        return cast(d, d.op(op, x))

    return step


def _bits(op: str) -> Step:
    """An operator on integers of 32 bits."""

    def step(d: Draw, x: str) -> str:
        whole = cast(d, x, TensorProto.UINT32)
        if op == "BitwiseNot":
            return cast(d, d.op(op, whole))
        attributes: dict[str, Any] = {"direction": "LEFT"} if op == "BitShift" else {}
        return cast(d, d.op(op, whole, d.const(1, np.uint32), **attributes))

    return step


def _bit_cast(d: Draw, x: str) -> str:
    return d.op("BitCast", d.op("BitCast", x, to=INT32), to=FLOAT)


def _factor(make: Callable[[Draw, str], str]) -> Step:
    """Values that an operator makes, multiplied into another value."""

    def step(d: Draw, x: str) -> str:
        return d.op("Mul", x, make(d, x))

    return step


def _window(op: str) -> Step:
    return _factor(lambda d, x: d.op(op, d.const(d.shape(x)[-1], np.int64)))


def _random(op: str) -> Step:
    return _factor(lambda d, x: d.op(op, shape=d.shape(x)))


def _like(op: str) -> Step:
    return _factor(lambda d, x: d.op(op, x))


def _range(d: Draw, x: str) -> str:
    return d.op("Range", d.const(1.0), d.const(d.shape(x)[-1] + 1.0), d.const(1.0))


def _constant(d: Draw, _: str) -> str:
    return d.op("Constant", value_float=2.0)


def _mel(d: Draw, x: str) -> str:
    bins = (d.shape(x)[-1] - 1) * 2
    numbers = [d.const(value, np.int64) for value in (3, bins, 8000)]
    return d.op("MatMul", x, d.op("MelWeightMatrix", *numbers, d.const(0.0), d.const(4000.0)))


def _bernoulli(d: Draw, x: str) -> str:
    return d.op("Bernoulli", d.op("Div", d.op("Abs", x), d.const(1000.0)))


def _multinomial(d: Draw, x: str) -> str:
    if len(d.shape(x)) != 2:
        raise IllegalDrawError("it reads rows of classes")
    return cast(d, d.op("Multinomial", x, sample_size=3))


def _one_hot(d: Draw, x: str) -> str:
    return d.op("OneHot", d.op("ArgMax", x, axis=1), d.const(4, np.int64), d.const([0.0, 1.0]))


def _affine(d: Draw, x: str) -> str:
    shape = d.shape(x)
    if len(shape) != 4:
        raise IllegalDrawError("only for images")
    theta = d.op("Reshape", d.op("Slice", d.op("Reshape", x, d.ints(-1)), d.ints(0), d.ints(6)), d.ints(1, 2, 3))
    return d.op("GridSample", x, d.op("AffineGrid", theta, d.ints(*shape)))


def _cum_prod(d: Draw, x: str) -> str:
    return d.op("CumProd", x, d.const(-1, np.int64))


def _loss(op: str) -> Step:
    def step(d: Draw, x: str) -> str:
        shape = d.shape(x)
        return d.op(op, x, d.const(np.zeros((shape[0], *shape[2:])), np.int64))

    return step


def _boxes(d: Draw, x: str) -> str:
    if len(d.shape(x)) != 3:
        raise IllegalDrawError("it reads one set of boxes a sample")
    boxes = d.op("Transpose", x, perm=[0, 2, 1])
    scores = d.op("ReduceMax", x, d.ints(1), keepdims=1)
    return cast(d, d.op("NonMaxSuppression", boxes, scores, d.const(2, np.int64)))


def _counted(d: Draw, x: str) -> str:
    return d.op("QuantizeLinear", x, d.const(0.05), d.const(128, np.uint8))


def _conv_integer(d: Draw, x: str) -> str:
    shape = d.shape(x)
    weight = d.const(np.ones((2, shape[1], *[1] * (len(shape) - 2))), np.uint8)
    return cast(d, d.op("ConvInteger", _counted(d, x), weight, d.const(128, np.uint8)))


def _matmul_integer(d: Draw, x: str) -> str:
    return cast(d, d.op("MatMulInteger", _counted(d, x), d.const(np.ones((d.shape(x)[-1], 2)), np.uint8)))


def _q_linear(d: Draw, x: str, op: str, weight: str) -> str:
    step, middle = d.const(0.05), d.const(128, np.uint8)
    counted = d.op(op, _counted(d, x), step, middle, weight, step, d.const(0, np.uint8), step, middle)
    return d.op("DequantizeLinear", counted, step, middle)


def _q_linear_conv(d: Draw, x: str) -> str:
    shape = d.shape(x)
    return _q_linear(d, x, "QLinearConv", d.const(np.ones((2, shape[1], *[1] * (len(shape) - 2))), np.uint8))


def _q_linear_matmul(d: Draw, x: str) -> str:
    return _q_linear(d, x, "QLinearMatMul", d.const(np.ones((d.shape(x)[-1], 2)), np.uint8))


def _swiglu(d: Draw, x: str) -> str:
    return d.op("SwiGLU", x, d.op("Relu", x))


def _tensor_scatter(d: Draw, x: str) -> str:
    if len(d.shape(x)) < 3:
        raise IllegalDrawError("it has no axis of time")
    return d.op("TensorScatter", x, d.op("Relu", x))


def _linear_attention(d: Draw, x: str) -> str:
    if len(d.dims) != 3:
        raise IllegalDrawError("only for sequences")
    return d.op("LinearAttention", x, x, x, outs=2, q_num_heads=1, kv_num_heads=1, update_rule="linear")


def _causal_conv(d: Draw, x: str) -> str:
    if len(d.dims) != 3:
        raise IllegalDrawError("only for sequences")
    return d.op("CausalConvWithState", x, d.weights(4, 1, 2), outs=2)


ALONE: dict[str, Step] = OTHERS | {
    "AffineGrid": _affine,
    **{op: _truth(op) for op in ("And", "Or", "Xor", "Not")},
    "Bernoulli": _bernoulli,
    "BitCast": _bit_cast,
    **{op: _bits(op) for op in ("BitShift", "BitwiseAnd", "BitwiseNot", "BitwiseOr", "BitwiseXor")},
    **{op: _window(op) for op in ("BlackmanWindow", "HammingWindow", "HannWindow")},
    "CausalConvWithState": _causal_conv,
    "Constant": _factor(_constant),
    "ConstantOfShape": _factor(lambda d, x: d.op("ConstantOfShape", d.ints(*d.shape(x)))),
    "ConvInteger": _conv_integer,
    "CumProd": _cum_prod,
    **{op: _says(op) for op in ("IsInf", "IsNaN", "NonZero", "Sign")},
    "LinearAttention": _linear_attention,
    "MatMulInteger": _matmul_integer,
    "MelWeightMatrix": _mel,
    "Multinomial": _multinomial,
    **{op: _loss(op) for op in ("NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss")},
    "NonMaxSuppression": _boxes,
    "OneHot": _one_hot,
    "QLinearConv": _q_linear_conv,
    "QLinearMatMul": _q_linear_matmul,
    **{op: _random(op) for op in ("RandomNormal", "RandomUniform")},
    **{op: _like(op) for op in ("RandomNormalLike", "RandomUniformLike")},
    "Range": _factor(_range),
    "Shape": lambda d, x: d.op("Reshape", x, d.op("Shape", x)),
    "Size": _factor(lambda d, x: cast(d, d.op("Size", x))),
    "SwiGLU": _swiglu,
    "TensorScatter": _tensor_scatter,
}
