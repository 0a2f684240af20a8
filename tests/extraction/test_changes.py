"""The three changes compute what they say, and refuse where they would not."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper

import onnxnorm
from onnxnorm.data.images.presets import PRESETS
from onnxnorm.errors import OptionError
from tests.helpers.graphs import model, rand
from tests.helpers.vggs import VGG16, photo, run, vgg, with_outputs

LAYERS = "relu1_1,relu2_1,relu3_1"
VALUES = ["r0_out", "r2_out", "r4_out"]
PADS = {
    "one": np.array([0, 0, 1, 1, 0, 0, 1, 1]),
    "two": np.array([0, 0, 2, 2, 0, 0, 2, 2]),
    "nought": np.array(0, np.float32),
    "seven": np.array(7, np.float32),
}
FOLDED = [name for name in PRESETS if name != "unit"]


def checked(proto: onnx.ModelProto, layers: str, **options: Any) -> onnx.ModelProto:
    changed = onnxnorm.features(proto, layers, **options).model
    onnx.checker.check_model(changed, full_check=True)
    return changed


def message(proto: onnx.ModelProto, layers: str, **options: Any) -> str:
    with pytest.raises(onnxnorm.OptionError) as caught:
        onnxnorm.features(proto, layers, **options)
    return str(caught.value)


# --- average pooling -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("opset", [7, 11, 17, 22])
def test_average_pooling(opset: int) -> None:
    changed = checked(vgg(opset=opset), "p0,r1", pool="average")
    found = run(changed, photo())
    means = found["r1_out"].reshape(2, 4, 16, 2, 16, 2).mean((3, 5))
    np.testing.assert_allclose(found["p0_out"], means, rtol=1e-6)
    assert [node.name for node in changed.graph.node] == ["n0", "r0", "n1", "r1", "p0"]


def test_attributes_that_average_pooling_has_not_go() -> None:
    body = "a = Relu(x) z = MaxPool<kernel_shape=[2,2], strides=[2,2], dilations=[1,1], ceil_mode=1>(a)"
    pool = checked(model(body, {"x": (1, 3, 9, 9)}), "z", pool="average").graph.node[1]
    assert pool.op_type == "AveragePool"
    assert {attribute.name for attribute in pool.attribute} == {"kernel_shape", "strides", "ceil_mode"}


@pytest.mark.parametrize(
    ("body", "layer", "reason"),
    [
        ("z = Relu(x)", "z", "there is no MaxPool before the chosen layers"),
        ("a = Relu(x) z = MaxPool<kernel_shape=[2,2]>(a)", "a", "there is no MaxPool before the chosen layers"),
        ("y, i = MaxPool<kernel_shape=[2,2]>(x) z = Cast<to=1>(i)", "z", "returns indices"),
        ("z = MaxPool<kernel_shape=[2,2], dilations=[2,2]>(x)", "z", "is dilated"),
    ],
)
def test_pools_that_stay(body: str, layer: str, reason: str) -> None:
    assert reason in message(model(body), layer, pool="average")


# --- reflected borders -----------------------------------------------------------------------------------------------


def convolved(values: NDArray[Any], weight: NDArray[Any], bias: NDArray[Any], mode: Any) -> NDArray[Any]:
    padded = np.pad(values, ((0, 0), (0, 0), (1, 1), (1, 1)), mode=mode)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (2, 3))
    summed: NDArray[Any] = np.einsum("nchwij,ocij->nohw", windows, weight) + bias[:, None, None]
    return summed


@pytest.mark.parametrize("opset", [7, 10, 11, 17, 22])
def test_reflected_borders(opset: int) -> None:
    whole = vgg(opset=opset)
    changed = checked(whole, "r0,n1", padding="reflect")
    found = run(changed, photo())
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in whole.graph.initializer}
    first = np.maximum(convolved(photo(), constants["w0"], constants["b0"], "reflect"), 0)
    np.testing.assert_allclose(found["r0_out"], first, atol=1e-5)
    np.testing.assert_allclose(
        found["n1_out"], convolved(first, constants["w1"], constants["b1"], "reflect"), atol=1e-5
    )
    assert all(node.name.startswith("onnxnorm_") for node in changed.graph.node if node.op_type == "Pad")


def test_the_inside_stays_the_same() -> None:
    """Far from the border there is no difference, and at the border there is one."""
    plain = run(with_outputs(vgg(), ["r1_out"]), photo())["r1_out"]
    found = run(checked(vgg(), "r1", padding="reflect"), photo())["r1_out"]
    np.testing.assert_allclose(found[..., 2:-2, 2:-2], plain[..., 2:-2, 2:-2], atol=1e-6)
    assert np.abs(found - plain).max() > 0.1


def test_same_padding_in_words_is_reflected_too() -> None:
    whole = vgg()
    for node in whole.graph.node:
        if node.op_type == "Conv":
            del node.attribute[:]
            node.attribute.append(helper.make_attribute("auto_pad", "SAME_UPPER"))
    found = run(checked(whole, LAYERS, padding="reflect"), photo())
    expected = run(checked(vgg(), LAYERS, padding="reflect"), photo())
    for name in VALUES:
        np.testing.assert_array_equal(found[name], expected[name])


def test_convolutions_that_read_one_value_share_a_border() -> None:
    body = "a = Conv<pads=[1,1,1,1]>(x, w) b = Conv<pads=[1,1,1,1]>(x, w) z = Add(a, b)"
    changed = checked(model(body, constants={"w": rand(4, 3, 3, 3)}), "z", padding="reflect")
    assert [node.op_type for node in changed.graph.node] == ["Pad", "Conv", "Conv", "Add"]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("z = Conv(x, w)", "no 3x3 convolution before the chosen layers pads with zeros"),
        ("z = Conv<pads=[2,2,2,2]>(x, u)", "'z' pads with zeros but is not 3x3"),
        ("p = Pad(x, two) z = Conv(p, u)", "'z' pads with zeros but is not 3x3"),
        ("p = Pad(x, one) z = Conv<pads=[1,1,1,1]>(p, w)", "'z' pads with zeros but is not 3x3"),
        ("p = Pad(x, one, seven) z = Conv(p, w)", "no 3x3 convolution before the chosen layers pads with zeros"),
        ("p = Pad(x, one) a = Conv(p, w) b = ReduceMean(p) z = Add(a, b)", "what Pad 'p' gives is read elsewhere"),
        ("z = Conv<pads=[1,1,0,0]>(x, w)", "'z' pads with zeros but is not 3x3 with one pixel on each side"),
        ('z = Conv<auto_pad="SAME_UPPER", strides=[2,2]>(x, w)', "has strides and no fixed padding"),
    ],
)
def test_borders_that_stay(body: str, reason: str) -> None:
    proto = model(body, constants={"w": rand(4, 3, 3, 3), "u": rand(4, 3, 5, 5), **PADS})
    assert reason in message(proto, "z", padding="reflect")


@pytest.mark.parametrize("zeros", ["p = Pad(x, one)", "p = Pad(x, one, nought)"])
def test_pads_of_zeros_are_reflected_too(zeros: str) -> None:
    """Some exporters write the border as a Pad of its own; the zeros that it read are gone."""
    constants = {"w": rand(4, 3, 3, 3), "v": rand(4, 4, 3, 3), **PADS}
    apart = model(f"{zeros} a = Conv(p, w) z = Conv<pads=[1,1,1,1]>(a, v)", constants=constants)
    plain = model("a = Conv<pads=[1,1,1,1]>(x, w) z = Conv<pads=[1,1,1,1]>(a, v)", constants=constants)
    changed = checked(apart, "z", padding="reflect")
    images = rand(2, 3, 8, 8)
    np.testing.assert_array_equal(run(changed, images)["z"], run(checked(plain, "z", padding="reflect"), images)["z"])
    assert [node.op_type for node in changed.graph.node] == ["Pad", "Conv", "Pad", "Conv"]
    assert {tensor.name for tensor in changed.graph.initializer} == {"w", "v", "one", "onnxnorm_pads"}


def test_a_pad_that_is_an_output_stays() -> None:
    proto = model("p = Pad(x, one) z = Conv(p, w)", constants={"w": rand(4, 3, 3, 3), **PADS})
    assert "what Pad 'p' gives is read elsewhere" in message(proto, "p,z", padding="reflect")


def test_one_pixel_cannot_be_reflected() -> None:
    proto = vgg(VGG16)
    for axis in (2, 3):
        proto.graph.input[0].type.tensor_type.shape.dim[axis].dim_value = 16
    assert "the input of convolution 'n10' is 1x1 pixels" in message(proto, "relu5_1", padding="reflect")
    checked(proto, "relu4_1", padding="reflect")


# --- preprocessing ---------------------------------------------------------------------------------------------------


def preprocessed(preset: str, images: NDArray[Any]) -> NDArray[Any]:
    """What the preset makes of RGB in [0, 1], in its own words."""
    found = PRESETS[preset]
    mean, std = (np.broadcast_to(numbers, 3).reshape(3, 1, 1) for numbers in (found.mean, found.std))
    values = (images * 255 / found.divisor - mean) / std
    ordered: NDArray[np.float32] = (values[:, ::-1] if found.channels == "bgr" else values).astype(np.float32)
    return ordered


@pytest.mark.parametrize("preset", FOLDED)
@pytest.mark.parametrize("channels_last", [False, True])
def test_the_preprocessing_in_front(preset: str, channels_last: bool) -> None:
    whole = vgg(channels_last=channels_last)
    done = onnxnorm.features(whole, LAYERS, fold_preprocessing=preset)
    assert done.preset == "unit"
    onnx.checker.check_model(done.model, full_check=True)

    def handed(images: NDArray[Any]) -> NDArray[Any]:
        return np.ascontiguousarray(images.transpose(0, 2, 3, 1)) if channels_last else np.ascontiguousarray(images)

    expected = run(with_outputs(whole, VALUES), handed(preprocessed(preset, photo())))
    found = run(done.model, handed(photo()))
    for name in VALUES:
        np.testing.assert_allclose(found[name], expected[name], atol=2e-6 * np.abs(expected[name]).max())


def test_it_is_what_the_images_of_the_preset_are() -> None:
    """The numbers above agree with the pipeline that feeds images."""
    from tests.helpers.commands import DEMO, SOME

    whole = onnxnorm.calibrate(DEMO, SOME, preset="caffe", provider="cpu")
    cut = onnxnorm.features(DEMO, "relu1_1,relu2_1", fold_preprocessing="caffe").model
    folded = onnxnorm.calibrate(cut, SOME, preset="unit", provider="cpu")
    for value, moments in folded.values.items():
        if value in whole.values:
            np.testing.assert_allclose(moments.mean, whole.values[value].mean, rtol=1e-4, atol=1e-4)
    assert len(folded.values.keys() & whole.values.keys()) == 3


def test_images_are_not_prepared_twice() -> None:
    """Such a network reads RGB in [0, 1]: that is the default, another preset is refused; a transform is one's own."""
    from tests.helpers.commands import DEMO, SOME

    cut = onnxnorm.features(DEMO, "relu1_1", fold_preprocessing="caffe").model
    given, default = (onnxnorm.calibrate(cut, SOME, preset=preset, provider="cpu") for preset in ("unit", None))
    assert default.inputs["preprocessing"] == given.inputs["preprocessing"]
    for value, moments in default.values.items():
        np.testing.assert_array_equal(moments.mean, given.values[value].mean)
    for verb in (onnxnorm.calibrate, onnxnorm.normalize):
        with pytest.raises(OptionError, match=r"--preset caffe: the network does its own .*leave --preset out"):
            verb(cut, SOME, preset="caffe", provider="cpu")
    with pytest.raises(OptionError, match="--preset tf: the network does its own"):
        onnxnorm.verify(cut, cut, SOME, preset="tf", provider="cpu")
    onnxnorm.calibrate(cut, SOME, transform=lambda _: np.zeros((3, 64, 64), np.float32), provider="cpu")
    assert onnxnorm.calibrate(DEMO, SOME, preset="caffe", provider="cpu").images == len(SOME)


