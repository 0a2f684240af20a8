"""Recurrent layers: gates that are not positively homogeneous, in front of which constant weights absorb scales.

The input X has shape `(time, N, C)`, or `(N, time, C)` with `layout` 1, and W `(directions, gates * units, C)`::

    W'[d, g, c] = W[d, g, c] / s_in[c]

Everything else, recurrent weights, biases and states, is as before.

Source: the specification of ONNX's operators GRU, LSTM and RNN, https://onnx.ai/onnx/operators/.
"""

from __future__ import annotations

from onnxnorm.scaling.laws import law
from onnxnorm.scaling.operand import Refusal
from onnxnorm.scaling.visit import Outcome, Visit


@law("GRU", "LSTM", "RNN")
def recurrent(visit: Visit) -> Outcome:
    """Scales of the input's channels are absorbed by W; states, and the outputs, have none."""
    source, weight = visit.first(), visit.operand(1)
    gates = "it runs gates, and scaling their inputs does not just scale their outputs"
    if weight is None or not visit.editable(weight):
        return Refusal(f"{gates}, and its weight is no constant that may change")
    if source.shape is None or weight.shape is None or source.rank != 3 or len(weight.shape) != 3:
        return Refusal("the shape of its input is not known")
    visit.keep_rest(2)
    visit.pin_rest(2, gates)
    over = visit.along(source, 2, weight.shape[2])
    visit.edit(weight, over=over.reshape(1, 1, -1))
    return visit.unscaled(gates)
