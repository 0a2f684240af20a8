"""Quantization: numbers are counted in steps, and the size of a step is the free place.

`QuantizeLinear` writes `round(x / step) + zero point`, limited to the range of its type. If the step follows the scale
of the input, the same integers come out, so these have no scale::

    step' = step * s_in

`DequantizeLinear` writes `(x - zero point) * step`. Its input has no scale; the step makes that of the output::

    step' = step * s_out

A step that is computed from activations has a scale, which the value on the other side shares.

A step is one number, or there is one for each element along an axis, or one for each block; then all share a scale.
The same integers come out for powers of two; with other scales a number that lies between two steps may be rounded to
the other one, as behind any layer before a QuantizeLinear.

Source: the specification of ONNX's operators of these names, https://onnx.ai/onnx/operators/.
"""

from __future__ import annotations

from onnxnorm.scaling.laws import law
from onnxnorm.scaling.operand import Operand, Refusal
from onnxnorm.scaling.slots import Ids, at_rank
from onnxnorm.scaling.visit import Outcome, Visit

_COUNTS = "it is a number of steps"
_UNKNOWN = "the shape of its input, or that of its step, is not known"


@law("QuantizeLinear")
def quantize(visit: Visit) -> Outcome:
    """`round(x / step)`: the step follows one scale, or one for each element of its axis. The output has none."""
    source, step = visit.operands[:2]
    if source is None or source.shape is None or step is None or step.shape is None:
        return Refusal(_UNKNOWN)
    visit.keep_rest(2)
    _follow(visit, step, visit.merge_but(at_rank(source.ids, source.rank), _axes(visit, step)))
    return visit.unscaled(_COUNTS)


@law("DequantizeLinear")
def dequantize(visit: Visit) -> Outcome:
    """`(x - zero point) * step`: output scales are free, one for each element of the step's axis."""
    source, step = visit.operands[:2]
    if source is None or source.shape is None or step is None or step.shape is None:
        return Refusal(_UNKNOWN)
    visit.pin(source, _COUNTS)
    visit.keep_rest(2)
    along = _axes(visit, step)
    out = visit.fresh(*(source.shape[axis] if axis in along else 1 for axis in range(source.rank)))
    _follow(visit, step, out)
    return out


@law("DynamicQuantizeLinear")
def quantize_by_range(visit: Visit) -> Outcome:
    """The step, an output, is a share of the range of the input, so it has its scale. The integers have none."""
    counts = visit.fresh(1)
    visit.pins.append((counts, visit.node.outputs[0], _COUNTS))
    one = visit.one(visit.first())
    visit.scaleless = _COUNTS
    return [counts, one]


def _axes(visit: Visit, step: Operand) -> list[int]:
    """The axis along which each element has a step of its own; none where steps are for all, or for blocks."""
    several = step.shape is not None and len(step.shape) == 1 and step.shape[0] > 1
    rank = visit.first().rank
    return [visit.node.attribute("axis", 1) % rank] if several else []


def _follow(visit: Visit, step: Operand, ids: Ids) -> None:
    """The step has these scales: a constant is multiplied by them, another one shares them."""
    rank = len(step.shape or ())
    ids = ids.reshape(-1) if rank == 1 else ids.reshape((1,) * rank)
    if step.constant is not None:
        visit.edit(step, times=ids)
    else:
        visit.tie(step.ids, ids)
