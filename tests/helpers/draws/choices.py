"""Operators that compare, choose, put, turn or transform elements."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from tests.helpers.draws.draw import Draw, IllegalDrawError, Step
from tests.helpers.draws.elements import other

__all__ = ["CHOICES", "since"]


def since(d: Draw, opset: int) -> None:
    """Raise IllegalDrawError before an opset."""
    if d.opset < opset:
        raise IllegalDrawError(f"not before opset {opset}")


def arg(op: str) -> Step:
    """ArgMax, or ArgMin, as numbers."""

    def step(d: Draw, x: str) -> str:
        places = d.op(op, x, axis=d.integer(0, len(d.shape(x)) - 1), keepdims=d.one(0, 1))
        return d.op("Cast", places, to=TensorProto.FLOAT)

    return step


def hardmax(d: Draw, x: str) -> str:
    return d.op("Mul", d.op("Hardmax", x, axis=d.integer(0, len(d.shape(x)) - 1)), other(d, x))


def top(d: Draw, x: str) -> str:
    shape = d.shape(x)
    axis = d.integer(0, len(shape) - 1)
    count = d.integer(1, max(1, shape[axis]))
    if d.opset < 10:
        return d.op("TopK", x, outs=2, axis=axis, k=count)
    return d.op("TopK", x, d.ints(count), outs=2, axis=axis)


def modulo(d: Draw, x: str) -> str:
    since(d, 10)
    return d.op("Mod", x, d.op("Abs", other(d, x)) if d.chance(0.3) else d.positive(*d.one((), d.shape(x)[1:])), fmod=1)


def scatter(op: str) -> Step:
    """ScatterElements, or its older name, of another value or a constant."""

    def step(d: Draw, x: str) -> str:
        since(d, 11 if op == "ScatterElements" else 9)
        shape = d.shape(x)
        axis = d.integer(0, len(shape) - 1)
        updates = d.op("Neg", x) if d.chance() else d.weights(*(d.integer(1, max(1, size)) for size in shape))
        places = d.const(d.random.integers(0, max(1, shape[axis]), d.shape(updates)), np.int64)
        how = d.one("none", "add", "max") if d.opset >= 18 else None
        data = d.const(np.zeros(shape)) if d.chance(0.2) else x
        return d.op(op, data, places, updates, axis=axis, reduction=how)

    return step


def scatter_blocks(d: Draw, x: str) -> str:
    since(d, 11)
    shape = d.shape(x)
    depth = d.integer(1, min(2, len(shape)))
    places = np.stack([d.random.permutation(size)[:1] for size in shape[:depth]], axis=1)
    block = d.weights(1, *shape[depth:])
    if d.chance() and depth == 1:
        block = d.op("Gather", x, d.ints(d.integer(0, shape[0] - 1)))
    return d.op("ScatterND", x, d.const(places, np.int64), block)


def rotary(d: Draw, x: str) -> str:
    since(d, 23)
    shape = d.shape(x)
    if len(shape) not in {3, 4} or shape[-1] % 2:
        raise IllegalDrawError("odd")
    tokens, turned = shape[1] if len(shape) == 3 else shape[2], d.one(2, 2, shape[-1])
    if turned > 2 and any(isinstance(dim, str) for dim in d.dims[2:]):
        raise IllegalDrawError("the runtime leaves an element of odd sizes as it was in memory")
    angles = [d.weights(shape[0], tokens, turned // 2) for _ in range(2)]
    heads = 1 if len(shape) == 3 else None
    return d.op("RotaryEmbedding", x, *angles, interleaved=d.one(0, 1), num_heads=heads, rotary_embedding_dim=turned)


def attend(d: Draw, x: str) -> str:
    since(d, 23)
    shape = d.shape(x)
    if len(shape) not in {3, 4}:
        raise IllegalDrawError("no heads")
    d.inexact = True
    queries, keys, values = (d.op("MatMul", x, d.weights(shape[-1], size)) for size in (4, 4, 2))
    many = d.one(1, 2) if len(shape) == 3 else None
    return d.op("Attention", *d.one([queries, keys, values], [x, x, x]), q_num_heads=many, kv_num_heads=many)


def unique(d: Draw, x: str) -> str:
    since(d, 11)
    return d.op("Add", x, d.op("ReduceMax", d.op("Unique", x), keepdims=0))


def eye(d: Draw, x: str) -> str:
    since(d, 9)
    if len(d.shape(x)) != 2:
        raise IllegalDrawError("no matrix")
    return d.op("Mul", x, d.op("EyeLike", x))


def transform(d: Draw, x: str) -> str:
    since(d, 17)
    d.inexact = True
    axis = d.integer(0, len(d.shape(x)) - 1)
    wide = d.op("Unsqueeze", x, d.ints(-1))
    wide = d.op("DFT", wide, axis=axis) if d.opset < 20 else d.op("DFT", wide, "", d.const(axis, np.int64))
    return d.op("ReduceSum", wide, d.ints(-1), keepdims=0)


def frames(d: Draw, x: str) -> str:
    since(d, 17)
    d.inexact = True
    if len(d.shape(x)) != 2:
        raise IllegalDrawError("no signals")
    signal = d.op("Unsqueeze", x, d.ints(-1))
    return d.op("STFT", signal, d.const(1, np.int64), d.positive(2))


def einsum(d: Draw, x: str) -> str:
    since(d, 12)
    shape = d.shape(x)
    labels = "abcde"[: len(shape)]
    held = "".join(label for label in labels if d.chance(0.5))
    sizes = dict(zip(labels, shape, strict=True)) | {"z": 2}
    held += "z" if d.chance() else ""
    output = "".join(d.random.permutation([k for k in dict.fromkeys(labels + held) if d.chance(0.7)]))
    d.inexact = True
    weight = d.weights(*(sizes[label] for label in held))
    if d.chance(0.3):
        return d.op("Einsum", weight, x, equation=f"{held},{labels}->{output}")
    return d.op("Einsum", x, weight, equation=f"{labels},{held}->{output}")


CHOICES: dict[str, Step] = {
    "ArgMax": arg("ArgMax"),
    "ArgMin": arg("ArgMin"),
    "Hardmax": hardmax,
    "TopK": top,
    "Mod": modulo,
    "Scatter": scatter("Scatter"),
    "ScatterElements": scatter("ScatterElements"),
    "ScatterND": scatter_blocks,
    "RotaryEmbedding": rotary,
    "Attention": attend,
    "Unique": unique,
    "EyeLike": eye,
    "DFT": transform,
    "STFT": frames,
    "Einsum": einsum,
}
