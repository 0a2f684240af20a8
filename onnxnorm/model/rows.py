"""The law of the batch axis: where each sample of a batch is computed by itself.

A graph is read for one sample. A value *has rows* if its first axis, of size 1 then, has one row for each of several
samples, and if each row follows from its own sample alone. Inputs have rows. What a node computes of them has rows if
its operator has a rule (`row_rules`) and the rule holds. Any other node that reads rows mixes samples, for all that is
known, and so does one that reads none without being constant, as a random number.

Invariant: every value with rows has a known shape whose first size is 1. The rules follow from the operator
specification of ONNX. What computes over all samples (a softmax along axis 0, the range of a DynamicQuantizeLinear)
has no rule, or the rule does not hold. The number of samples itself, from a Shape, may only become the first size of
what is reshaped, resized or expanded (`counts`).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from onnxnorm.model.counts import count_marks
from onnxnorm.model.graph import Graph, Node
from onnxnorm.model.row_rules import RULES, SIZED, Reading

__all__ = ["mixing_node"]


def mixing_node(graph: Graph) -> Node | None:
    """The first node that may mix samples, in a graph whose inputs have one sample each; None if there is none."""
    rows, counts = {spec.name for spec in graph.inputs}, dict[str, NDArray[np.bool_]]()
    for node in graph.nodes:
        reads = node.captured().union(node.inputs)
        outputs = [name for name in node.outputs if name]
        if not outputs:  # nobody reads it
            continue
        if rows.isdisjoint(reads) and counts.keys().isdisjoint(reads):
            if not all(name in graph.constants for name in outputs):
                return node
        elif node.op == "Shape" or rows.isdisjoint(reads):
            marks = None if node.captured() else count_marks(node, graph, counts)
            if marks is None:
                return node
            if marks.any():
                counts[outputs[0]] = marks
        elif _keeps_rows(Reading(node, graph, rows, counts)):
            rows.update(outputs)
        else:
            return node
    return None


def _keeps_rows(reading: Reading) -> bool:
    node, graph = reading.node, reading.graph
    rule, names = RULES.get(node.op), [name for name in (*node.inputs, *node.outputs) if name]
    if rule is None or node.captured() or not all(name in graph.shapes and name not in graph.claimed for name in names):
        return False
    if any(name in reading.counts for name in node.inputs) and node.op not in SIZED:
        return False
    shapes = [graph.shapes[name] for name in node.outputs if name]  # of empty values, inference and runtime differ
    return all(shape and shape[0] == 1 and 0 not in shape for shape in shapes) and rule(reading)
