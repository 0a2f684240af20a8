"""Models whose layers are in functions of their own: these are inlined, and that is said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

import onnxnorm
from onnxnorm.model.files import Model
from onnxnorm.model.functions import inlined
from tests.helpers.commands import succeeded
from tests.helpers.graphs import model, rand

OPSETS = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
X = rand(6, 3, 8, 8)


def layer() -> onnx.FunctionProto:
    """A convolution whose pads are an attribute of the function."""
    node = helper.make_node("Conv", ["x", "w"], ["y"])
    node.attribute.add(name="pads", ref_attr_name="pads", type=onnx.AttributeProto.INTS)
    return helper.make_function("own", "Layer", ["x", "w"], ["y"], [node], OPSETS, attributes=["pads"])


def block() -> onnx.FunctionProto:
    """A function that calls another one, twice."""
    first = helper.make_node("Layer", ["x", "w"], ["a"], domain="own", pads=[1, 1, 1, 1])
    second = helper.make_node("Layer", ["r", "v"], ["y"], domain="own", pads=[0, 0, 0, 0])
    relu = helper.make_node("Relu", ["a"], ["r"])
    return helper.make_function("own", "Block", ["x", "w", "v"], ["y"], [first, relu, second], OPSETS)


def network() -> onnx.ModelProto:
    weights = {"w": rand(5, 3, 3, 3), "v": rand(6, 5, 1, 1), "u": rand(2, 6, 1, 1)}
    plain = model("b = Conv(x, w) c = Conv(b, v) r2 = Relu(c) z = Conv(r2, u)", {"x": ("n", 3, 8, 8)}, weights)
    calls = [
        helper.make_node("Block", ["x", "w", "v"], ["b"], domain="own", name="block"),
        helper.make_node("Relu", ["b"], ["r2"]),
        helper.make_node("Conv", ["r2", "u"], ["z"], name="last"),
    ]
    del plain.graph.node[:]
    plain.graph.node.extend(calls)
    del plain.graph.value_info[:]
    plain.functions.extend([block(), layer()])
    del plain.opset_import[:]
    plain.opset_import.extend(OPSETS)
    plain.ir_version = 8
    return plain


def test_filters_inside_are_normalized() -> None:
    proto = network()
    planned = onnxnorm.plan(proto)
    assert (planned.free, planned.pinned, planned.functions_inlined) == (11, 2, 2)
    done = onnxnorm.normalize(proto, X, provider="cpu")
    assert done.reach.normalized == 11
    assert done.verification is not None
    assert done.verification.same
    assert not done.verification.graph_identical
    assert done.verification.graph == "the same but for constants' values and its functions inlined"
    assert not done.model.functions


def test_what_is_written_is_told_and_can_be_undone(tmp_path: Path) -> None:
    onnx.save(network(), tmp_path / "m.onnx")
    np.save(tmp_path / "x.npy", X)
    out = tmp_path / "out.onnx"
    ran = succeeded("normalize", tmp_path / "m.onnx", tmp_path / "x.npy", "-o", out, "--power-of-two")
    assert "; 2 functions of the model's own inlined" in ran.out
    ran = succeeded("verify", tmp_path / "m.onnx", out)
    assert "the same but for constants' values and its functions inlined" in ran.out
    ran = succeeded("restore", out, "-o", tmp_path / "back.onnx")
    assert "the original bit for bit, but for its functions, which stay inlined" in ran.out
    expected = inlined(Model.open(network())).proto.graph
    assert onnx.load(tmp_path / "back.onnx").graph.SerializeToString() == expected.SerializeToString()


def test_statistics_are_of_the_model_as_it_is() -> None:
    """Whoever inlines functions in another way, a newer ONNX say, still finds the model that was measured."""
    proto = network()
    statistics = onnxnorm.calibrate(proto, X, provider="cpu")
    assert statistics.model == Model.open(proto).digest()
    assert onnxnorm.rewrite(proto, statistics, provider="cpu").reach.normalized == 11


def test_weights_in_files_of_their_own(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    onnx.save(network(), path, save_as_external_data=True, location="m.data", size_threshold=0)
    done = onnxnorm.normalize(path, X, tmp_path / "out.onnx", provider="cpu")
    assert done.reach.normalized == 11


def test_defaults_of_attributes_are_kept() -> None:
    """The inliner forgets them; the verification runs the original with its functions, and would tell."""
    proto = network()
    slope = helper.make_node("LeakyRelu", ["x"], ["y"])
    slope.attribute.add(name="alpha", ref_attr_name="alpha", type=onnx.AttributeProto.FLOAT)
    leaky = helper.make_function("own", "Leaky", ["x"], ["y"], [slope], OPSETS)
    leaky.attribute_proto.append(helper.make_attribute("alpha", 0.5))
    proto.functions.append(leaky)
    proto.graph.node[1].CopyFrom(helper.make_node("Leaky", ["b"], ["r2"], domain="own"))
    done = onnxnorm.normalize(proto, X, provider="cpu")
    assert done.verification is not None
    assert done.verification.same
    (node,) = (node for node in done.model.graph.node if node.op_type == "LeakyRelu")
    assert node.attribute[0].f == 0.5


def test_functions_without_layers_stay() -> None:
    proto = network()
    squash = helper.make_function("own", "Squash", ["p"], ["q"], [helper.make_node("Tanh", ["p"], ["q"])], OPSETS)
    del proto.functions[:]
    proto.functions.append(squash)
    proto.graph.node[0].CopyFrom(helper.make_node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]))
    proto.graph.node[1].CopyFrom(helper.make_node("Squash", ["c"], ["r2"], domain="own"))
    proto.graph.initializer[2].CopyFrom(onnx.numpy_helper.from_array(rand(2, 5, 1, 1), "u"))
    opened = Model.open(proto)
    assert inlined(opened) is opened
    planned = onnxnorm.plan(proto)
    assert planned.functions_inlined == 0
    assert any("function of the model's own" in reason for layer in planned.layers for reason in layer.reasons)


@pytest.mark.parametrize("domain", ["", "ai.onnx"])
def test_a_function_that_claims_the_name_of_an_operator_stays(domain: str) -> None:
    proto = network()
    node = helper.make_node("Tanh", ["p"], ["q"])
    proto.functions.append(helper.make_function(domain, "LeakyRelu", ["p"], ["q"], [node], OPSETS[:1]))
    proto.graph.node[1].op_type = "LeakyRelu"
    flat = inlined(Model.open(proto)).proto
    assert [function.name for function in flat.functions] == ["LeakyRelu"]
    assert [node.op_type for node in flat.graph.node] == ["Conv", "Relu", "Conv", "LeakyRelu", "Conv"]
