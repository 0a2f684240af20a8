"""Operators whose weights, slopes and steps may be computed: from activations, or not at all."""

from __future__ import annotations

import numpy as np

from tests.helpers.draws.choices import since
from tests.helpers.draws.draw import Draw, IllegalDrawError, Step

__all__ = ["COMPUTED"]


def _factor(d: Draw, *shape: int) -> str:
    """A value of this shape that depends on the input: a constant times the mean of a layer, or times its channels."""
    mean = d.op("GlobalAveragePool", d.conv(shape[1])) if len(d.dims) > 2 else d.conv(shape[-1])
    if d.chance() or len(d.dims) == 2:
        mean = d.op("ReduceMean", mean, keepdims=0)
        return d.op("Mul", d.weights(*shape), mean)
    once = d.op("Slice", mean, d.ints(0), d.ints(1), d.ints(0))
    return d.op("Mul", d.weights(*shape), once)


def conv(op: str) -> Step:
    """Conv, or ConvTranspose, with a weight that is computed."""

    def step(d: Draw, x: str) -> str:
        shape = d.shape(x)
        if len(shape) < 3 or d.opset < 11:
            raise IllegalDrawError("it has no channels, or slices by attributes")
        group = d.one(*(g for g in (1, 1, 2, shape[1]) if shape[1] % g == 0))
        sizes = (shape[1], d.integer(1, 3)) if op == "ConvTranspose" else (group * d.integer(1, 3), shape[1] // group)
        d.inexact = True
        return d.op(op, x, _factor(d, *sizes, *[d.one(1, 2) for _ in shape[2:]]), group=group)

    return step


def slope(d: Draw, x: str) -> str:
    return d.op("PRelu", x, d.op("Abs", x))


def einsum(d: Draw, x: str) -> str:
    """A product of two values of one shape, summed over random axes."""
    since(d, 12)
    d.inexact = True
    shape = d.shape(x)
    labels = "abcde"[: len(shape)]
    output = "".join(d.random.permutation([label for label in labels if d.chance(0.6)]))
    other = d.op("Conv", x, d.weights(shape[1], shape[1], *[1] * (len(shape) - 2))) if len(shape) > 2 else x
    if d.chance(0.3):
        output, labels = output.replace(labels[-1], "") + "...", labels[:-1] + "..."
    return d.op("Einsum", x, other, equation=f"{labels},{labels}->{output}")


def determinant(d: Draw, x: str) -> str:
    since(d, 11)
    d.inexact = True
    size = d.integer(1, 3)
    return d.op("Det", d.op("Slice", x, d.ints(0, 0), d.ints(size, size), d.ints(-2, -1)))


def _steps(d: Draw, x: str) -> tuple[str, str, int | None]:
    """Steps and zero points for a value, and their axis if there are several."""
    shape = d.shape(x)
    axis = d.integer(0, len(shape) - 1) if d.opset >= 13 and d.chance() else None
    sizes = () if axis is None else (shape[axis],)
    points = np.full(sizes, 0 if axis is not None else 128, np.int8 if axis is not None else np.uint8)
    return d.const(d.random.uniform(0.02, 0.1, sizes)), d.const(points, points.dtype), axis


def quantize(d: Draw, x: str) -> str:
    """To integers and back, with steps that are the same, or others."""
    since(d, 10)
    step, point, axis = _steps(d, x)
    counts = d.op("QuantizeLinear", x, step, point, axis=axis)
    back = d.op("Mul", step, d.const(2.0)) if d.chance(0.2) else step
    return d.op("DequantizeLinear", counts, back, point, axis=axis)


def quantize_by_range(d: Draw, x: str) -> str:
    since(d, 11)
    return d.op("DequantizeLinear", *d.many("DynamicQuantizeLinear", x, outs=3))


COMPUTED: dict[str, Step] = {
    "Conv computed": conv("Conv"),
    "ConvTranspose computed": conv("ConvTranspose"),
    "PRelu computed": slope,
    "Einsum of two": einsum,
    "Det": determinant,
    "QuantizeLinear": quantize,
    "DequantizeLinear": quantize,
    "DynamicQuantizeLinear": quantize_by_range,
}
