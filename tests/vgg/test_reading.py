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
FIRST = f"a = Conv<{SAME}>(x, w, b) r = Relu(a)"
HALF = "kernel_shape=[2,2], strides=[2,2]"
PADS = {
    "one": np.array([0, 0, 1, 1, 0, 0, 1, 1]),
    "two": np.array([0, 0, 2, 2, 0, 0, 2, 2]),
    "uneven": np.array([1, 1, 0, 0]),
    "axes": np.array([2, 3]),
    "seven": np.array(7, np.float32),
}


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
        (f"p = Pad(x, one) a = Conv<{SAME}>(p, w, b) z = Relu(a)", "'a' has a stride, dilation, group or padding"),
        ("p = Pad(x, one, seven) a = Conv(p, w, b) z = Relu(a)", "'a' has a stride, dilation, group or padding"),
        ("p = Pad(x, two) a = Conv(p, w, b) z = Relu(a)", "'a' has a stride, dilation, group or padding"),
        ("p = Pad(x, uneven, , axes) a = Conv(p, w, b) z = Relu(a)", "'a' has a stride, dilation, group or padding"),
        (f"{FIRST} p = Pad(r, two) q = Pad(p, one) c = Conv(q, v) z = Relu(c)", "Pad node 'p' follows"),
        (f"{FIRST} p = Pad(r, one) z = MaxPool<{HALF}>(p)", "Pad node 'p' follows"),
        (f"{FIRST} z = MaxPool<{HALF}, pads=[1,1,1,1]>(r)", "MaxPool node 'z' follows"),
        (f'{FIRST} z = MaxPool<{HALF}, auto_pad="SAME_LOWER">(r)', "MaxPool node 'z' follows"),
        (f"{FIRST} z = MaxPool<{HALF}, dilations=[2,2]>(r)", "MaxPool node 'z' follows"),
        (
            f"{FIRST} p = AveragePool<{HALF}, pads=[1,1,1,1]>(r) c = Conv<{SAME}>(p, v) z = Relu(c)",
            "AveragePool node 'p' stands between its convolutions",
        ),
        (f"f = Conv<strides=[2,2]>(x, i) a = Conv<{SAME}>(f, w, b) z = Relu(a)", "convolution 'f' is not 3x3"),
        (f"f = Conv<{SAME}>(x, i) a = Conv<{SAME}>(f, w, b) z = Relu(a)", "convolution 'f' is not 3x3"),
    ],
)
def test_what_is_no_vgg(body: str, reason: str) -> None:
    found = read_vgg(Model.open(model(body, constants={**C1, **PADS, "u": rand(4, 3, 5, 5), "i": rand(3, 3, 1, 1)})))
    assert isinstance(found, NoVgg)
    assert reason in found.reason


def test_a_first_layer_that_reads_no_image() -> None:
    found = read_vgg(Model.open(model("a = Conv<pads=[1,1,1,1]>(x, v) z = Relu(a)", {"x": (1, 4, 8, 8)}, C1)))
    assert isinstance(found, NoVgg)
    assert "does not read an image" in found.reason


@pytest.mark.parametrize(
    ("body", "padding"),
    [
        ("p = Pad(x, one)", "zero"),
        ("p = Pad(x, one, nought)", "zero"),
        ('p = Pad<mode="reflect">(x, one)', "reflect"),
        ('p = Pad<mode="edge">(x, one)', "edge"),
        ("i = Identity(one) p = Pad(x, i)", "zero"),
        # PyTorch's older exporter has no number there, but nodes that compute it.
        (
            "o = ConstantOfShape<value = int64[1] {1}>(few) n = Mul(o, none) c = Concat<axis=0>(n, o, n, o) "
            'd = Cast<to=7>(c) p = Pad<mode="reflect">(x, d)',
            "reflect",
        ),
    ],
)
def test_borders(body: str, padding: str) -> None:
    more = {"nought": np.array(0, np.float32), "few": np.array([2]), "none": np.array([0])}
    found = read(model(f"{body} a = Conv(p, w, b) z = Relu(a)", constants={**C1, **PADS, **more}))
    assert [layer.padding for layer in found.layers] == [padding]
    assert found.before is None


def test_pads_that_the_image_decides_are_no_border() -> None:
    body = "s = Size(x) o = Mul(one, s) p = Pad(x, o) a = Conv(p, w, b) z = Relu(a)"
    found = read_vgg(Model.open(model(body, constants={**C1, **PADS})))
    assert isinstance(found, NoVgg)
    assert "padding" in found.reason


@pytest.mark.parametrize(
    ("body", "before"),
    [
        ("h = Sub(x, k)", "h"),
        ("g = Cast<to=1>(x) h = Identity(g)", None),
        ("h = Pad(x, two)", "h"),
    ],
)
def test_what_stands_in_front(body: str, before: str | None) -> None:
    proto = model(f"{body} a = Conv<{SAME}>(h, w, b) z = Relu(a)", constants={**C1, "k": rand(1), **PADS})
    if before == "h" and "Pad" in body:
        proto = model(f'{body} p = Pad<mode="reflect">(h, one) a = Conv(p, w, b) z = Relu(a)', constants={**C1, **PADS})
    found = read(proto)
    assert (found.before and found.before.label) == before


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
