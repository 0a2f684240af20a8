"""What current networks are made of, for random graphs: squares, norms, gates, attention.

Every block is written so that it is legal at other sizes than those that it is drawn at, unless sizes are fixed.
"""

from __future__ import annotations

from tests.helpers.growth import Growth, Val

__all__ = ["attention", "gate", "group_normalize", "layer_normalize", "square", "squeeze_excite", "written_norm"]

_MOST_PRODUCTS = 4  # of activations in one graph: each may double the exponents of all scales behind it
_MOST_PLACES = 100  # positions that attend to each other


def _conv(grow: Growth, x: Val | str, channels: int, filters: int) -> str:
    return grow.op("Conv", x, grow.weight(filters, channels, 1, 1), grow.vector(filters))


def _is_full(grow: Growth) -> bool:
    """Whether there are enough products; if not, this is one more."""
    grow.products += 1
    return grow.products > _MOST_PRODUCTS


def square(grow: Growth, x: Val) -> object:
    """A power, or a root of what is not negative."""
    kind = grow.one("product", "Pow", "cube", "root", "root of a sum")
    if kind == "root":
        return grow.like(x, "Sqrt", grow.op(grow.one("Relu", "Abs"), x))
    if kind == "root of a sum":
        return grow.like(x, "Sqrt", grow.op("Add", grow.op("Mul", x, x), grow.number(1e-2)))
    if _is_full(grow):
        return grow.like(x, "Relu", x)
    if kind == "product":
        return grow.like(x, "Mul", x, x)
    return grow.like(x, "Pow", x, grow.number(3.0 if kind == "cube" else 2.0))


def layer_normalize(grow: Growth, x: Val) -> object:
    """Over channels, which are moved to the end, or over all of a sample."""
    if grow.fixed and grow.integer(0, 3) == 0:
        shape = (x.channels, *x.size)
        return grow.like(x, "LayerNormalization", x, grow.positive(*shape), grow.vector(*shape), axis=1)
    last = grow.op("Transpose", x, perm=[0, 2, 3, 1])
    inputs = [last, grow.positive(x.channels), *([grow.vector(x.channels)] if grow.integer(0, 1) else [])]
    done = grow.op("LayerNormalization", *inputs, axis=-1, epsilon=grow.one(1e-5, 1e-2))
    return grow.like(x, "Transpose", done, perm=[0, 3, 1, 2])


def group_normalize(grow: Growth, x: Val) -> object:
    """GroupNormalization; before opset 21 it has one scale for each group."""
    if x.height * x.width < 4:
        return written_norm(grow, x)
    groups = grow.one(*(g for g in (1, 2, 3, x.channels) if x.channels % g == 0))
    size = groups if grow.net.opset < 21 else x.channels
    return grow.like(x, "GroupNormalization", x, grow.positive(size), grow.vector(size), num_groups=groups)


def written_norm(grow: Growth, x: Val) -> object:
    """A norm as exporters write it out, with or without a mean that is taken off, a factor and a term."""
    axes = grow.net.ints(*grow.one((1,), (2, 3), (1, 2, 3)))
    centred = x.name
    if grow.integer(0, 2):
        centred = grow.op("Sub", x, grow.op("ReduceMean", x, axes))
    kind = grow.one("Mul", "Pow", "L2")
    if kind == "L2":
        root = grow.op("Add", grow.op("ReduceL2", centred, axes), grow.number(1e-2))
    else:
        squares = grow.op("Mul", centred, centred) if kind == "Mul" else grow.op("Pow", centred, grow.number(2.0))
        root = grow.op("Sqrt", grow.op("Add", grow.op("ReduceMean", squares, axes), grow.number(1e-2)))
    out = grow.op("Div", centred, root) if grow.integer(0, 1) else grow.op("Mul", centred, grow.op("Reciprocal", root))
    if grow.integer(0, 1):
        out = grow.op("Mul", out, grow.positive(x.channels, 1, 1))
    if grow.integer(0, 1):
        out = grow.op("Add", out, grow.vector(x.channels, 1, 1))
    return grow.like(x, "Identity", out)


def gate(grow: Growth, x: Val) -> object:
    """A value times a gate that is made from it, or from its other half."""
    kind = grow.one("silu", "silu", "hard swish", "gelu", "two layers", "halves")
    if kind == "silu":
        return grow.like(x, "Mul", x, grow.op("Sigmoid", x))
    if kind == "hard swish":
        up = grow.op("Clip", grow.op("Add", x, grow.number(3.0)), grow.number(0.0), grow.number(6.0))
        return grow.like(x, "Div", grow.op("Mul", x, up), grow.number(6.0))
    if kind == "gelu":
        bent = grow.op("Add", grow.op("Erf", grow.op("Div", x, grow.number(1.5))), grow.number(1.0))
        return grow.like(x, "Mul", grow.op("Mul", x, bent), grow.number(0.5))
    if kind == "halves" and x.channels % 2 == 0:
        grow.read.add(x.name)
        left, right = grow.net.many("Split", x.name, outs=2, axis=1, num_outputs=2)
        return grow.add(grow.op("Mul", left, grow.op("Sigmoid", right)), x.channels // 2, *x.size)
    if _is_full(grow):
        return grow.like(x, "Relu", x)
    filters = grow.integer(1, 4)
    left, right = (_conv(grow, x, x.channels, filters) for _ in range(2))
    return grow.add(grow.op("Mul", left, grow.op(grow.one("Relu", "Identity", "Tanh"), right)), filters, *x.size)


def squeeze_excite(grow: Growth, x: Val) -> object:
    """Squeeze-and-excitation: channels are multiplied by what their means say."""
    inner = grow.integer(1, 3)
    mean = grow.op("GlobalAveragePool", x) if grow.integer(0, 1) else grow.op("ReduceMean", x, grow.net.ints(2, 3))
    bent = grow.op(grow.one("Relu", "Identity"), _conv(grow, mean, x.channels, inner))
    opened = grow.op(grow.one("Sigmoid", "HardSigmoid"), _conv(grow, bent, inner, x.channels))
    return grow.like(x, "Mul", *((x.name, opened) if grow.integer(0, 1) else (opened, x.name)))


def attention(grow: Growth, x: Val) -> object:
    """Attention of one head, between positions or between channels."""
    if x.height * x.width > _MOST_PLACES:
        return gate(grow, x)
    inner, filters = grow.integer(1, 3), grow.integer(1, 4)
    crossed = grow.integer(0, 3) == 0  # between channels
    q, k, v = (_flat(grow, _conv(grow, x, x.channels, n), n) for n in (inner, inner, filters))
    if crossed:
        scores = grow.op("MatMul", v, grow.op("Transpose", k, perm=[0, 2, 1]))
    else:
        scores = grow.op("MatMul", grow.op("Transpose", q, perm=[0, 2, 1]), k)
    scores = grow.op(*grow.one(("Mul", scores, grow.number(0.25)), ("Div", scores, grow.number(4.0))))
    weights = grow.op("Softmax", scores, axis=-1)
    if crossed:
        out = grow.op("MatMul", weights, q)
    else:
        out = grow.op("MatMul", v, grow.op("Transpose", weights, perm=[0, 2, 1]))
    return grow.add(grow.op("Reshape", out, grow.shape_of(x, filters)), filters, *x.size)


def _flat(grow: Growth, value: str, channels: int) -> str:
    """A value `(N, channels, positions)`."""
    return grow.op("Reshape", value, grow.net.ints(0, channels, -1))
