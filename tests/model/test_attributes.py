"""Attributes that ONNX's shape inference does not survive are refused as a model is opened."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import onnx
import pytest
from onnx import helper

from onnxnorm.errors import ModelError
from onnxnorm.model.files import Model

LARGE = 1 << 31


def model(*nodes: onnx.NodeProto, functions: tuple[onnx.FunctionProto, ...] = ()) -> onnx.ModelProto:
    values = [helper.make_tensor_value_info(name, 1, None) for name in ("x", "z")]
    graph = helper.make_graph(list(nodes), "g", values[:1], values[1:])
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("own", 1)]
    return helper.make_model(graph, opset_imports=opsets, functions=list(functions))


def node(op: str, **attributes: Any) -> onnx.NodeProto:
    inputs = {"LayerNormalization": ["x", "x"], "GatherND": ["x", "x"]}.get(op, ["x"])
    return helper.make_node(op, inputs, ["z", "z2"] if op == "Split" else ["z"], **attributes)


CASES = [
    ("LayerNormalization", "axis", [LARGE, -LARGE - 1, (1 << 63) - 1], [-1, 1]),
    ("GatherND", "batch_dims", [-1, LARGE], [0, 1]),
    ("Split", "num_outputs", [1, -1, 10**9], [2]),
]


@pytest.mark.parametrize(("op", "name", "refused", "legal"), CASES)
def test_numbers_out_of_range(op: str, name: str, refused: list[int], legal: list[int]) -> None:
    for number in refused:
        with pytest.raises(ModelError, match=rf"{op} node 'z' has an attribute '{name}' of {number}, where from"):
            Model.open(model(node(op, **{name: number})))
    for number in legal:
        Model.open(model(node(op, **{name: number})))


@pytest.mark.parametrize(
    ("op", "inputs", "takes"),
    [
        ("Gemm", 1, "at least 2"),
        ("Gemm", 2, None),
        ("Gemm", 4, "at most 3"),
        ("Relu", 2, "at most 1"),
        ("Concat", 0, "at least 1"),
        ("Concat", 9, None),
        ("NoSuchOperator", 0, None),
    ],
)
@pytest.mark.parametrize("opset", [18, 255])  # 255: none that is known; the newest counts
def test_the_number_of_inputs(op: str, inputs: int, takes: str | None, opset: int) -> None:
    attributes: dict[str, Any] = {"axis": 0} if op == "Concat" else {}
    proto = model(helper.make_node(op, ["x"] * inputs, ["z"], **attributes))
    proto.opset_import[0].version = opset
    with (
        pytest.raises(ModelError, match=rf"has {inputs} inputs?, and its operator takes {takes};")
        if takes
        else nullcontext()
    ):
        Model.open(proto)


@pytest.mark.parametrize(
    "equation", ["ab&,bc->ac", "a.b,bc", "8ab,bc", b"\x83ab,bc", "ab,bc->a\nc", "ab,....c", "a\tb"]
)
def test_equations_with_other_characters(equation: str | bytes) -> None:
    with pytest.raises(ModelError, match=r"Einsum node 'z' has an attribute 'equation' of .*, where letters"):
        Model.open(model(node("Einsum", equation=equation)))
    inner = node("Einsum", equation="")
    inner.attribute[0].CopyFrom(onnx.AttributeProto(name="equation", ref_attr_name="inside", type="STRING"))
    function = helper.make_function("own", "F", ["x"], ["z"], [inner], [helper.make_opsetid("", 18)], ["inside"])
    for given, legal in ((equation, False), ("ab->a", True)):
        proto = model(helper.make_node("F", ["x"], ["z"], domain="own", inside=given), functions=(function,))
        with nullcontext() if legal else pytest.raises(ModelError, match=r"'inside' of .*, where letters"):
            Model.open(proto)


@pytest.mark.parametrize("equation", ["ab,bc->ac", " a B ... , ... bc -> ... ", "", "ij", "...", "ii->", "a...,->a"])
def test_equations_that_are_legal(equation: str) -> None:
    Model.open(model(node("Einsum", equation=equation)))


def test_constants_and_operators_of_others_may_be_large() -> None:
    constant = helper.make_node("Constant", [], ["z"], value_int=1 << 62)
    Model.open(model(constant, helper.make_node("Foreign", ["x"], ["y"], domain="own", axis=1 << 62)))


@pytest.mark.parametrize(("op", "name", "refused", "legal"), CASES)
@pytest.mark.parametrize("how", ["call", "call of a call", "default"])
def test_numbers_that_a_function_hands_on(op: str, name: str, refused: list[int], legal: list[int], how: str) -> None:
    def calling(number: int) -> onnx.ModelProto:
        inner = node(op)
        inner.attribute.add(name=name, ref_attr_name="inside", type=onnx.AttributeProto.INT)
        opsets = [helper.make_opsetid("", 18), helper.make_opsetid("own", 1)]
        named = [] if how == "default" else ["inside"]
        first = helper.make_function("own", "First", ["x"], ["z"], [inner], opsets, attributes=named)
        if how == "default":
            first.attribute_proto.append(helper.make_attribute("inside", number))
            return model(helper.make_node("First", ["x"], ["z"], domain="own"), functions=(first,))
        if how == "call":
            return model(helper.make_node("First", ["x"], ["z"], domain="own", inside=number), functions=(first,))
        call = helper.make_node("First", ["x"], ["z"], domain="own")
        call.attribute.add(name="inside", ref_attr_name="outside", type=onnx.AttributeProto.INT)
        second = helper.make_function("own", "Second", ["x"], ["z"], [call], opsets, attributes=["outside"])
        outer = helper.make_node("Second", ["x"], ["z"], domain="own", outside=number, aside=1 << 62)
        return model(outer, functions=(first, second))

    for number in refused:
        with pytest.raises(ModelError, match=rf"has an attribute '(in|out)side' of {number}, where from"):
            Model.open(calling(number))
    for number in legal:
        Model.open(calling(number))
