"""Broken models are refused as they are opened, with what is wrong and where."""

from __future__ import annotations

import onnx
import pytest

from onnxnorm.errors import ModelError
from onnxnorm.model.files import Model
from onnxnorm.model.graph import ordered_nodes
from tests.helpers.graphs import model


def concatenation() -> onnx.ModelProto:
    return model("z = Concat<axis=1>(x, x)", {"x": (1, 3, 4, 4)})


def test_an_attribute_of_a_function_outside_of_functions() -> None:
    proto = concatenation()
    proto.graph.node[0].attribute[0].ref_attr_name = "axis"
    with pytest.raises(ModelError, match=r"attribute 'axis' of Concat node .* refers to an attribute of a function"):
        Model.open(proto)


def test_inside_a_function_it_is_right() -> None:
    node = onnx.helper.make_node("Concat", ["x", "x"], ["y"])
    node.attribute.append(onnx.AttributeProto(name="axis", type=onnx.AttributeProto.INT, ref_attr_name="along"))
    function = onnx.helper.make_function(
        "own", "Twice", ["x"], ["y"], [node], [onnx.helper.make_opsetid("", 18)], ["along"]
    )
    proto = concatenation()
    proto.functions.append(function)
    assert Model.open(proto).proto.functions[0].name == "Twice"


def test_text_that_is_not_utf8_is_read_as_far_as_it_can_be() -> None:
    proto = model('z = DepthToSpace<blocksize=2, mode="DCR">(x)', {"x": (1, 4, 4, 4)})
    next(attribute for attribute in proto.graph.node[0].attribute if attribute.name == "mode").s = b"D\x9eR"
    (node,) = ordered_nodes(Model.open(proto))
    assert node.attribute("mode") == "D\ufffdR"
