"""Random legal graphs: a hypothesis strategy that grows a network node by node from what is there already.

Every step takes one of the operators in `STEPS` that fits the values at hand; weights, biases and bounds are sometimes
shared with nodes that came before. Values are `(N, C, H, W)` throughout, with dense heads at the end.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from hypothesis import strategies as st
from onnx import TensorProto

from tests.corpus import OPEN, Net
from tests.helpers.growth import INF, Growth, Val
from tests.helpers.random_blocks import (
    attention,
    gate,
    group_normalize,
    layer_normalize,
    square,
    squeeze_excite,
    written_norm,
)

Step = Callable[[Growth, Val], object]


def conv(grow: Growth, x: Val) -> object:
    group = grow.one(*(g for g in (1, 2, 3, x.channels) if x.channels % g == 0))
    filters = group * grow.integer(1, 3) if group > 1 else grow.integer(1, 6)
    kernel, stride = grow.one(1, 3), grow.one(1, 1, 2)
    inputs = [grow.weight(filters, x.channels // group, kernel, kernel)]
    if grow.integer(0, 3):
        inputs.append(grow.vector(filters))
    attributes: dict[str, Any] = {"group": group, "strides": [stride] * 2, "pads": [kernel // 2] * 4}
    name = grow.op("Conv", x, *inputs, **attributes)
    return grow.add(name, filters, -(-x.height // stride), -(-x.width // stride))


def conv_transpose(grow: Growth, x: Val) -> object:
    if x.height > 8:
        return conv(grow, x)
    group = grow.one(*(g for g in (1, 2) if x.channels % g == 0))
    each = grow.integer(1, 3)
    name = grow.op(
        "ConvTranspose", x, grow.weight(x.channels, each, 2, 2), grow.vector(each * group), group=group, strides=[2, 2]
    )
    return grow.add(name, each * group, 2 * x.height, 2 * x.width)


def normalize(grow: Growth, x: Val) -> object:
    scale, var = grow.positive(x.channels), grow.positive(x.channels)
    return grow.like(x, "BatchNormalization", x, scale, grow.vector(x.channels), grow.vector(x.channels), var)


def instance_normalize(grow: Growth, x: Val) -> object:
    if x.height * x.width < 4:
        return activate(grow, x)
    return grow.like(x, "InstanceNormalization", x, grow.positive(x.channels), grow.vector(x.channels), epsilon=0.01)


def activate(grow: Growth, x: Val) -> object:
    kind = grow.one("Relu", "Relu", "Relu", "LeakyRelu", "PRelu", "Abs", "Neg", "Identity", "Clip", "Clip", "Dropout")
    if kind == "PRelu":
        return grow.like(x, kind, x, grow.positive(*grow.one((x.channels, 1, 1), (1, 1, 1), (1,))))
    if kind == "Clip":
        low, high = grow.one((0.0, 6.0), (0.0, None), (None, 2.0), (-1.0, 1.0), (0.0, INF))
        bounds = ["" if bound is None else grow.number(bound) for bound in (low, high)]
        return grow.like(x, kind, x, *bounds)
    return grow.like(x, kind, x)


def barrier(grow: Growth, x: Val) -> object:
    kind = grow.one("Sigmoid", "Tanh", "HardSigmoid", "Softplus", "Softmax", "Elu")
    return grow.like(x, kind, x, **({"axis": 1} if kind == "Softmax" else {}))


def pool(grow: Growth, x: Val) -> object:
    kind = grow.one("MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool")
    if kind.startswith("Global"):
        return grow.add(grow.op(kind, x), x.channels, 1, 1)
    if min(x.size) < 2:
        return grow.like(x, kind, x, kernel_shape=[3, 3], pads=[1] * 4)
    name = grow.op(kind, x, kernel_shape=[2, 2], strides=[2, 2])
    return grow.add(name, x.channels, x.height // 2, x.width // 2)


def concat(grow: Growth, x: Val) -> object:
    y = grow.pick(lambda value: value.size == x.size and value.channels + x.channels <= 12)
    if y is None:
        return activate(grow, x)
    return grow.add(grow.op("Concat", x, y, axis=1), x.channels + y.channels, *x.size)


def split(grow: Growth, x: Val) -> object:
    if x.channels < 2:
        return activate(grow, x)
    first = grow.integer(1, x.channels - 1)
    grow.read.add(x.name)
    a, b = grow.net.many("Split", x.name, grow.net.ints(first, x.channels - first), outs=2, axis=1)
    return grow.add(a, first, *x.size), grow.add(b, x.channels - first, *x.size)


def pick_channels(grow: Growth, x: Val) -> object:
    count = grow.integer(1, 6)
    indices = [grow.integer(0, x.channels - 1) for _ in range(count)]
    if grow.integer(0, 1):
        return grow.add(grow.op("Gather", x, grow.net.ints(*indices), axis=1), count, *x.size)
    start, step = indices[0], grow.one(1, -1, 2)
    stop = x.channels if step > 0 else -x.channels - 1
    kept = len(range(x.channels)[start : stop if step > 0 else None : step])
    name = grow.op("Slice", x, *(grow.net.ints(n) for n in (start, stop, 1, step)))
    return grow.add(name, kept, *x.size)


def shuffle(grow: Growth, x: Val) -> object:
    group = next((g for g in (2, 3) if x.channels % g == 0), 1)
    if not grow.fixed:
        whole = grow.op("Reshape", x, grow.net.ints(0, group, x.channels // group, -1))
        return grow.like(x, "Reshape", grow.op("Transpose", whole, perm=[0, 2, 1, 3]), grow.shape_of(x, x.channels))
    apart = grow.op("Reshape", x, grow.net.ints(0, group, x.channels // group, *x.size))
    turned = grow.op("Transpose", apart, perm=[0, 2, 1, 3, 4])
    return grow.like(x, "Reshape", turned, grow.net.ints(0, x.channels, -1, x.width))


def turn(grow: Growth, x: Val) -> object:
    """To NHWC, something there, and back."""
    last = grow.op("Transpose", x, perm=[0, 2, 3, 1])
    kind = grow.one("Relu", "Add", "MatMul", "Identity")
    channels = x.channels
    if kind == "MatMul":
        channels = grow.integer(1, 5)
        last = grow.op(kind, last, grow.weight(x.channels, channels))
    else:
        last = grow.op(kind, last, *([grow.vector(x.channels)] if kind == "Add" else []))
    return grow.add(grow.op("Transpose", last, perm=[0, 3, 1, 2]), channels, *x.size)


def depth(grow: Growth, x: Val) -> object:
    if x.channels % 4 == 0 and max(x.size) <= 8:
        name = grow.op("DepthToSpace", x, blocksize=2, mode=grow.one("DCR", "CRD"))
        return grow.add(name, x.channels // 4, 2 * x.height, 2 * x.width)
    if x.height % 2 == 0 and x.width % 2 == 0 and x.channels <= 3:
        return grow.add(grow.op("SpaceToDepth", x, blocksize=2), 4 * x.channels, x.height // 2, x.width // 2)
    return activate(grow, x)


def resize(grow: Growth, x: Val) -> object:
    if max(x.size) > 8:
        return pool(grow, x)
    name = grow.op("Resize", x, "", grow.net.const([1, 1, 2, 2]), mode=grow.one("nearest", "linear", "cubic"))
    return grow.add(name, x.channels, 2 * x.height, 2 * x.width)


def pad(grow: Growth, x: Val) -> object:
    mode = grow.one("constant", "constant", "edge", "one", "channels")
    if mode == "channels":
        name = grow.op("Pad", x, grow.net.ints(0, 1, 0, 0, 0, 1, 0, 0))
        return grow.add(name, x.channels + 2, *x.size)
    value = [grow.number(1.0)] if mode == "one" else []
    kind = "constant" if mode == "one" else mode
    name = grow.op("Pad", x, grow.net.ints(0, 0, 1, 0, 0, 0, 1, 1), *value, mode=kind)
    return grow.add(name, x.channels, x.height + 2, x.width + 1)


def join(grow: Growth, x: Val) -> object:
    def fits(value: Val) -> bool:
        return value.channels in {1, x.channels} and value.size in {(1, 1), x.size}

    y = grow.pick(fits)
    assert y is not None
    kind = grow.one("Add", "Add", "Add", "Sub", "Max", "Min", "Mean", "Where")
    if kind == "Where" and grow.fixed:
        mask = grow.net.const(grow.net.random.random((x.height, x.width)) < 0.5, dtype=TensorProto.BOOL)
        return grow.like(x, kind, mask, x, y)
    operands = [x, y] if grow.integer(0, 1) else [y, x]
    return grow.like(x, "Add" if kind == "Where" else kind, *operands)


def multiply(grow: Growth, x: Val) -> object:
    if grow.products >= 3:
        return join(grow, x)
    grow.products += 1
    y = grow.pick(lambda value: value.channels in {1, x.channels} and value.size in {(1, 1), x.size})
    assert y is not None
    gate = grow.op(grow.one("Sigmoid", "Relu", "HardSigmoid", "Identity"), y)
    if grow.integer(0, 3) == 0:
        return grow.like(x, "Div", x, grow.op("Add", grow.op("Abs", gate), grow.number(1.0)))
    left, right = (x.name, gate) if grow.integer(0, 1) else (gate, x.name)
    return grow.like(x, "Mul", left, right)


def with_constant(grow: Growth, x: Val) -> object:
    kind = grow.one("Add", "Add", "Sub", "Mul", "Mul", "Div", "Max", "Min")
    shapes = [(x.channels, 1, 1), (x.channels, 1, 1), (1,), ()]
    shape = grow.one(*shapes, *([(1, x.channels, *x.size), (x.height, 1)] if grow.fixed else []))
    constant = grow.positive(*shape) if grow.integer(0, 5) else grow.net.const(np.zeros(shape))
    if kind == "Div":
        return grow.like(x, kind, x, grow.positive(*shape))
    left, right = (x.name, constant) if grow.integer(0, 2) else (constant, x.name)
    return grow.like(x, kind, left, right)


def reduce(grow: Growth, x: Val) -> object:
    kind = grow.one("ReduceMean", "ReduceMax", "ReduceSum", "ReduceL1")
    if grow.integer(0, 1):
        return grow.add(grow.op(kind, x, grow.net.ints(2, 3)), x.channels, 1, 1)
    return grow.add(grow.op(kind, x, grow.net.ints(1)), 1, *x.size)


def branch(grow: Growth, x: Val) -> object:
    """Two layers that read one value, to be joined later."""
    return conv(grow, x), conv(grow, x)


STEPS: tuple[Step, ...] = (
    *(conv, conv, conv, conv, activate, activate, activate, activate, normalize, normalize, conv_transpose, branch),
    *(pool, concat, concat, split, pick_channels, shuffle, turn, depth, resize, pad, join, join, join, multiply),
    *(with_constant, with_constant, reduce, instance_normalize, barrier),
    *(square, gate, gate, squeeze_excite, attention, layer_normalize, group_normalize, written_norm, written_norm),
)


@st.composite
def networks(draw: st.DrawFn, least: int = 8, most: int = 30) -> onnx.ModelProto:
    """Models of `least` to about `most` nodes, of 1 to 4 outputs."""
    net = Net(draw(st.sampled_from([18, 20, 21])), ir=10, seed=draw(st.integers(0, 1 << 16)))
    net.how = draw(st.sampled_from(["raw", "raw", "raw", "typed", "node"]))
    grow = Growth(draw, net, draw(st.sampled_from([True, True, False])))
    channels, height, width = draw(st.sampled_from([(3, 8, 8), (1, 6, 10), (4, 5, 5)]))
    if not grow.fixed:
        height, width = OPEN["H"], OPEN["W"]
    grow.add(net.input("x", ("N", channels, *((height, width) if grow.fixed else ("H", "W")))), channels, height, width)
    wanted = draw(st.integers(least, most - 4))
    conv(grow, grow.values[0])
    while sum(node.op_type != "Constant" for node in net.nodes) < wanted:
        x = grow.pick()
        assert x is not None
        draw(st.sampled_from(STEPS))(grow, x)
    return net.model(*_outputs(grow))


def _outputs(grow: Growth) -> list[str]:
    """Some of what nobody reads, a few with a dense head, and sometimes a value from the middle."""
    unread = [value for value in grow.values if value.name not in grow.read][: grow.integer(1, 3)]
    names = []
    for value in unread:
        if grow.integer(0, 3) == 0:
            names.append(value.name)
            continue
        flat = grow.op("Flatten", value if grow.fixed else grow.op("GlobalAveragePool", value))
        size = value.height * value.width if grow.fixed else 1
        names.append(grow.op("Gemm", flat, grow.weight(value.channels * size, 2), grow.vector(2)))
    if grow.integer(0, 4) == 0:
        inner = [value.name for value in grow.values if value.name in grow.read and value.name != "x"]
        names.extend(inner[: 1 if inner else 0])
    return list(dict.fromkeys(names)) or [grow.values[0].name]
