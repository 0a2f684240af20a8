"""What a rewrite changed beside the values of constants: which nodes were added where, and which attributes changed.

Each new node multiplies one value. It stands behind the node that computes the value, and before all nodes that read
the product, or before a graph output.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from onnxnorm.model.graph import Graph
from onnxnorm.rewriting.attributes import Attribute
from onnxnorm.rewriting.insertion import PREFIX, Insertion
from onnxnorm.rewriting.outlook import elements_computed

__all__ = ["AddedNode", "Additions", "additions", "places"]


@dataclass(frozen=True)
class AddedNode:
    """A node that was added.

    Attributes:
        name: its name.
        op: its operator.
        value: the value of the original that it multiplies.
        behind: the node that computes that value; empty where constants are stored.
        before: the nodes that read the product; none for a graph output alone.
        is_output: whether the product is a graph output.
        factors: number of elements of the constant that it multiplies by.
        elements: number of elements that it computes for one sample; 0 where all inputs are constant, since the runtime
            computes that once.
    """

    name: str
    op: str
    value: str
    behind: str
    before: tuple[str, ...]
    is_output: bool
    factors: int
    elements: int


@dataclass(frozen=True)
class Additions:
    """What changed beside the values of constants.

    Attributes:
        nodes: the new nodes, in the order of the graph.
        attributes: the node and the name of each attribute that changed.
        touched: elements that the new nodes compute for one sample, as a share of all that the original computes.
    """

    nodes: tuple[AddedNode, ...]
    attributes: tuple[tuple[str, str], ...]
    touched: float


def additions(graph: Graph, insertion: Insertion, attributes: Iterable[Attribute]) -> Additions:
    """What changed beside the values of constants.

    Args:
        graph: the graph of the rewritten model; that of the original will do where no nodes were added.
        insertion: what was added.
        attributes: the attributes that changed.
    """
    names = set(insertion.nodes)
    labels = {name: node.label for node in graph.nodes for name in node.outputs}
    originals = {inner: name for name, inner in insertion.renamed.items()}
    nodes = []
    for node in graph.nodes:
        if node.proto.name not in names:
            continue
        source, constant = node.inputs
        product = node.outputs[0]
        readers = [graph.by_index[reader.node] for reader in graph.readers.get(product, ())]
        value = next((name for name in (product, source) if not name.startswith(PREFIX)), source)
        shape = () if product in graph.constants else graph.shapes.get(product, ())
        nodes.append(
            AddedNode(
                name=node.label,
                op=node.op,
                value=originals.get(source, value),
                behind=labels.get(source, ""),
                before=tuple(dict.fromkeys(reader.label for reader in readers)),
                is_output=product in graph.outputs,
                factors=graph.constants[constant].size,
                elements=int(np.prod(shape, dtype=np.int64)) if shape else 0,
            )
        )
    touched, total = sum(node.elements for node in nodes), elements_computed(graph, names)
    follow = tuple((labels.get(attribute.output, attribute.output), attribute.name) for attribute in attributes)
    return Additions(tuple(nodes), follow, touched / total if total else 0.0)


def places(found: Additions) -> list[tuple[str, ...]]:
    """The new nodes as rows of text: name, value, behind and before which nodes, factors, elements for one sample."""
    return [
        (
            node.name,
            node.value,
            node.behind or "constants",
            ", ".join([*node.before, *(["graph output"] if node.is_output else [])]),
            f"{node.factors:,}",
            f"{node.elements:,}" if node.elements else "computed once",
        )
        for node in found.nodes
    ]
