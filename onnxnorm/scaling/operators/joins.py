"""Operators that join values: `f(s * x, s * y) = s * f(x, y)`. Operands share one scale.

Operands broadcast against each other; their slots are tied wherever their elements meet. Constants are multiplied by
the scale.

Source: the specification of ONNX's operators of these names, https://onnx.ai/onnx/operators/.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from onnxnorm.errors import ModelError
from onnxnorm.model.tensors import is_float
from onnxnorm.scaling.laws import law
from onnxnorm.scaling.operand import Operand, Refusal
from onnxnorm.scaling.operators.movement import moving_ids
from onnxnorm.scaling.slots import Ids, at_rank
from onnxnorm.scaling.visit import Outcome, Visit

_UNALIGNED = "the shapes of what it joins are not known"
_MULTIPLIES = "it multiplies values into others, at places that indices say"


@law("Add", "Sub", "Sum", "Mean", "Max", "Min", role="transparent")
def join(visit: Visit) -> Outcome:
    """Elements that meet share a scale; constants are multiplied by it. One that meets several channels ties them."""
    return _joined(visit, visit.present())


@law("Mod")
def modulo(visit: Visit) -> Outcome:
    """The remainder of a division of floats, `fmod`, follows one scale of both operands."""
    return _joined(visit, visit.present())


@law("Greater", "GreaterOrEqual", "Less", "LessOrEqual")
def compare(visit: Visit) -> Outcome:
    """Operands share one scale, and the output has none. Compared with the constant 0, the other may have any."""
    if _with_zero(visit):
        return visit.unscaled("it says how a value compares with 0, which does not depend on its scale")
    outcome = _joined(visit, visit.present())
    return outcome if isinstance(outcome, Refusal) else visit.unscaled("it says how values compare that share a scale")


@law("Equal")
def compare_exactly(visit: Visit) -> Outcome:
    """A comparison with the constant 0 holds for any scale. Others are refused, since scaled numbers are rounded."""
    if _with_zero(visit):
        return visit.unscaled("it says what is 0, which does not depend on scales")
    return Refusal("it asks whether numbers are equal, which rounding decides once they are scaled")


def _with_zero(visit: Visit) -> bool:
    return any(operand.constant is not None and not operand.constant.nonzero().any() for operand in visit.present())


@law("Where")
def where(visit: Visit) -> Outcome:
    """Elements of the two operands that meet share a scale; the condition has none."""
    if not visit.aligned(visit.present()):
        return Refusal(_UNALIGNED)
    return _joined(visit, visit.present()[1:])


@law("Scatter", "ScatterElements", "TensorScatter")
def scatter(visit: Visit) -> Outcome:
    """What is put into a value shares its scales, tied along the axis. Refused if it is multiplied into it."""
    data, updates = visit.operand(0), visit.operand(1 if visit.node.op == "TensorScatter" else 2)
    assert data is not None
    assert updates is not None
    if data.shape is None or updates.shape is None:
        return Refusal(_UNALIGNED)
    if visit.node.attribute("reduction", "none") == "mul":
        return Refusal(_MULTIPLIES)
    if not data.shape or data.rank != updates.rank:
        raise ModelError(
            f"{visit.node.op} node {visit.node.label!r} puts values of shape {updates.shape} into those of shape "
            f"{data.shape}, which must have as many axes, and one at least; correct the model, and export it again"
        )
    axis = visit.node.attribute("axis", -2 if visit.node.op == "TensorScatter" else 0) % data.rank
    sizes = zip(data.shape, updates.shape, strict=True)
    tied = {axis, *(at for at, (a, b) in enumerate(sizes) if a != b)}
    return _joined(visit, [_tied(visit, operand, tied) for operand in (data, updates)])


@law("ScatterND")
def scatter_blocks(visit: Visit) -> Outcome:
    """As ScatterElements; the blocks that are put into a value have its last axes."""
    data, indices, updates = visit.operands
    assert data is not None
    assert indices is not None
    assert updates is not None
    if data.shape is None or updates.shape is None or not indices.shape:
        return Refusal(_UNALIGNED)
    if visit.node.attribute("reduction", "none") == "mul":
        return Refusal(_MULTIPLIES)
    first = indices.shape[-1]
    return _joined(
        visit, [_tied(visit, data, range(first)), _tied(visit, updates, range(updates.rank - data.rank + first))]
    )


def _tied(visit: Visit, operand: Operand, axes: Collection[int]) -> Operand:
    """An operand whose scales are tied along some axes."""
    others = [axis for axis in range(operand.rank) if axis not in axes]
    return operand._replace(ids=visit.merge_but(at_rank(operand.ids, operand.rank), others))


@law("RotaryEmbedding")
def rotate(visit: Visit) -> Outcome:
    """It turns pairs of elements of the last axis, which share a scale. Angles that are no constants keep scale 1."""
    source = visit.first()
    visit.pin_rest(1, "it says by which angle the operator turns")
    if source.ids.shape[-1:] in {(), (1,)}:
        return source.ids
    if source.shape is None:
        return Refusal(_UNALIGNED)
    heads = 1 if source.rank == 4 else visit.node.attribute("num_heads", 0)
    size = source.shape[-1] // max(1, heads)
    turned = visit.node.attribute("rotary_embedding_dim", 0) or size
    partner = np.arange(size)
    first = partner[:turned]
    partner[:turned] = first ^ 1 if visit.node.attribute("interleaved", 0) else np.roll(first, turned // 2)
    places = (np.arange(max(1, heads))[:, None] * size + partner).reshape(-1)
    pairs: Ids = np.maximum(source.ids, source.ids[..., places])
    visit.tie(pairs, source.ids)
    return pairs


def _joined(visit: Visit, operands: list[Operand]) -> Outcome:
    if not visit.aligned(operands):
        return Refusal(_UNALIGNED)
    activations = [moving_ids(operand) for operand in operands if operand.constant is None]
    constants = [operand for operand in operands if operand.constant is not None]
    if not activations:  # a Where that selects from constants
        activations, constants = [moving_ids(operand) for operand in operands], []
    rank = max(ids.ndim for ids in activations)
    aligned = np.broadcast_arrays(*(at_rank(ids, rank) for ids in activations))
    joined: Ids = np.asarray(np.maximum.reduce(aligned))
    for ids in activations:
        visit.tie(joined, at_rank(ids, rank))
    if constants:
        joined = visit.solid(joined)
    for operand in constants:
        assert operand.constant is not None
        if not operand.constant.nonzero().any():
            visit.keep(operand)
            continue
        bounds = visit.node.op in {"Max", "Min"} and is_float(operand.constant.dtype)
        visit.edit(operand, times=visit.spread(joined, operand), bounds=bounds)
    return joined
