"""Einsum: a layer, or a product of activations, whose axes an equation names.

Labels of the equation stand for axes. With a constant `W`, scales of the input may vary along the labels that W has
too; along others they are tied. Those of the output are free along labels of W::

    W'[labels] = W[labels] * s_out / s_in

Otherwise scales are multiplied, as those of a MatMul are: whatever ends in one element must agree::

    s_out[output labels] = s_a[its labels] * s_b[its labels] * ...        for all values of the summed labels

An ellipsis stands for labels that have no names. A label that occurs twice in one input reads its diagonal.

Source: the specification of ONNX's operator Einsum, https://onnx.ai/onnx/operators/.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnxnorm.scaling.laws import law
from onnxnorm.scaling.operand import Operand, Refusal
from onnxnorm.scaling.operators.products import MOST_PRODUCTS, kept_reason
from onnxnorm.scaling.slots import Ids, at_rank
from onnxnorm.scaling.visit import Outcome, Visit


@law("Einsum", role="mixing")
def einsum(visit: Visit) -> Outcome:
    """Output scales are free along axes of a constant factor. Scales of several activations are multiplied."""
    operands = visit.present()
    equation = visit.node.attribute("equation", "")
    if any(operand.shape is None and ("." in equation or not operand.uniform) for operand in operands):
        return Refusal("the shape of its input is not known")
    if equation.partition("->")[0].count(",") + 1 != len(operands):
        return Refusal("its equation is for another number of inputs")
    terms, output = _read(equation, [operand.rank for operand in operands])
    weights = [operand for operand in operands if visit.editable(operand)]
    if len(operands) == 2 and len(weights) == 1 and _is_layer(operands, terms):
        return _weighted(visit, operands, weights[0], terms, output)
    for operand in operands:
        visit.keep(operand)
    return _multiplied(visit, operands, terms, output)


def _read(equation: str, ranks: Sequence[int]) -> tuple[list[str], str]:
    """The labels of the inputs and of the output, with letters in place of ellipses.

    If the output is not stated, it has the axes of the ellipses, and the labels that occur once.
    """
    inputs, arrow, output = equation.replace(" ", "").partition("->")
    terms = inputs.split(",")
    if not arrow:
        labels = inputs.replace(",", "").replace(".", "")
        output = "..." * ("." in inputs) + "".join(sorted(label for label in labels if labels.count(label) == 1))
    hidden = [rank - len(term) + 3 if "." in term else 0 for term, rank in zip(terms, ranks, strict=True)]
    most = max(hidden)
    letters = "".join(chr(0xC0 + k) for k in range(most))
    terms = [term.replace("...", letters[most - count :]) for term, count in zip(terms, hidden, strict=True)]
    return terms, output.replace("...", letters)


def _is_layer(operands: Sequence[Operand], terms: Sequence[str]) -> bool:
    """Whether no input reads a diagonal, and labels of both inputs have one size."""
    sizes: dict[str, int] = {}
    for operand, term in zip(operands, terms, strict=True):
        for label, size in zip(term, operand.shape or (), strict=False):
            if sizes.setdefault(label, size) != size:
                return False
    return all(len(set(term)) == len(term) for term in terms)


def _weighted(visit: Visit, operands: Sequence[Operand], weight: Operand, terms: Sequence[str], output: str) -> Ids:
    (source,) = (operand for operand in operands if operand is not weight)
    read, held = terms[source.position], terms[weight.position]
    shared = [axis for axis, label in enumerate(read) if label in held]
    over = visit.merge_but(at_rank(source.ids, len(read)), shared)
    sizes = dict(zip(held, weight.shape or (), strict=True))
    out = visit.fresh(*(sizes.get(label, 1) for label in output))
    visit.edit(weight, times=_arranged(out, output, held), over=_arranged(over, read, held))
    return out


def _multiplied(visit: Visit, operands: Sequence[Operand], terms: Sequence[str], output: str) -> Ids:
    labels = "".join(dict.fromkeys("".join(terms)))
    parts = [_along(operand, term, labels) for operand, term in zip(operands, terms, strict=True)]
    shape = np.broadcast_shapes(*(ids.shape for ids in parts))
    if np.prod(shape, dtype=np.float64) > MOST_PRODUCTS:
        parts = [visit.merge_but(ids, [labels.index(label) for label in output]) for ids in parts]
    out = visit.fresh(*(shape[labels.index(label)] for label in output))
    visit.relate([(-1, _arranged(out, output, labels)), *((1, ids) for ids in parts)], kept_reason(*operands))
    return out


def _along(operand: Operand, term: str, labels: str) -> Ids:
    """The slots of an input with the axes of all labels; of a label that occurs twice, those of the diagonal."""
    ids = at_rank(operand.ids, len(term))
    once = "".join(dict.fromkeys(term))
    if once != term:
        sizes = {label: max(n for at, n in zip(term, ids.shape, strict=True) if at == label) for label in once}
        axes = [once.index(label) for label in term]
        whole = np.broadcast_to(ids, [sizes[label] for label in term])
        ids = np.einsum(whole, axes, list(range(len(once))))
    return _arranged(ids, once, labels)


def _arranged(ids: Ids, labels: str, order: str) -> Ids:
    """Slots with the axes of `order`; along axes that they lack they have size 1, as along those that `order` lacks."""
    known = [labels.index(label) for label in order if label in labels]
    rest = [axis for axis in range(len(labels)) if axis not in known]
    shape = [ids.shape[labels.index(label)] if label in labels else 1 for label in order]
    return ids.transpose([*known, *rest]).reshape(shape)