def test_old_files_list_the_new_constants_as_inputs() -> None:
    proto = vgg((2,), opset=8, ir_version=3)
    changed = checked(proto, "r0", fold_preprocessing="raw", padding="reflect")
    names = {value.name for value in changed.graph.input}
    assert {tensor.name for tensor in changed.graph.initializer} <= names
    assert "w1" not in names


@pytest.mark.parametrize(
    ("inputs", "types", "body", "reason"),
    [
        ({"x": (1, 1, 8, 8)}, {}, "z = Relu(x)", "not known to be an image of three channels"),
        ({"x": (1, 8, 8, 3)}, {}, "z = Relu(x)", "not known to be an image of three channels"),
        ({"x": (1, 3)}, {}, "z = Relu(x)", "is not an image in floating point"),
        ({"x": (1, 3, 8, 8), "y": (1,)}, {}, "z = Add(x, y)", "need 2 inputs, not one image"),
        ({"x": (1, 3, 8, 8)}, {"x": TensorProto.UINT8}, "z = Cast<to=1>(x)", "is not an image in floating point"),
    ],
)
def test_preprocessing_that_does_not_fit(
    inputs: dict[str, tuple[int, ...]], types: dict[str, int], body: str, reason: str
) -> None:
    proto = model(body, dict(inputs), input_types=types)
    assert reason in message(proto, "z", fold_preprocessing="caffe")


