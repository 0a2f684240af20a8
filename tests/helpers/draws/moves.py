"""Operators that move data, with places that are constant or computed from shapes."""

from __future__ import annotations

import numpy as np

from tests.helpers.draws.draw import Draw, IllegalDrawError, Step

__all__ = ["MOVES", "sizes_of"]


def sizes_of(d: Draw, x: str, *axes: int) -> str:
    """The sizes of some axes of a value, computed in the graph."""
    return d.op("Gather", d.op("Shape", x), d.ints(*axes))


def reshape(d: Draw, x: str) -> str:
    """To a target of the same number of elements: axes merged, split, copied or left to be found out."""
    shape = d.shape(x)
    if not shape:
        return d.op("Reshape", x, d.ints(1))
    target: list[int] = list(shape)
    for _ in range(d.integer(1, 2)):
        at = d.integer(0, len(target) - 1)
        if d.chance() and len(target) > 1:
            at = min(at, len(target) - 2)
            target[at : at + 2] = [target[at] * target[at + 1]]
        elif len(target) < 5:
            factor = next((k for k in (d.one(2, 3), 2, 3) if target[at] and target[at] % k == 0), 1)
            target[at : at + 1] = [factor, target[at] // factor] if d.chance() else [target[at] // factor, factor]
    for axis, size in enumerate(target):
        if axis < len(shape) and size == shape[axis] and d.chance(0.4):
            target[axis] = 0
    if d.chance(0.7):
        target[d.integer(0, len(target) - 1)] = -1
    return d.op("Reshape", x, d.ints(*target))


def reshape_fixed(d: Draw, x: str) -> str:
    """To a few fixed sizes and one that is found out."""
    target = [d.one(1, 2, 3, 4) for _ in range(d.integer(1, 3))]
    target.insert(d.integer(0, len(target)), -1)
    return d.op("Reshape", x, d.ints(*target))


def reshape_computed(d: Draw, x: str) -> str:
    """To a target that holds sizes of the value."""
    rank = len(d.shape(x))
    if rank < 2:
        raise IllegalDrawError("no axes")
    first, last = sizes_of(d, x, 0), sizes_of(d, x, d.integer(1, rank - 1))
    rest = d.ints(*d.one([-1], [-1], [2, -1], [-1, 2]))
    parts = d.one([first, rest], [rest, last], [first, rest, last], [first, last, rest], [last, rest])
    return d.op("Reshape", x, d.op("Concat", *parts, axis=0))


def flatten(d: Draw, x: str) -> str:
    return d.op("Flatten", x, axis=d.integer(0, len(d.shape(x))))


def transpose(d: Draw, x: str) -> str:
    return d.op("Transpose", x, perm=None if d.chance(0.1) else d.random.permutation(len(d.shape(x))).tolist())


def squeeze(d: Draw, x: str) -> str:
    axes = [axis for axis, size in enumerate(d.shape(x)) if size == 1 and d.chance(0.7)]
    if d.chance(0.15):
        return d.op("Squeeze", x)
    if not axes:
        return unsqueeze(d, x)
    return d.op("Squeeze", x, axes=axes) if d.opset < 13 else d.op("Squeeze", x, d.ints(*axes))


def unsqueeze(d: Draw, x: str) -> str:
    axis = d.integer(0, len(d.shape(x)))
    return d.op("Unsqueeze", x, axes=[axis]) if d.opset < 13 else d.op("Unsqueeze", x, d.ints(axis))


def split(d: Draw, x: str) -> str:
    axis = d.integer(0, len(d.shape(x)) - 1)
    size = d.shape(x)[axis]
    first = d.integer(0, size)
    sizes = [first, size - first]
    if d.opset < 13:
        outs = d.many("Split", x, outs=2, axis=axis, split=sizes if d.chance(0.8) else None)
    elif d.opset >= 18 and d.chance(0.3):
        outs = d.many("Split", x, outs=2, axis=axis, num_outputs=2)
    else:
        outs = d.many("Split", x, d.ints(*sizes), outs=2, axis=axis)
    return d.op("Concat", *outs[::-1], axis=axis) if d.chance(0.3) else d.one(*outs)


def slice_(d: Draw, x: str) -> str:
    rank = len(d.shape(x))
    axes = sorted({d.integer(0, rank - 1) for _ in range(d.integer(1, 2))})
    starts, ends = [d.integer(-3, 2) for _ in axes], [d.one(-1, 1, 2, 3, 4, 1 << 40) for _ in axes]
    if d.opset < 10:
        return d.op("Slice", x, starts=starts, ends=ends, axes=axes)
    steps = [d.one(1, 1, 2, -1) for _ in axes]
    ends = [-(1 << 40) if step < 0 else end for step, end in zip(steps, ends, strict=True)]
    if len(axes) == 1 and d.chance(0.3):
        return d.op("Slice", x, d.ints(*starts), d.op("Div", sizes_of(d, x, axes[0]), d.ints(2)), d.ints(*axes))
    return d.op("Slice", x, d.ints(*starts), d.ints(*ends), d.ints(*axes), d.ints(*steps))


def gather(d: Draw, x: str) -> str:
    axis = d.integer(0, len(d.shape(x)) - 1)
    size = d.shape(x)[axis]
    shape = d.one((), (2,), (size,), (1, 2), (2, 2), (1,))
    indices = d.random.integers(-size if d.opset >= 11 else 0, max(size, 1), shape)
    if d.opset >= 11 and d.chance(0.2):
        last = d.op("Sub", sizes_of(d, x, axis), d.ints(1))
        return d.op("Gather", x, last, axis=axis)
    return d.op("Gather", x, d.const(indices, np.int64), axis=axis)


def gather_elements(d: Draw, x: str) -> str:
    shape, axis = d.shape(x), d.integer(0, len(d.shape(x)) - 1)
    sizes = [d.integer(1, max(size, 1)) for size in shape]
    return d.op("GatherElements", x, d.const(d.random.integers(0, max(shape[axis], 1), sizes), np.int64), axis=axis)


def gather_nd(d: Draw, x: str) -> str:
    shape = d.shape(x)
    depth = d.integer(1, min(3, len(shape)))
    count = d.integer(1, 4)
    columns = [d.random.integers(0, max(size, 1), count) for size in shape[:depth]]
    return d.op("GatherND", x, d.const(np.stack(columns, axis=1), np.int64))


def compress(d: Draw, x: str) -> str:
    shape = d.shape(x)
    axis = d.one(None, d.integer(0, len(shape) - 1))
    size = int(np.prod(shape)) if axis is None else shape[axis]
    return d.op("Compress", x, d.const(d.random.random(d.integer(1, max(size, 1))) < 0.6, np.bool_), axis=axis)


def concat(d: Draw, x: str) -> str:
    shape, axis = d.shape(x), d.integer(0, len(d.shape(x)) - 1)
    extra = [d.integer(1, 3) if at == axis else size for at, size in enumerate(shape)]
    kind = d.one("self", "layer", "constant", "zeros", "part")
    if kind == "layer" and len(shape) == len(d.dims) > 2:
        return d.op("Concat", x, d.conv(shape[1]), axis=axis)
    if kind in {"constant", "zeros"}:
        held = d.weights(*extra) if kind == "constant" else d.const(np.zeros(extra))
        return d.op("Concat", *([x, held] if d.chance() else [held, x]), axis=axis)
    if kind == "part" and d.opset >= 10:
        y = d.op("Slice", x, d.ints(d.integer(0, 2)), d.ints(d.integer(0, 3)), d.ints(axis))
        return d.op("Concat", x, y, axis=axis)
    return d.op("Concat", x, d.op("Abs", x), axis=axis)


def expand(d: Draw, x: str) -> str:
    shape = d.shape(x)
    if d.chance(0.3):
        return d.op("Expand", x, d.op("Shape", x if d.chance() else d.conv()))
    return d.op("Expand", x, d.ints(*(d.one(1, size if size != 1 else d.integer(1, 3)) for size in shape)))


def tile(d: Draw, x: str) -> str:
    return d.op("Tile", x, d.ints(*(d.one(1, 1, 2) for _ in d.shape(x))))


def trilu(d: Draw, x: str) -> str:
    return d.op("Trilu", x, *([d.const(d.integer(-2, 2), np.int64)] if d.chance() else []), upper=d.one(0, 1))


def blocks(op: str) -> Step:
    """DepthToSpace, or SpaceToDepth."""

    def step(d: Draw, x: str) -> str:
        mode = d.one("DCR", "CRD") if op == "DepthToSpace" and d.opset >= 11 else None
        return d.op(op, x, blocksize=2, mode=mode)

    return step


def reverse(d: Draw, x: str) -> str:
    batch = d.one(0, 1)
    lengths = [d.integer(1, max(1, d.shape(x)[1 - batch])) for _ in range(d.shape(x)[batch])]
    return d.op("ReverseSequence", x, d.ints(*lengths), batch_axis=batch, time_axis=1 - batch)


MOVES: dict[str, Step] = {
    "Reshape": reshape,
    "Reshape fixed": reshape_fixed,
    "Reshape computed": reshape_computed,
    "Flatten": flatten,
    "Transpose": transpose,
    "Squeeze": squeeze,
    "Unsqueeze": unsqueeze,
    "Split": split,
    "Slice": slice_,
    "Gather": gather,
    "GatherElements": gather_elements,
    "GatherND": gather_nd,
    "Compress": compress,
    "Concat": concat,
    "Expand": expand,
    "Tile": tile,
    "Trilu": trilu,
    "DepthToSpace": blocks("DepthToSpace"),
    "SpaceToDepth": blocks("SpaceToDepth"),
    "ReverseSequence": reverse,
}
