"""Operators that work element by element, join values or multiply them, and reductions."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto

from tests.helpers.draws.draw import Draw, IllegalDrawError, Step

__all__ = ["ELEMENTS", "other"]

FLOAT = TensorProto.FLOAT


def other(d: Draw, x: str) -> str:
    """A value that can be joined with another: one of the graph, with the same or a broadcast shape."""
    kind = d.one("same", "same", "layer", "mean", "constant", "vector", "number")
    shape = d.shape(x)
    if kind == "same" and 3 <= len(shape) <= 5 and 0 not in shape:
        return d.op("Conv", x, d.weights(shape[1], shape[1], *[1] * (len(shape) - 2)))
    if kind == "layer" and len(d.dims) > 2:
        return d.conv(d.one(1, shape[1] if len(shape) > 1 else 1) or 1)
    if kind == "mean" and len(shape) > 2:
        return d.op("GlobalAveragePool", d.conv(shape[1] or 1)) if len(d.dims) > 2 else x
    if kind == "constant":
        sizes = [d.one(1, size) for size in shape[d.integer(0, len(shape)) :]]
        return d.const(np.zeros(sizes)) if d.chance(0.1) else d.positive(*sizes)
    if kind == "vector" and len(shape) > 2:
        return d.positive(shape[1], *[1] * (len(shape) - 2))
    if kind == "number":
        return d.const(d.one(0.0, 1.0, -2.0, 0.5))
    return d.op("Identity", x)


def plain(op: str, since: int = 7, **attributes: Any) -> Step:
    """An operator of one input."""

    def step(d: Draw, x: str) -> str:
        if d.opset < since:
            raise IllegalDrawError(f"{op} came with opset {since}")
        return d.op(op, x, **{name: d.one(*values) for name, values in attributes.items()})

    return step


def join(op: str, since: int = 7) -> Step:
    """An operator of two inputs or more."""

    def step(d: Draw, x: str) -> str:
        if d.opset < since:
            raise IllegalDrawError(f"{op} came with opset {since}")
        y = other(d, x)
        inputs = [x, y] if d.chance(0.6) else [y, x]
        return d.op(op, *inputs, *([other(d, x)] if op in {"Sum", "Mean", "Max", "Min"} and d.chance(0.2) else []))

    return step


def compare(op: str) -> Step:
    """A comparison, as numbers."""

    def step(d: Draw, x: str) -> str:
        y = d.const(0.0) if d.chance(0.7) else other(d, x)
        name = d.op("Less" if op == "Where" else op, *([x, y] if d.chance() else [y, x]))
        if op == "Where":
            return d.op("Where", name, x, other(d, x))
        return d.op("Mul", d.op("Cast", name, to=FLOAT), x)

    return step


def prelu(d: Draw, x: str) -> str:
    shape = d.shape(x)
    return d.op("PRelu", x, d.positive(*(d.one(1, size) for size in shape[d.integer(0, len(shape)) :])))


def cast(d: Draw, x: str) -> str:
    if d.chance(0.2):
        return d.op("Cast", d.op("Cast", x, to=TensorProto.INT32), to=FLOAT)
    there = d.op("Cast", x, to=d.one(TensorProto.DOUBLE, FLOAT))
    if d.opset >= 15 and d.chance(0.3):
        return d.op("CastLike", there, d.const(1.0))
    return d.op("Cast", there, to=FLOAT)


def sign(op: str) -> Step:
    """What does not depend on scales."""

    def step(d: Draw, x: str) -> str:
        name = d.op(op, x)
        return d.op("Add", name if op == "Sign" else d.op("Cast", name, to=FLOAT), x)

    return step


def clip(d: Draw, x: str) -> str:
    low, high = d.one((0.0, 6.0), (0.0, None), (None, 2.0), (-1.0, 1.0), (0.0, 3e38))
    if d.opset < 11:
        return d.op("Clip", x, min=low, max=high)
    return d.op("Clip", x, "" if low is None else d.const(low), *([] if high is None else [d.const(high)]))


def dropout(d: Draw, x: str) -> str:
    return d.op("Dropout", x, outs=d.one(1, 1, 2))


def power(d: Draw, x: str) -> str:
    exponent = d.one(2.0, 3.0, 1.0, 0.0, 0.5, -1.0)
    d.inexact |= exponent not in {1.0, 2.0, 0.0}
    base = d.op("Abs", x) if exponent == 0.5 else x
    return d.op("Pow", base, d.const(exponent))


def root(d: Draw, x: str) -> str:
    d.inexact = True
    return d.op("Sqrt", d.op("Abs", x))


def inverse(d: Draw, x: str) -> str:
    d.inexact = True
    return d.op("Reciprocal", d.op("Add", d.op("Abs", x), d.const(1.0)) if d.chance() else x)


def reduce(op: str) -> Step:
    """A reduction over random axes, by attribute or by input."""

    def step(d: Draw, x: str) -> str:
        rank = len(d.shape(x))
        d.inexact |= op in {"ReduceL2", "ReduceLogSumExp"}
        axes = sorted({d.integer(-rank, rank - 1) % max(rank, 1) for _ in range(d.integer(0, 3))}) if rank else []
        if op == "ReduceProd":  # of few elements, so that it stays in the range of its type
            axes = axes[:1] or [0] * bool(rank)
        if d.chance(0.3):
            axes = [axis - rank for axis in axes] if d.opset >= 11 else axes
        keep = d.one(0, 1, 1)
        since = 13 if op == "ReduceSum" else 18
        if d.opset < since:
            return d.op(op, x, axes=axes or None, keepdims=keep)
        extra = {"noop_with_empty_axes": 1} if d.chance(0.2) else {}
        return d.op(op, x, *([d.ints(*axes)] if axes or d.chance(0.3) else []), keepdims=keep, **extra)

    return step


def cumsum(d: Draw, x: str) -> str:
    axis = d.const(d.integer(-len(d.shape(x)), len(d.shape(x)) - 1), np.int64)
    return d.op("CumSum", x, axis, exclusive=d.one(0, 1), reverse=d.one(0, 1))


ELEMENTS: dict[str, Step] = {
    **{op: plain(op) for op in ("Relu", "Abs", "Neg", "Identity")},
    "LeakyRelu": plain("LeakyRelu", alpha=(0.1, 0.5)),
    "ThresholdedRelu": plain("ThresholdedRelu", 10, alpha=(0.0, 0.5)),
    "Shrink": plain("Shrink", 9, lambd=(0.5, 0.0), bias=(0.0, 0.25)),
    "Celu": plain("Celu", 12, alpha=(1.0, 0.5)),
    "HardSigmoid": plain("HardSigmoid", alpha=(0.25, 0.5), beta=(0.5, 0.0)),
    "Dropout": dropout,
    "PRelu": prelu,
    "Cast": cast,
    "CastLike": cast,
    **{op: sign(op) for op in ("Sign", "IsNaN", "IsInf")},
    "Clip": clip,
    **{op: join(op) for op in ("Add", "Sub", "Sum", "Mean", "Max", "Min", "Mul", "Div")},
    **{op: compare(op) for op in ("Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Equal", "Where")},
    "Pow": power,
    "Sqrt": root,
    "Reciprocal": inverse,
    **{op: reduce(op) for op in ("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceL1", "ReduceL2")},
    **{op: reduce(op) for op in ("ReduceSumSquare", "ReduceProd")},
    "CumSum": cumsum,
}
