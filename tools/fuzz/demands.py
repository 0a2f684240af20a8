"""Nodes that ask for much: a few bytes that stand for gigabytes, for hours of computing, or for numbers without end."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import numpy_helper, parser

from tools.fuzz.mutations import pick

__all__ = ["demand_much"]

_COUNTS = (64, 4096, 2**20, 2**24, 2**31, 2**40, 2**62)
_SIDES = ((2000, 2000), (2**15, 2**15), (2**31, 2**31), (2**24,), (2**31,), (1,) * 40)

# What a value "big" is made from; numbers are those of `_numbers`, and "v" is a value of the model.
_SOURCES = (
    ("big = Expand(one, sides)",),
    ("big = ConstantOfShape(sides)",),
    ("big = Range(zero, count, step)",),
    ("big = Tile(ones, sides)",),
    ("big = OneHot(few, count, two)",),
    ('big = Einsum<equation="ab,cd,ef,gh->adeh">(matrix, matrix, matrix, matrix)',),
    ('big = Einsum<equation="ab,cd,ef,gh,ij,kl->">(matrix, matrix, matrix, matrix, matrix, matrix)',),
    ("e = Expand(one, sides)", "t = Transpose(e)", "big = MatMul(e, t)"),
    ('big = Resize<mode="cubic">(image, , factors)',),
    ("s = ConstantOfShape(sides)", "u, big = GRU<hidden_size=4>(s, wide, wider)"),
)
_DOUBLINGS = ("Concat<axis=0>({0}, {0})", "Concat<axis=1>({0}, {0})", "Mul({0}, {0})", "Add({0}, {0})")
_READERS = (
    "out = Identity(big)",
    "out = Cast<to=1>(big)",
    "out = Gather(big, zero)",
    "out = Concat<axis=0>(big, big)",
    "out = Reshape(v, big)",
    "out = Expand(v, big)",
    "out = Slice(v, big, big)",
    "out = Pad(v, big)",
    "r = ReduceMax<keepdims=0>(big) out = Mul(v, r)",
    "out = Add(v, big)",
)


def demand_much(random: np.random.Generator, proto: onnx.ModelProto) -> None:
    """Sometimes put such nodes before a node, and let it read what they make instead of one of its inputs."""
    places = [place for place, node in enumerate(proto.graph.node) if any(node.input)]
    if not places or random.integers(3):
        return
    at = pick(random, places)
    reader = proto.graph.node[at]
    value = next(name for name in reader.input if name)
    nodes = _nodes(_doubled(random, value) if random.integers(3) == 0 else _made(random, value))
    for node in reversed(nodes):
        proto.graph.node.insert(at, node)
    proto.graph.node[at + len(nodes)].input[list(reader.input).index(value)] = nodes[-1].output[0]
    proto.graph.initializer.extend(_numbers(random))


def _made(random: np.random.Generator, value: str) -> list[str]:
    lines = [*pick(random, _SOURCES), *pick(random, _READERS).replace(") ", ")\n").split("\n")]
    return [line.replace("(v,", f"({value},") for line in lines]


def _doubled(random: np.random.Generator, value: str) -> list[str]:
    kind, first = pick(random, _DOUBLINGS), pick(random, (value, "count", "sides", "image"))
    names = [first, *(f"d{level}" for level in range(int(random.integers(2, 70))))]
    return [f"{names[level + 1]} = {kind.format(name)}" for level, name in enumerate(names[:-1])]


def _nodes(lines: Sequence[str]) -> list[onnx.NodeProto]:
    return [parser.parse_node(line) for line in lines]


def _numbers(random: np.random.Generator) -> list[onnx.TensorProto]:
    count = pick(random, _COUNTS)
    values = {
        "one": np.ones((1, 1), np.float32),
        "ones": np.ones((1,) * 4, np.float32),
        "zero": np.int64(0),
        "step": np.int64(1),
        "count": np.int64(count),
        "sides": np.array(pick(random, _SIDES), np.int64),
        "two": np.zeros(2, np.float32),
        "few": np.arange(9),
        "matrix": np.ones((64, 64), np.float32),
        "image": np.ones((1, 1, 64, 64), np.float32),
        "factors": np.array([1, 1, 30, 30], np.float32),
        "wide": np.ones((1, 12, 1), np.float32),
        "wider": np.ones((1, 12, 4), np.float32),
    }
    return [numpy_helper.from_array(np.asarray(value), name) for name, value in values.items()]
