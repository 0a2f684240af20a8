"""Activations that ONNX Runtime computes within the convolution before them, where what is between them is measured.

A measured value has to be written, so the activation is a pass of its own. Which pass is cheapest depends on it:

* Relu: the convolution computes the negative, by negated weights, which is exact; a depthwise convolution by -1 with
  the Relu in it makes the value's positive part. The largest numbers of both are all that is needed, and no pass makes
  the negative, which is what the smallest numbers are measured by in the blocked layout (`peaks`).
* Clip, LeakyRelu and HardSwish exist outside a convolution only for the usual layout. A depthwise convolution by 1
  keeps them in the blocked one.

The names of these nodes do not begin as those of nodes that measure: they belong to the network.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import onnx_graphsurgeon as gs

from onnxnorm.calibration.layout import BLOCK
from onnxnorm.model.graph import Graph, Node

__all__ = ["by_channel", "keep_fused"]

_INSIDE_ONLY = frozenset({"Clip", "HardSwish", "LeakyRelu"})


def by_channel(surgeon: gs.Graph, value: gs.Tensor, channels: int, factor: float, name: str) -> gs.Variable:
    """Append a depthwise convolution that multiplies by a number, and return what it writes, named as it is."""
    weight = gs.Constant(f"{name}_weight", np.full((channels, 1, 1, 1), factor, np.float32))
    output = gs.Variable(name)
    attributes = {"kernel_shape": [1, 1], "group": channels}
    surgeon.nodes.append(gs.Node("Conv", name, attributes, [value, weight], [output]))
    return output


def keep_fused(
    surgeon: gs.Graph,
    graph: Graph,
    measured: Collection[str],
    means: Collection[str],
    blocked: frozenset[str],
    name: str,
) -> dict[str, str]:
    """Change the nodes around measured values in blocks.

    Args:
        surgeon: the graph that is changed.
        graph: the same graph, as it was read.
        measured: the values whose extremes are measured.
        means: the values that are averaged.
        blocked: the values that the kernels keep in blocks.
        name: what the names of new nodes begin with.

    Returns:
        The values that became their own negatives, each with the name of its positive part.
    """
    makers = {output: node for node in graph.nodes for output in node.outputs[:1]}
    tensors, negated = surgeon.tensors(), dict[str, str]()
    for index, value in enumerate(measured):
        readers = graph.readers.get(value, ())
        if value not in blocked or len(readers) != 1 or makers[value].op != "Conv":
            continue
        reader, channels = graph.by_index[readers[0].node], graph.shapes[value][1]
        new = f"{name}_{index}"
        if reader.op in _INSIDE_ONLY and reader.outputs[0] in blocked:
            _read(tensors[value], by_channel(surgeon, tensors[value], channels, 1, new))
        elif reader.op == "Relu" and not channels % BLOCK and value not in {*means, *graph.outputs}:
            _negate(surgeon, tensors[value].inputs[0], makers[value], new)
            _read(tensors[value], by_channel(surgeon, tensors[value], channels, -1, new))
            negated[value] = reader.outputs[0]
    return negated


def _read(value: gs.Tensor, instead: gs.Variable) -> None:
    """Make the only node of the network that reads a value read another one."""
    reader = next(node for node in value.outputs if instead not in node.outputs)
    reader.inputs = [instead if tensor is value else tensor for tensor in reader.inputs]


def _negate(surgeon: gs.Graph, convolution: gs.Node, node: Node, name: str) -> None:
    """Negate weights and bias, which the runtime does once, when it loads the graph."""
    for place in range(1, len(node.inputs)):
        if node.inputs[place]:
            output = gs.Variable(f"{name}_negative_{place}")
            surgeon.nodes.append(gs.Node("Neg", output.name, {}, [convolution.inputs[place]], [output]))
            convolution.inputs[place] = output
