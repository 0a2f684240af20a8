"""Einsum of an activation and a constant: a layer whose axes an equation names.

Labels of the equation stand for axes. Scales of the input may vary along those that the weight has too; along others
they are tied. Those of the output are free along labels of the weight::

    W'[labels] = W[labels] * s_out / s_in

Source: the specification of ONNX's operator Einsum, https://onnx.ai/onnx/operators/.
"""

from __future__ import annotations

from onnxnorm.scaling.laws import Outcome, Refusal, Visit, law
from onnxnorm.scaling.slots import Ids, at_rank


@law("Einsum", role="mixing")
def einsum(visit: Visit) -> Outcome:
    """Output scales are free along axes of a constant factor. Refused for two activations, diagonals and ellipses."""
    operands = visit.present()
    weights = [operand for operand in operands if visit.editable(operand)]
    if len(operands) != 2 or len(weights) != 1:
        return Refusal("it multiplies and adds other things than an activation and a constant that may be changed")
    (weight,) = weights
    (source,) = (operand for operand in operands if operand is not weight)
    terms, output = _read(visit.node.attribute("equation", ""))
    if any("." in term or len(set(term)) < len(term) for term in (*terms, output)):
        return Refusal("its equation has an ellipsis, or takes a diagonal")
    if source.shape is None and not source.uniform:
        return Refusal("the shape of its input is not known")
    read, held = terms[source.position], terms[weight.position]
    shared = [axis for axis, label in enumerate(read) if label in held]
    over = visit.merge_but(at_rank(source.ids, len(read)), shared)
    sizes = dict(zip(held, weight.shape or (), strict=True))
    out = visit.fresh(*(sizes.get(label, 1) for label in output))
    visit.edit(weight, times=_arranged(out, output, held), over=_arranged(over, read, held))
    return out


def _read(equation: str) -> tuple[list[str], str]:
    """The labels of the inputs and of the output; if that is not stated, it has those that occur once."""
    inputs, arrow, output = equation.replace(" ", "").partition("->")
    labels = inputs.replace(",", "")
    return inputs.split(","), output if arrow else "".join(sorted(k for k in labels if labels.count(k) == 1))


def _arranged(ids: Ids, labels: str, order: str) -> Ids:
    """Slots with the axes of `order`; along axes that they lack they have size 1, as along those that `order` lacks."""
    known = [labels.index(label) for label in order if label in labels]
    rest = [axis for axis in range(len(labels)) if axis not in known]
    shape = [ids.shape[labels.index(label)] if label in labels else 1 for label in order]
    return ids.transpose([*known, *rest]).reshape(shape)
