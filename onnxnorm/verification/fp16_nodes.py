"""Which nodes a mixed-precision converter leaves in float32, and how much of the work that is.

NVIDIA's AutoCast (Model-Optimizer) leaves a node in float32 if one of its inputs or outputs exceeds 512 on the
calibration data, or if one of its weights exceeds 65504; these are the defaults of `data_max` and `init_max`. Its rules
by name, by operator and by depth of reduction are off unless they are asked for, and are not counted here.

Source: https://nvidia.github.io/Model-Optimizer/guides/8_autocast.html.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from onnxnorm.model.graph import Graph, Node

__all__ = ["DATA_MAX", "INIT_MAX", "NodeCounts", "count_nodes"]

DATA_MAX, INIT_MAX = 512.0, 65504.0


@dataclass(frozen=True)
class NodeCounts:
    """The nodes of one network that compute with floating-point numbers.

    Attributes:
        nodes: number of them.
        kept: names of those that stay in float32.
        multiplications: number of multiplications in convolutions and products of matrices.
        in_half: number of those that are in nodes which do not stay in float32.
    """

    nodes: int = 0
    kept: tuple[str, ...] = field(default=(), repr=False)
    multiplications: int = 0
    in_half: int = 0

    @property
    def share_in_half(self) -> float | None:
        """The share of multiplications that runs in float16; None if there are none."""
        return self.in_half / self.multiplications if self.multiplications else None


def count_nodes(graph: Graph, values: Mapping[str, float], weights: Mapping[str, float]) -> NodeCounts:
    """Count the nodes that stay in float32.

    Args:
        graph: the graph.
        values: the largest magnitude of every floating-point value.
        weights: the largest magnitude of every constant.
    """
    nodes, kept, total, half = 0, [], 0, 0
    for node in graph.nodes:
        touched = [name for name in (*node.inputs, *node.outputs) if name in values]
        if not touched:
            continue
        nodes += 1
        products = _multiplications(node, graph)
        total += products
        if any(values[name] > DATA_MAX for name in touched) or any(
            weights.get(name, 0.0) > INIT_MAX for name in node.inputs
        ):
            kept.append(node.label)
        else:
            half += products
    return NodeCounts(nodes, tuple(kept), total, half)


def _multiplications(node: Node, graph: Graph) -> int:
    """The number of multiplications of a convolution or a product of matrices; 0 where shapes are not known."""
    if node.op not in {"Conv", "ConvTranspose", "Gemm", "MatMul"}:
        return 0
    shapes = [graph.shapes.get(name) for name in (*node.inputs[:2], node.outputs[0])]
    if None in shapes:
        return 0
    source, weight, target = (shape or () for shape in shapes)
    if node.op == "Conv":
        return math.prod(target) * math.prod(weight[1:])
    if node.op == "ConvTranspose":
        return math.prod(source) * math.prod(weight[1:])
    turned = node.op == "Gemm" and node.attribute("transA", 0)
    return math.prod(target) * source[0 if turned else -1] if source else 0
