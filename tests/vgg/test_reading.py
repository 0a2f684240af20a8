"""A VGG is recognized by its structure; what looks like one and is none is not."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from onnxnorm.model.files import Model
from onnxnorm.vgg import NoVgg, Vgg, read_vgg
from tests.helpers.commands import DEMO
from tests.helpers.graphs import model, rand
from tests.helpers.vggs import VGG16, VGG19, vgg

C1 = {"w": rand(4, 3, 3, 3), "b": rand(4, seed=1), "v": rand(4, 4, 3, 3, seed=2)}
SAME = "pads=[1,1,1,1]"


def read(proto: onnx.ModelProto) -> Vgg:
    found = read_vgg(Model.open(proto))
    assert isinstance(found, Vgg), found
    return found


@pytest.mark.parametrize("blocks", [VGG16, VGG19, (1, 1), (3,)])
@pytest.mark.parametrize("channels_last", [False, True])
def test_names_of_the_literature(blocks: tuple[int, ...], channels_last: bool) -> None:
    values = read(vgg(blocks, channels_last=channels_last)).values
    expected = []
    for block, count in enumerate(blocks, 1):
        for index in range(1, count + 1):
            expected += [f"conv{block}_{index}", f"relu{block}_{index}"]
        expected.append(f"pool{block}")
    assert list(values) == expected
    order = [
        node.output[0] for node in vgg(blocks, channels_last=channels_last).graph.node if node.op_type != "Transpose"
    ]
    assert list(values.values()) == order


@pytest.mark.parametrize("channels_last", [False, True])
def test_dense_layers(channels_last: bool) -> None:
    found = read(vgg(VGG16, (9, 8, 7), channels_last=channels_last))
    assert list(found.values)[-5:] == ["fc6", "relu6", "fc7", "relu7", "fc8"]
    assert found.values["fc8"] == "d2_out"
    assert found.channels_last is channels_last
    assert read(vgg(VGG16, (9, 8))).dense == ()


def test_the_demo_is_one_whose_names_agree() -> None:
    found = read_vgg(Model.open(DEMO))
    assert isinstance(found, Vgg)
    assert found.values["relu3_2"] == "relu3_2"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("a = Relu(x) z = Abs(a)", "no convolution"),
        (f"a = Conv<{SAME}, strides=[2,2]>(x, w, b) z = Relu(a)", "stride"),
        ("a = Conv(x, w, b) z = Relu(a)", "padding"),
        (f"a = Conv<{SAME}>(x, w, b) z = Sigmoid(a)", "no Relu, follows"),
        (f"a = Conv<{SAME}>(x, w, b) r = Relu(a) c = Conv<{SAME}>(r, v) z = Add(r, c)", "Add node 'z'"),
        (f"a = Conv<{SAME}>(x, w, b) r = Relu(a) z = Sigmoid(r)", "Sigmoid node 'z' follows"),
        (f"a = Conv<{SAME}>(x, w, b) r = Relu(a) s = Relu(r) z = Add(r, s)", "follows"),
        (f"k = Abs(w) a = Conv<{SAME}>(x, k, b) z = Relu(a)", "computed"),
        ("a = Conv<pads=[2,2,2,2]>(x, u) z = Relu(a)", "not 3x3"),
    ],
)
def test_what_is_no_vgg(body: str, reason: str) -> None:
    found = read_vgg(Model.open(model(body, constants={**C1, "u": rand(4, 3, 5, 5)})))
    assert isinstance(found, NoVgg)
    assert reason in found.reason


def test_a_first_layer_that_reads_no_image() -> None:
    found = read_vgg(Model.open(model("a = Conv<pads=[1,1,1,1]>(x, v) z = Relu(a)", {"x": (1, 4, 8, 8)}, C1)))
    assert isinstance(found, NoVgg)
    assert "does not read an image" in found.reason


def batch_norm(proto: onnx.ModelProto) -> None:
    """Put a BatchNormalization behind the first convolution."""
    for name in ("s", "o", "m"):
        proto.graph.initializer.append(numpy_helper.from_array(np.ones(4, np.float32), name))
    proto.graph.node.insert(1, helper.make_node("BatchNormalization", ["n0_out", "s", "o", "m", "s"], ["bn"], "bn"))
    proto.graph.node[2].input[0] = "bn"


def shared_bias(proto: onnx.ModelProto) -> None:
    """Hand a bias over by Identity, as exporters do with equal constants."""
    proto.graph.node.insert(0, helper.make_node("Identity", ["b0"], ["b1_shared"]))
    proto.graph.node[3].input[2] = "b1_shared"


def dropout(proto: onnx.ModelProto) -> None:
    proto.graph.node.insert(2, helper.make_node("Dropout", ["r0_out"], ["dropped"]))
    proto.graph.node[3].input[0] = "dropped"


def more_readers(proto: onnx.ModelProto) -> None:
    """Read an activation elsewhere too, as a loss does."""
    proto.graph.node.append(helper.make_node("GlobalAveragePool", ["r3_out"], ["style"]))
    proto.graph.node.append(helper.make_node("Shape", ["p4_out"], ["sizes"]))


@pytest.mark.parametrize("change", [batch_norm, shared_bias, dropout, more_readers])
def test_what_does_not_matter(change: Callable[[onnx.ModelProto], None]) -> None:
    proto = vgg()
    plain = read(proto)
    change(proto)
    found = read(proto)
    assert found.values == plain.values
    assert found.layers[0].normalized is (change is batch_norm)
    if change is shared_bias:
        assert found.layers[1].bias is not None
        assert found.layers[1].bias.name == "b0"
