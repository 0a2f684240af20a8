"""Attention as one operator: `softmax(scale * Q @ K^T) @ V`, head by head.

With a scale for each element of a head, those of queries and keys have to cancel out in every product that is summed::

    s_q * s_k = 1

What the softmax weights is V, whose scales pass. Queries have shape `(N, heads, length, size)`, or
`(N, length, heads * size)`; keys and values may have fewer heads, each of which then serves several of the queries.

Source: the specification of ONNX's Attention, https://onnx.ai/onnx/operators/onnx__Attention.html.
"""

from __future__ import annotations

import numpy as np

from onnxnorm.scaling.laws import law
from onnxnorm.scaling.operand import Operand, Refusal
from onnxnorm.scaling.slots import Ids, at_rank
from onnxnorm.scaling.visit import Outcome, Visit


@law("Attention")
def attention(visit: Visit) -> Outcome:
    """Scales of Q and K cancel out, those of V pass. Refused with a past, or if more than the result is given out."""
    query, key, value = visit.operands[:3]
    assert query is not None
    assert key is not None
    assert value is not None
    if any(visit.operands[4:6]) or any(visit.node.outputs[1:]):
        return Refusal("it joins keys and values with those of the past, or gives them out")
    heads = _heads(visit, query, key)
    if query.shape is None or key.shape is None or value.shape is None or heads is None:
        return Refusal("the shapes of what it multiplies are not known")
    asked, held = heads
    queries, keys, values = (_by_head(visit, *pair) for pair in ((query, asked), (key, held), (value, held)))
    if asked != held:  # which of the queries a head serves does not matter then
        keys, values = visit.merge(keys, 0), visit.merge(values, 0)
    visit.relate([(1, queries), (1, keys)], "it takes a softmax of products, in which scales have to cancel out")
    visit.pin_rest(3, "it is added to products of which a softmax is taken")
    visit.keep_rest(3)
    out = np.broadcast_to(values, (asked, values.shape[1]))
    return out.reshape(1, asked, 1, -1) if query.rank == 4 else out.reshape(1, 1, -1)


def _heads(visit: Visit, query: Operand, key: Operand) -> tuple[int, int] | None:
    """Number of heads of the queries, and of keys and values."""
    if query.shape is None or key.shape is None:
        return None
    if query.rank == 4 and key.rank == 4:
        return query.shape[1], key.shape[1]
    asked, held = (int(visit.node.attribute(name, 0)) for name in ("q_num_heads", "kv_num_heads"))
    return (asked, held) if asked and held and query.rank == key.rank == 3 else None


def _by_head(visit: Visit, operand: Operand, heads: int) -> Ids:
    """Slots of a value, tied along samples and length, shape `(heads, size)`."""
    assert operand.shape is not None
    ids = at_rank(operand.ids, operand.rank)
    size = operand.shape[-1] if operand.rank == 4 else operand.shape[-1] // heads
    if operand.rank == 4:
        merged = visit.merge_but(ids, [1, 3])[0, :, 0, :]
        return np.broadcast_to(merged, (heads, size))
    return np.broadcast_to(visit.merge_but(ids, [2]).reshape(-1), (heads * size,)).reshape(heads, size)
