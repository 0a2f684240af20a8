"""Operators: models of one node, of any version of any operator that ONNX knows, with random inputs and attributes.

What ONNX's own shape inference does not survive is found here first, when a version of ONNX brings new operators.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import onnxnorm
from tools.fuzz.mutations import ODD_INTEGERS, pick
from tools.fuzz.target import Files, Target

__all__ = ["TARGET"]

MODEL = "model.onnx"
_SIZES = (1, 2, 3, 4, 4, 6)
_TYPES = (TensorProto.FLOAT, TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL, TensorProto.STRING, 10, 11, 0)
_WORDS = (
    b"",
    b"NOTSET",
    b"SAME_UPPER",
    b"VALID",
    b"linear",
    b"nearest",
    b"DCR",
    b"bij,bjk->bik",
    b"...i->...",
    b"edge",
)
_Schema = onnx.defs.OpSchema
_Kind = onnx.AttributeProto


@cache
def _schemas() -> list[_Schema]:
    known = onnx.defs.get_all_schemas_with_history()
    return sorted(known, key=lambda schema: (schema.domain, schema.name, schema.since_version))


@cache
def _seeds() -> Mapping[str, Files]:
    nodes = [helper.make_node("Relu", ["x"], ["y"]), helper.make_node("Abs", ["x"], ["y"])]
    return {node.op_type: _saved([node], [_value("x", TensorProto.FLOAT, [1, 3, 4, 4])], []) for node in nodes}


def _saved(
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    tensors: list[TensorProto],
    opset: int = 18,
    domain: str = "",
) -> Files:
    outputs = [onnx.ValueInfoProto(name=name) for name in nodes[-1].output if name]
    imports = {"": 18, "own": 1} | {domain: opset}
    opsets = [helper.make_opsetid(*entry) for entry in imports.items()]
    graph = helper.make_graph(nodes, "g", inputs, outputs, tensors)
    return {MODEL: helper.make_model(graph, opset_imports=opsets).SerializeToString()}


def _value(name: str, kind: int, shape: list[int] | None) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def _damage(random: np.random.Generator) -> Files:
    schema = pick(random, _schemas())
    least, most = schema.min_input, min(schema.max_input, max(schema.min_input + 3, len(schema.inputs)))
    nodes: list[onnx.NodeProto] = []
    inputs: list[onnx.ValueInfoProto] = []
    tensors: list[TensorProto] = []
    names: list[str] = []
    for at in range(int(random.integers(least, most + 1))):
        names.append("" if random.integers(12) == 0 else f"i{at}")
        formal = schema.inputs[min(at, len(schema.inputs) - 1)]
        whole = "tensor(int64)" in formal.types and "tensor(float)" not in formal.types
        if random.random() < (0.8 if whole else 0.15):
            tensors.append(_tensor(random, f"i{at}"))
        else:
            _feed(random, f"i{at}", nodes, inputs)
    count = int(random.integers(schema.min_output, min(schema.max_output, schema.min_output + 3) + 1))
    node = helper.make_node(schema.name, names, [f"o{at}" for at in range(max(count, 1))], domain=schema.domain)
    for name, attribute in sorted(schema.attributes.items()):
        if random.integers(16) if attribute.required else random.integers(2):
            _describe(random, node, name, _number_of(attribute.type))
    return _saved([*nodes, node], inputs, tensors, schema.since_version, schema.domain)


def _number_of(kind: Any) -> int:
    """The number of an attribute type; its class in onnx differs from the enumeration of protobuf."""
    return int(kind.value)


def _feed(
    random: np.random.Generator, name: str, nodes: list[onnx.NodeProto], inputs: list[onnx.ValueInfoProto]
) -> None:
    """Let a value be an input of the graph, or computed: of a size that may be negative, or without a type."""
    kind, shape = pick(random, _TYPES), [pick(random, _SIZES) for _ in range(int(random.integers(6)))]
    how = int(random.integers(8))
    if how == 0:
        nodes.append(helper.make_node("Foreign", [], [name], domain="own"))
    elif how < 3 and shape:
        pads = [int(number) for number in random.integers(-3, 2, 2 * len(shape))]
        nodes.append(helper.make_node("Constant", [], [f"{name}p"], value_ints=pads))
        nodes.append(helper.make_node("Pad", [f"{name}x", f"{name}p"], [name]))
        inputs.append(_value(f"{name}x", kind, shape))
    else:
        if random.integers(4) == 0 and shape:
            shape[int(random.integers(len(shape)))] = pick(random, ODD_INTEGERS)
        inputs.append(_value(name, kind, None if how == 3 else shape))


def _tensor(random: np.random.Generator, name: str) -> TensorProto:
    values = np.array([_number(random) for _ in range(int(random.integers(6)))], np.int64)
    with np.errstate(all="ignore"):
        values = values.astype(pick(random, (np.int64, np.int64, np.int64, np.int32, np.float32)))
    return numpy_helper.from_array(values[0] if len(values) == 1 and random.integers(2) else values, name)


def _number(random: np.random.Generator) -> int:
    return int(random.integers(-3, 5)) if random.integers(4) else pick(random, ODD_INTEGERS)


def _describe(random: np.random.Generator, node: onnx.NodeProto, name: str, kind: int) -> None:
    """Give a node an attribute, mostly of the type that its operator asks for."""
    make = _MAKERS.get(kind if random.integers(24) else _Kind.INT)
    if make is not None:
        attribute = helper.make_attribute(name, make(random), attr_type=None)
        node.attribute.append(attribute)


def _several(random: np.random.Generator, make: Callable[[np.random.Generator], Any]) -> list[Any]:
    return [make(random) for _ in range(int(random.integers(1, 5)))]


def _real(random: np.random.Generator) -> float:
    return pick(random, (0.0, 1.0, -1.0, 0.5, 2.0, 1e30, float("nan"), float("inf")))


def _body(random: np.random.Generator) -> onnx.GraphProto:
    """Return a subgraph whose nodes read its inputs, or a value outside."""
    count = int(random.integers(4))
    inputs = [_value(f"b{at}", pick(random, _TYPES), None) for at in range(count)]
    nodes = [
        helper.make_node(pick(random, ("Identity", "Shape", "Relu")), [pick(random, [f"b{at}", "i0"])], [f"c{at}"])
        for at in range(int(random.integers(1, 4)))
    ]
    outputs = [_value(node.output[0], pick(random, _TYPES), None) for node in nodes]
    return helper.make_graph(nodes, "body", inputs, outputs)


_MAKERS: Mapping[int, Callable[[np.random.Generator], Any]] = {
    _Kind.INT: _number,
    _Kind.INTS: lambda random: _several(random, _number),
    _Kind.FLOAT: _real,
    _Kind.FLOATS: lambda random: _several(random, _real),
    _Kind.STRING: lambda random: pick(random, _WORDS),
    _Kind.STRINGS: lambda random: _several(random, lambda random: pick(random, _WORDS)),
    _Kind.TENSOR: lambda random: _tensor(random, "t"),
    _Kind.GRAPH: _body,
}


def _read(folder: Path, random: np.random.Generator) -> object:
    return str(onnxnorm.plan(folder / MODEL, filters=pick(random, ("conv", "all"))))


TARGET = Target("operators", _seeds, _damage, _read)