def test_preprocessing_is_folded_once() -> None:
    folded = onnxnorm.features(vgg(), LAYERS, fold_preprocessing="caffe").model
    assert "begins with a 1x1 convolution already" in message(folded, LAYERS, fold_preprocessing="tf")


@pytest.mark.parametrize("body", ["a = Sub(x, mean)", "a = Mul(scale, x)"])
def test_preprocessing_that_is_there_as_arithmetic(body: str) -> None:
    constants = {"w": rand(4, 3, 3, 3), "mean": rand(3, 1, 1), "scale": rand(1)}
    proto = model(f"{body} z = Conv<pads=[1,1,1,1]>(a, w)", {"x": (1, 3, 8, 8)}, constants)
    assert "of a constant already ('a'), so a preprocessing seems to be in it" in message(
        proto, "z", fold_preprocessing="caffe"
    )


def test_unit_changes_nothing_and_is_no_choice() -> None:
    assert "choose one of imagenet, caffe, tf, raw" in message(vgg(), LAYERS, fold_preprocessing="unit")


def test_half_precision_stays_half() -> None:
    proto = model(
        "a = Conv<pads=[1,1,1,1]>(x, w) z = Relu(a)",
        {"x": (1, 3, 8, 8)},
        {"w": rand(4, 3, 3, 3, dtype=np.float16)},
        dtype=TensorProto.FLOAT16,
    )
    changed = checked(proto, "z", fold_preprocessing="caffe")
    assert {tensor.data_type for tensor in changed.graph.initializer} == {TensorProto.FLOAT16}
