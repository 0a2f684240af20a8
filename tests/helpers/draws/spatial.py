"""Pooling, resizing, padding and sampling."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.helpers.draws.draw import Draw, IllegalDrawError, Step
from tests.helpers.draws.moves import sizes_of

__all__ = ["SPATIAL"]


def pool(op: str) -> Step:
    """A pooling operator with a window."""

    def step(d: Draw, x: str) -> str:
        shape = d.shape(x)
        kernel = [d.integer(1, 3) for _ in shape[2:]]
        d.inexact |= op == "LpPool"
        given: dict[str, Any] = {"kernel_shape": kernel, "strides": [d.integer(1, 3) for _ in kernel]}
        if d.chance(0.2):
            return d.op(op, x, **given, auto_pad=d.one("SAME_UPPER", "SAME_LOWER", "VALID"))
        given["pads"] = [d.integer(0, k - 1) for k in (*kernel, *kernel)]
        if d.opset >= (18 if op == "LpPool" else 10) and d.chance():
            given["ceil_mode"] = 1
        if op == "AveragePool" and d.chance():
            given["count_include_pad"] = 1
        if op == "MaxPool" and d.opset >= 10 and d.chance(0.3):
            given["dilations"] = [d.one(1, 2) for _ in kernel]
        return d.op(op, x, **given, outs=d.one(1, 1, 2) if op == "MaxPool" and d.opset >= 8 else 1)

    return step


def pool_all(op: str) -> Step:
    """A pooling operator over all positions."""

    def step(d: Draw, x: str) -> str:
        d.inexact |= op == "GlobalLpPool"
        return d.op(op, x)

    return step


def unpool(d: Draw, x: str) -> str:
    ones = [2] * (len(d.shape(x)) - 2)
    values, indices = d.many("MaxPool", x, outs=2, kernel_shape=ones, strides=ones)
    return d.op("MaxUnpool", values, indices, kernel_shape=ones, strides=ones)


def resize(d: Draw, x: str) -> str:
    shape = d.shape(x)
    mode = d.one("nearest", "linear")
    factors = [d.one(1.0, 2.0) for _ in shape]
    if d.chance(0.8):
        factors[:] = [1.0, 1.0, *(d.one(1.0, 2.0, 1.5, 0.5) for _ in shape[2:])]
    if d.opset < 11:
        factors = [max(1.0, factor) for factor in factors]
        if d.opset < 9:
            return d.op("Upsample", x, scales=factors, mode=mode)
        return d.op("Upsample" if d.opset == 9 else "Resize", x, d.const(factors), mode=mode)
    how = d.one("asymmetric", "half_pixel", "align_corners", "pytorch_half_pixel")
    mode = d.one(mode, "cubic") if len(shape) == 4 else mode
    kind = d.one("scales", "scales", "sizes", "computed", "axes")
    if kind == "axes" and d.opset >= 18:
        axis = d.integer(0, len(shape) - 1)
        return d.op("Resize", x, "", d.const([2.0]), axes=[axis], mode=mode, coordinate_transformation_mode=how)
    empty = d.const([])
    if kind == "sizes":
        sizes = d.ints(*(int(size * factor) or 1 for size, factor in zip(shape, factors, strict=True)))
        return d.op("Resize", x, empty, empty, sizes, mode=mode, coordinate_transformation_mode=how)
    if kind == "computed":
        held, rest = sizes_of(d, x, 0, 1), sizes_of(d, x, *range(2, len(shape)))
        sizes = d.op("Concat", held, d.op("Mul", rest, d.ints(2)), axis=0)
        return d.op("Resize", x, empty, empty, sizes, mode=mode, coordinate_transformation_mode=how)
    return d.op("Resize", x, empty, d.const(factors), mode=mode, coordinate_transformation_mode=how)


def upsample(d: Draw, x: str) -> str:
    if d.opset > 9:
        raise IllegalDrawError("Upsample ended with opset 9")
    return resize(d, x)


def pad(d: Draw, x: str) -> str:
    shape = d.shape(x)
    mode = d.one("constant", "constant", "constant", "edge", "reflect")
    low = -1 if d.chance(0.2) else 0
    pads = [d.integer(low, 2) if k % len(shape) >= d.one(0, 1, 2, 2) else 0 for k in range(2 * len(shape))]
    value = d.one(0.0, 0.0, 1.0, -np.inf)
    if d.opset < 11:
        return d.op("Pad", x, pads=pads, mode=mode, value=value)
    number = [d.const(value)] if mode == "constant" and d.chance(0.7) else []
    if d.chance(0.2):
        parts = d.ints(*(100 if axis < 2 else 3 for axis in range(len(shape))))
        rest = d.op("Div", sizes_of(d, x, *range(len(shape))), parts)
        return d.op("Pad", x, d.op("Concat", rest, d.ints(*[0] * len(shape)), axis=0), *number, mode=mode)
    return d.op("Pad", x, d.ints(*pads), *number, mode=mode)


def center(d: Draw, x: str) -> str:
    if d.opset < 18:
        raise IllegalDrawError("CenterCropPad came with opset 18")
    shape = d.shape(x)
    axes = sorted({d.integer(0, len(shape) - 1) for _ in range(2)})
    return d.op("CenterCropPad", x, d.ints(*(max(1, shape[a] + d.integer(-2, 2)) for a in axes)), axes=axes)


def grid_sample(d: Draw, x: str) -> str:
    if d.opset < 16 or len(d.shape(x)) != 4:
        raise IllegalDrawError("only for images")
    grid = d.const(d.random.uniform(-1, 1, (d.shape(x)[0], 2, 3, 2)))
    return d.op("GridSample", x, grid, padding_mode=d.one("zeros", "border", "reflection"))


def regions(op: str) -> Step:
    """RoiAlign, or MaxRoiPool."""

    def step(d: Draw, x: str) -> str:
        if len(d.shape(x)) != 4 or (op == "RoiAlign" and d.opset < 10):
            raise IllegalDrawError("only for images")
        corners = np.asarray([[0, 0, 3, 3], [1, 0, 2, 2]])
        if op == "MaxRoiPool":
            return d.op(op, x, d.const(np.concatenate([[[0], [0]], corners], axis=1)), pooled_shape=[2, 2])
        return d.op(op, x, d.const(corners), d.ints(0, 0), output_height=2, output_width=2)

    return step


def columns(d: Draw, x: str) -> str:
    shape = d.shape(x)
    if d.opset < 18 or len(shape) != 3:
        raise IllegalDrawError("only for columns")
    return d.op("Col2Im", x, d.ints(shape[2], 2), d.ints(1, 2)) if shape[1] % 2 == 0 else d.op("Relu", x)


SPATIAL: dict[str, Step] = {
    **{op: pool(op) for op in ("MaxPool", "AveragePool", "LpPool")},
    **{op: pool_all(op) for op in ("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool")},
    "MaxUnpool": unpool,
    "Resize": resize,
    "Upsample": upsample,
    "Pad": pad,
    "CenterCropPad": center,
    "GridSample": grid_sample,
    "RoiAlign": regions("RoiAlign"),
    "MaxRoiPool": regions("MaxRoiPool"),
    "Col2Im": columns,
}
