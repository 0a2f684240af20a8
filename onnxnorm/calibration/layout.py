"""Where ONNX Runtime's CPU kernels keep a value, and when they compute it: the price of a measurement depends on both.

On x86, convolutions read and write a blocked layout, in which several channels of a position lie side by side. What
does not know this layout has the value reordered first, which takes longer than the measurement. Operators that know it
are few (`nchwc_transformer.cc` of ONNX Runtime); its pooling wants a multiple of the block as well.

ONNX Runtime runs nodes in an order of its own: a walk backwards from the nodes that nobody reads, the last of the file
first. If the probe's nodes stood in the file as they come, all layers would be run first, and every value kept, in
memory and out of the cache, until it is measured at last. So the nodes that measure the first value stand last.
"""

from __future__ import annotations

import platform

import onnx

from onnxnorm.model.graph import Graph, Node

__all__ = ["BLOCK", "blocked_values", "measure_early"]

BLOCK = 16  # channels, where the processor has AVX-512; 8 where it has not, of which 16 is a multiple

_X86 = {"x86_64", "AMD64"}
_FUSED = {
    "Clip",
    "HardSigmoid",
    "HardSwish",
    "LeakyRelu",
    "Relu",
    "Sigmoid",
    "Tanh",
}  # into the convolution that only they read
_GATES = {"HardSigmoid", "Sigmoid"}  # of x * Sigmoid(x), which becomes one operator
_KEEP = {"Add", "AveragePool", "BatchNormalization", "MaxPool", "Relu", "Sigmoid", "Sum", "Tanh"}


def blocked_values(graph: Graph) -> frozenset[str] | None:
    """The values that the CPU kernels keep in the blocked layout; None on a processor that has no such layout."""
    if platform.machine() not in _X86:
        return None
    convolutions: set[str] = set()
    blocked: set[str] = set()
    gates: dict[str, str] = {}  # what each Sigmoid reads
    for node in graph.nodes:
        read = [name for name in node.inputs if name and name not in graph.constants]
        if not read or not node.outputs:
            continue
        output = node.outputs[0]
        if node.op in _GATES:
            gates[output] = read[0]
        if node.op == "Conv" and _is_plain(node, graph):
            convolutions.add(output)
            blocked.add(output)
        elif node.op == "Mul" and len(read) == 2 and not blocked.isdisjoint(read):
            if gates.get(read[0]) == read[1] or gates.get(read[1]) == read[0]:
                blocked.add(output)
        elif blocked.issuperset(read):
            folded = read[0] in convolutions
            if node.op in _KEEP or (node.op in _FUSED and folded and len(graph.readers[read[0]]) == 1):
                blocked.add(output)
            if node.op == "BatchNormalization" and folded:
                convolutions.add(output)
    return frozenset(blocked)


def _is_plain(node: Node, graph: Graph) -> bool:
    """Whether a convolution is one of images in float32 with constant weights."""
    output = node.outputs[0]
    return (
        node.inputs[1] in graph.constants
        and graph.types.get(output) == onnx.TensorProto.FLOAT
        and len(graph.shapes.get(output, ())) == 4
    )


def measure_early(probe: onnx.GraphProto, prefix: str) -> None:
    """Put the nodes that measure behind the others, those of the last value first, so that each is run early.

    Args:
        probe: the graph, whose nodes are in topological order; they are reordered in place.
        prefix: what the names of the nodes that measure begin with. Each of them reads one value that is not constant.
    """
    place: dict[str, int] = {}
    layers, measuring = list[tuple[int, onnx.NodeProto]](), list[tuple[int, onnx.NodeProto]]()
    for index, node in enumerate(probe.node):
        own = node.name.startswith(prefix)
        rank = max((place[name] for name in node.input if name in place), default=-1) if own else index
        place.update((name, rank) for name in node.output)
        (measuring if own else layers).append((rank, node))
    ordered = [node for _, node in (*layers, *sorted(measuring, key=lambda item: -item[0]))]
    copies = onnx.GraphProto(node=ordered)
    del probe.node[:]
    probe.node.extend(copies.node)
