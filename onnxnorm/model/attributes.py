"""Checks of the attributes of nodes, as a model is opened.

ONNX's shape inference ends the process, or never comes back, where some attributes are out of range: it takes the axis
of a LayerNormalization beyond 32 bits, or as many outputs of a Split as there are, unseen. What only shapes can bring
about is held back in `guards`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Any, TypeAlias

import onnx

from onnxnorm.errors import ModelError
from onnxnorm.model.containers import Container, containers

__all__ = ["check_attributes", "check_limits", "check_no_references"]

_OWN = ("", "ai.onnx")
_MOST = (1 << 31) - 1  # what a number of 32 bits holds; ONNX's C++ code keeps axes and the like in such
_MOST_PARTS = 1 << 16  # of a Split; inference writes down the size of each

_Limits: TypeAlias = tuple[int, int]
_ANY: _Limits = (-(1 << 63), (1 << 63) - 1)


def check_attributes(node: onnx.NodeProto, opset: int, where: str) -> None:
    """Raise ModelError if an attribute that the operator of a node requires is missing, or one is of a wrong type."""
    if node.domain not in _OWN:
        return
    required, types = _signature(node.op_type, opset)
    given = {attribute.name: attribute.type for attribute in node.attribute}
    what = f"{where}: {_label(node)}"
    for name in required - given.keys():
        raise ModelError(f"{what} lacks the attribute {name!r}, which its operator requires; export the model again")
    for name, kind in given.items():
        if kind and types.get(name, kind) != kind:
            raise ModelError(
                f"{what} has an attribute {name!r} of a type that its operator does not take; export again"
            )


def check_no_references(node: onnx.NodeProto, where: str) -> None:
    """Raise ModelError if an attribute stands for one of a function, though the node is in none."""
    for attribute in node.attribute:
        if attribute.ref_attr_name:
            raise ModelError(
                f"{where}: attribute {attribute.name!r} of {node.op_type} node {node.name!r} refers to an attribute "
                "of a function, but is in none; export the model again"
            )


@lru_cache(maxsize=4096)
def _signature(op: str, opset: int) -> tuple[frozenset[str], Mapping[str, int]]:
    """The attributes that an operator requires, and the types of all its attributes; empty if it is not known."""
    if not onnx.defs.has(op, opset):
        return frozenset(), MappingProxyType({})
    attributes = onnx.defs.get_schema(op, opset).attributes
    return (
        frozenset(name for name, attribute in attributes.items() if attribute.required),
        MappingProxyType({name: _number(attribute.type) for name, attribute in attributes.items()}),
    )


def _number(kind: Any) -> int:
    """The number of an attribute type; its class in onnx differs from the enumeration of protobuf."""
    return int(kind.value)


def check_limits(proto: onnx.ModelProto, where: str) -> None:
    """Raise ModelError if a whole number among the attributes is one that shape inference does not survive.

    Functions must not call themselves. What a call hands on to the attributes of a function is checked too.
    """
    functions = {_callee(f.domain, f.name): f for f in proto.functions}
    handed_on: dict[tuple[str, str], dict[str, _Limits]] = {}

    def limits(node: onnx.NodeProto, name: str) -> _Limits:
        low, high = _own_limits(node, name) if node.domain in _OWN else _ANY
        callee = _callee(node.domain, node.op_type)
        others = limits_of(callee).get(name, _ANY) if callee in functions else _ANY
        return max(low, others[0]), min(high, others[1])

    def limits_of(callee: tuple[str, str]) -> Mapping[str, _Limits]:
        """What the attributes of a function may be, from the nodes in it that they are handed on to."""
        if callee not in handed_on:
            found: dict[str, _Limits] = {}
            for node in _nodes(functions[callee]):
                for attribute in node.attribute:
                    if attribute.ref_attr_name:
                        low, high = limits(node, attribute.name)
                        others = found.get(attribute.ref_attr_name, _ANY)
                        found[attribute.ref_attr_name] = max(low, others[0]), min(high, others[1])
            handed_on[callee] = found
        return handed_on[callee]

    for callee, function in functions.items():
        for attribute in function.attribute_proto:
            _check_limit(attribute, limits_of(callee).get(attribute.name, _ANY), f"{where}: function {callee[1]!r}")
    for node in _nodes(proto.graph, *proto.functions):
        for attribute in node.attribute:
            if attribute.i and not attribute.ref_attr_name:  # of any type: inference does not look at it
                _check_limit(attribute, limits(node, attribute.name), f"{where}: {_label(node)}")


def _check_limit(attribute: onnx.AttributeProto, limits: _Limits, what: str) -> None:
    low, high = limits
    if not low <= attribute.i <= high:
        raise ModelError(
            f"{what} has an attribute {attribute.name!r} of {attribute.i}, where from {low} to {high} was expected; "
            "correct the model, or export it again"
        )


def _own_limits(node: onnx.NodeProto, name: str) -> _Limits:
    """What an attribute of one of ONNX's own operators may be, if it is a whole number."""
    if node.op_type == "Constant":
        return _ANY
    if (node.op_type, name) == ("GatherND", "batch_dims"):
        return 0, _MOST
    if (node.op_type, name) == ("Split", "num_outputs"):
        return len(node.output), max(len(node.output), _MOST_PARTS)
    return -_MOST - 1, _MOST


def _nodes(*roots: Container) -> Iterable[onnx.NodeProto]:
    return (node for container in containers(*roots) for node in container.node)


def _callee(domain: str, name: str) -> tuple[str, str]:
    return ("" if domain == "ai.onnx" else domain, name)


def _label(node: onnx.NodeProto) -> str:
    return f"{node.op_type} node {node.name or next(iter(node.output), '')!r}"
