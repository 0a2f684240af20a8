"""What a conversion to float16 does to constants that follow the scales, as bounds on these.

A constant becomes `w * 2 ** (x[times] - x[over])`. In float16

* no element may pass 65504: `x[a] - x[b] <= log2(65504 / |w|)`;
* the largest weight that a filter multiplies by stays a normal number, at least 2^-14: `x[b] - x[a] <= log2(|w|) + 14`.
  Smaller weights of the same filter may lose bits or vanish: they are off by 2^-25 at most, which is to the largest one
  what a rounding of that is. What is only added (a bias) may become small, since what it is added to does too;
* an epsilon, which keeps a root or a division from 0, does not become 0 itself: at least 2^-24.

Numbers in attributes stay float32 whatever a node computes in, so they have no bounds here. What is beyond these bounds
in the network as it is may not move further.

Bounds of all pairs of channels would be too many, and nearly all of them hold by themselves. So those are found that
some scales violate, the worst of each channel, and the scales are solved for again (`choose`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from onnxnorm.model.files import Model
from onnxnorm.model.graph import Graph, Node
from onnxnorm.model.tensors import is_float
from onnxnorm.rewriting.constants import rows_of
from onnxnorm.rewriting.limits import groups_of, rows_from
from onnxnorm.scaling import Edit, Trace

__all__ = ["HalfBound", "epsilons", "lost_epsilons", "violated_bounds"]

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]
Kind = Literal["overflow", "subnormal", "vanish", "bits"]

_LARGEST = float(np.finfo(np.float16).max)
_NORMAL = -14  # exponent of the smallest normal number
_LEAST = -24  # exponent of the smallest number
_LOST = 2.0**-25  # half of that rounds to 0

_ADDED = {
    "Conv": (2,), "ConvTranspose": (2,), "DeformConv": (3,), "Gemm": (2,), "BatchNormalization": (2, 3),
    "InstanceNormalization": (2,), "LayerNormalization": (2,), "GroupNormalization": (2,),
}  # fmt: skip
"""Which inputs of an operator are added, not multiplied."""
_ADDING = frozenset({"Add", "Sub", "Sum", "Mean", "Max", "Min", "Clip", "Where", "Concat", "Pad", "Mod"})
_ROOTS = frozenset({"Sqrt", "Reciprocal", "Pow", "Log"})


@dataclass(frozen=True)
class HalfBound:
    """A bound of two groups, `x[a] - x[b] <= bound`, and what would happen to a constant beyond it."""

    a: int
    b: int
    bound: int
    constant: str
    kind: Kind

    def __str__(self) -> str:
        if self.kind == "bits":
            return f"constant {self.constant!r} would leave the range of normal numbers of its type"
        what = {"overflow": "pass 65504", "subnormal": "lose bits", "vanish": "become 0"}[self.kind]
        return f"constant {self.constant!r} would {what} in float16"


def violated_bounds(model: Model, traced: Trace, exponents: Integers, *, first: bool = False) -> Iterator[HalfBound]:
    """The bounds that exponents `(groups,)` violate, at least one for each constant that does not survive.

    With `first`, constants that no scale touches are looked at too: those that are beyond 65504 as they are have a
    negative bound, a wish to be smaller.
    """
    for edit in traced.edits:
        constant = edit.constant
        if edit.bounds or constant.home == "attribute" or not is_float(constant.dtype) or not constant.size:
            continue
        if edit.times is None and edit.over is None:
            continue
        times, over = (groups_of(ids, traced.groups.of, len(constant.shape)) for ids in (edit.times, edit.over))
        if first or exponents[times].any() or exponents[over].any():
            adds = _is_added(traced.graph.by_index.get(edit.as_read.reader.node), edit)
            yield from _of_constant(model, edit, times, over, exponents, multiplies=not adds)


def _is_added(node: Node | None, edit: Edit) -> bool:
    """Whether a constant is added to something, and not multiplied by."""
    if node is None:
        return True
    return node.op in _ADDING or edit.as_read.reader.input in _ADDED.get(node.op, ())


def _of_constant(
    model: Model, edit: Edit, times: Integers, over: Integers, exponents: Integers, *, multiplies: bool
) -> Iterator[HalfBound]:
    name = edit.constant.name
    least: list[tuple[Floats, Floats, Integers, Integers]] = []
    for start, values in rows_of(model, edit.constant):
        here = np.abs(values.astype(np.float64))
        here[~np.isfinite(here)] = 0
        t, o = (rows_from(groups, start, len(values)) for groups in (times, over))
        alike = tuple(k for k in range(here.ndim) if t.shape[k] == 1 and o.shape[k] == 1)
        here = here.max(axis=alike, keepdims=True)
        after = here * np.exp2((exponents[t] - exponents[o]).astype(np.float64))
        a, b = np.broadcast_to(t, here.shape), np.broadcast_to(o, here.shape)
        for value, group, other in zip(*_largest_along(after, o, here, a, b), strict=True):
            yield HalfBound(int(group), int(other), _octaves(_LARGEST / value), name, "overflow")
        if multiplies:
            least.append(_best(after, t, here, a, b))
    if multiplies and least:
        yield from _too_small(name, least, joined=times.shape[0] == 1)


def _largest_along(
    after: Floats, along: Integers, here: Floats, a: Integers, b: Integers
) -> tuple[Floats, Integers, Integers]:
    """The elements beyond 65504, the largest for each place of `along`: their values before, and their groups."""
    if after.max(initial=0.0) <= _LARGEST:
        return np.empty(0), np.empty(0, np.int64), np.empty(0, np.int64)
    most, values, first, second = _best(after, along, here, a, b)
    beyond = most > _LARGEST
    return values[beyond], first[beyond], second[beyond]


def _best(
    after: Floats, along: Integers, here: Floats, a: Integers, b: Integers
) -> tuple[Floats, Floats, Integers, Integers]:
    """For each place along which groups vary, the element that is the largest there: after, before, its groups."""
    kept = [k for k in range(after.ndim) if along.shape[k] > 1]
    order = [*kept, *(k for k in range(after.ndim) if k not in kept)]
    rows = int(np.prod([after.shape[k] for k in kept], dtype=np.int64))
    flat = [array.transpose(order).reshape(rows, -1) for array in (after, here, a, b)]
    best = (np.arange(rows), flat[0].argmax(axis=1))
    most, values, first, second = (array[best] for array in flat)
    return most, values, first, second


def _too_small(
    name: str, parts: Sequence[tuple[Floats, Floats, Integers, Integers]], *, joined: bool
) -> Iterator[HalfBound]:
    """Filters of which the largest weight has become subnormal. Blocks of rows are those of one filter if `joined`."""
    if joined:
        stacked = [np.stack(arrays) for arrays in zip(*parts, strict=True)]
        best = (stacked[0].argmax(axis=0), np.arange(stacked[0].shape[1]))
        most, values, first, second = (array[best] for array in stacked)
    else:
        most, values, first, second = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    wrong = (most < 2.0**_NORMAL) & (most < values)
    for value, group, other in zip(values[wrong].tolist(), first[wrong].tolist(), second[wrong].tolist(), strict=True):
        yield HalfBound(other, group, max(0, _octaves(value / 2.0**_NORMAL)), name, "subnormal")


def epsilons(model: Model, traced: Trace) -> list[HalfBound]:
    """The bounds of constants that keep a root or a division from 0."""
    found = []
    for edit, least in _epsilon_edits(model, traced):
        over = traced.groups.of[0] if edit.over is None else traced.groups.of[edit.over.reshape(-1)[0]]
        for group in np.unique(traced.groups.of[edit.times.reshape(-1)]).tolist() if edit.times is not None else ():
            bound = max(0, _octaves(least / 2.0**_LEAST))
            found.append(HalfBound(int(over), group, bound, edit.constant.name, "vanish"))
    return found


def lost_epsilons(model: Model, traced: Trace, exponents: Integers) -> tuple[str, ...]:
    """Names of the epsilons that become 0 in float16 by these exponents `(groups,)`, and do not as they are."""
    of = traced.groups.of
    lost: dict[str, None] = {}
    for edit, least in _epsilon_edits(model, traced):
        if edit.times is not None and least * 2.0 ** float(exponents[of[edit.times]].min()) <= _LOST:
            lost[edit.constant.name] = None
    return tuple(lost)


def _epsilon_edits(model: Model, traced: Trace) -> Iterator[tuple[Edit, float]]:
    """Edits of epsilons that float16 can hold as they are, each with the smallest magnitude in it."""
    for edit in traced.edits:
        node = traced.graph.by_index.get(edit.as_read.reader.node)
        if node is None or edit.constant.home == "attribute" or not is_float(edit.constant.dtype):
            continue
        if node.op in _ADDING and _guards(traced.graph, node):
            magnitudes = [np.abs(values[values != 0].astype(np.float64)) for _, values in rows_of(model, edit.constant)]
            least = min((float(part.min()) for part in magnitudes if part.size), default=0.0)
            if least > _LOST:
                yield edit, least


def _guards(graph: Graph, node: Node) -> bool:
    """Whether what a node writes is under a root, or divides."""
    for reader in graph.readers.get(node.outputs[0], ()):
        behind = graph.by_index[reader.node]
        if behind.op in _ROOTS or (behind.op == "Div" and reader.input == 1):
            return True
    return False


def _octaves(ratio: float) -> int:
    """The largest whole number e with `2 ** e <= ratio`."""
    mantissa, exponent = np.frexp(ratio)
    del mantissa
    return int(exponent) - 1
