"""Checks of the attributes and the number of inputs of nodes, as a model is opened.

ONNX's shape inference ends the process, or never comes back, where some attributes are out of range: the axis of a
LayerNormalization beyond 32 bits, a negative `batch_dims` of a GatherND, fewer parts of a Split than it has outputs,
and the equation of an Einsum with other characters than it may have.
What only shapes can bring about is held back in `guards`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Any, TypeAlias

import onnx

from onnxnorm.errors import ModelError
from onnxnorm.model.containers import Container, containers

__all__ = ["check_attributes", "check_handed_on", "check_no_references"]

_OWN = ("", "ai.onnx")
_MOST = (1 << 31) - 1  # what a number of 32 bits holds; ONNX's C++ code keeps axes and the like in such
_MOST_PARTS = 1 << 16  # of a Split; inference writes down the size of each

_Callee: TypeAlias = tuple[str, str, str]
"""Domain, name and overload of a function."""
# of an Einsum: indices with at most one ellipsis in each term
_EQUATION = re.compile(
    rb"[A-Za-z ]*(\.\.\.[A-Za-z ]*)?(,[A-Za-z ]*(\.\.\.[A-Za-z ]*)?)*(->[A-Za-z ]*(\.\.\.[A-Za-z ]*)?)?"
)


@dataclass(frozen=True)
class _Limits:
    """What an attribute may be: the smallest and the largest number, and whether a text must be an equation."""

    low: int = -(1 << 63)
    high: int = (1 << 63) - 1
    equation: bool = False


_ANY = _Limits()


def check_attributes(node: onnx.NodeProto, opset: int, where: str) -> None:
    """Raise ModelError if an attribute that a node needs is missing, or one is of a wrong type or out of range.

    Also if it has more or fewer inputs than its operator takes.
    """
    if node.domain not in _OWN:
        return
    required, types, least, most = _signature(node.op_type, opset)
    what = f"{where}: {_label(node)}"
    if not least <= len(node.input) <= most:
        takes = f"at least {least}" if len(node.input) < least else f"at most {most}"
        has = f"has {len(node.input)} input{'s' * (len(node.input) != 1)}"
        raise ModelError(f"{what} {has}, and its operator takes {takes}; export the model again")
    given = {attribute.name: attribute.type for attribute in node.attribute}
    for name in required - given.keys():
        raise ModelError(f"{what} lacks the attribute {name!r}, which its operator requires; export the model again")
    for attribute in node.attribute:  # of any type: inference does not look at it
        if (attribute.i or attribute.name == "equation") and not attribute.ref_attr_name:
            _check_limit(attribute, _own_limits(node, attribute.name), what)
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
def _signature(op: str, opset: int) -> tuple[frozenset[str], Mapping[str, int], int, int]:
    """The attributes that an operator requires, the types of all its attributes, and how many inputs it takes.

    Nothing is required of an operator that is not known.
    """
    if not onnx.defs.has(op, opset):
        return frozenset(), MappingProxyType({}), 0, _MOST
    schema = onnx.defs.get_schema(op, opset)
    return (
        frozenset(name for name, attribute in schema.attributes.items() if attribute.required),
        MappingProxyType({name: _number(attribute.type) for name, attribute in schema.attributes.items()}),
        schema.min_input,
        schema.max_input,
    )


def _number(kind: Any) -> int:
    """The number of an attribute type; its class in onnx differs from the enumeration of protobuf."""
    return int(kind.value)


def check_handed_on(proto: onnx.ModelProto, where: str) -> None:
    """Raise ModelError if a call hands on what an attribute inside a function may not have.

    Functions must not call themselves.
    """
    functions = {_callee(f.domain, f.name, f.overload): f for f in proto.functions}
    handed_on: dict[_Callee, dict[str, _Limits]] = {}

    def limits(node: onnx.NodeProto, name: str) -> _Limits:
        own = _own_limits(node, name) if node.domain in _OWN else _ANY
        callee = _callee(node.domain, node.op_type, node.overload)
        return _narrower(own, of(callee).get(name, _ANY) if callee in functions else _ANY)

    def of(callee: _Callee) -> Mapping[str, _Limits]:
        """What the attributes of a function may be, from the nodes in it that they are handed on to."""
        if callee not in handed_on:
            found: dict[str, _Limits] = {}
            for node in _nodes(functions[callee]):
                for attribute in node.attribute:
                    name = attribute.ref_attr_name
                    if name:
                        found[name] = _narrower(found.get(name, _ANY), limits(node, attribute.name))
            handed_on[callee] = found
        return handed_on[callee]

    if not functions:
        return
    for callee, function in functions.items():
        for attribute in function.attribute_proto:
            _check_limit(attribute, of(callee).get(attribute.name, _ANY), f"{where}: function {callee[1]!r}")
    for node in _nodes(proto.graph, *proto.functions):
        if _callee(node.domain, node.op_type, node.overload) in functions:
            for attribute in node.attribute:
                if not attribute.ref_attr_name:
                    _check_limit(attribute, limits(node, attribute.name), f"{where}: {_label(node)}")


def _narrower(first: _Limits, second: _Limits) -> _Limits:
    return _Limits(max(first.low, second.low), min(first.high, second.high), first.equation or second.equation)


def _check_limit(attribute: onnx.AttributeProto, limits: _Limits, what: str) -> None:
    if not limits.low <= attribute.i <= limits.high:
        raise ModelError(
            f"{what} has an attribute {attribute.name!r} of {attribute.i}, where from {limits.low} to {limits.high} "
            "was expected; correct the model, or export it again"
        )
    if limits.equation and not _EQUATION.fullmatch(attribute.s):
        raise ModelError(
            f"{what} has an attribute {attribute.name!r} of {attribute.s[:80]!r}, where letters, '...', ',' and '->' "
            "were expected; correct the model, or export it again"
        )


def _own_limits(node: onnx.NodeProto, name: str) -> _Limits:
    """What an attribute of one of ONNX's own operators may be."""
    if node.op_type == "Constant":
        return _ANY
    if (node.op_type, name) == ("GatherND", "batch_dims"):
        return _Limits(0, _MOST)
    if (node.op_type, name) == ("Split", "num_outputs"):
        return _Limits(len(node.output), max(len(node.output), _MOST_PARTS))
    return _Limits(-_MOST - 1, _MOST, equation=(node.op_type, name) == ("Einsum", "equation"))


def _nodes(*roots: Container) -> Iterable[onnx.NodeProto]:
    return (node for container in containers(*roots) for node in container.node)


def _callee(domain: str, name: str, overload: str) -> _Callee:
    return ("" if domain == "ai.onnx" else domain, name, overload)


def _label(node: onnx.NodeProto) -> str:
    return f"{node.op_type} node {node.name or next(iter(node.output), '')!r}"
