"""A file in each layout, loaded into a network of that framework, gives the activations of the model.

The networks are written down here as the frameworks define them, at the widths of `tests.helpers.vggs`. Those of
torchvision and Keras themselves are used too where they are installed.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import helper
from safetensors.numpy import load_file

import onnxnorm
from tests.helpers.graphs import model, rand
from tests.helpers.vggs import VGG16, VGG19, WIDTHS, photo, run, vgg, with_outputs

DENSE = (9, 8, 7)
TORCH = "needs PyTorch, of the extra torch"
Floats = NDArray[Any]


def relus(blocks: Sequence[int]) -> list[str]:
    return [f"r{number}_out" for number in range(sum(blocks))]


def activations(proto: onnx.ModelProto, values: Sequence[str], images: Floats) -> list[Floats]:
    found = run(with_outputs(proto, values), images)
    return [found[value] for value in values]


def assert_close(found: Sequence[Floats], expected: Sequence[Floats]) -> None:
    assert len(found) == len(expected)
    for mine, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=2e-5 * np.abs(theirs).max())


def plan(blocks: Sequence[int]) -> list[int | str]:
    """Widths of the convolutions, and "M" for pools, as torchvision writes them."""
    found: list[int | str] = []
    for block, count in enumerate(blocks):
        found += [*[WIDTHS[block]] * count, "M"]
    return found


# --- PyTorch ---------------------------------------------------------------------------------------------------------


def torchvision_features(blocks: Sequence[int]) -> Any:
    """`features` of torchvision's VGG: convolution and ReLU for every number, a pool for every "M"."""
    torch = pytest.importorskip("torch", reason=TORCH)
    layers: list[Any] = []
    channels = 3
    for item in plan(blocks):
        if item == "M":
            layers.append(torch.nn.MaxPool2d(kernel_size=2, stride=2))
        else:
            layers += [torch.nn.Conv2d(channels, item, kernel_size=3, padding=1), torch.nn.ReLU(inplace=False)]
            channels = int(item)
    return torch.nn.Sequential(*layers)


def behind(module: Any, kind: str, images: Floats) -> list[Floats]:
    """The outputs of all layers of a kind in a Sequential."""
    import torch

    found, value = [], torch.from_numpy(images)
    with torch.no_grad():
        for layer in module:
            value = layer(value)
            found += [value.numpy()] if type(layer).__name__ == kind else []
    return found


@pytest.mark.parametrize("blocks", [VGG16, VGG19])
@pytest.mark.parametrize("channels_last", [False, True])
def test_torchvision(tmp_path: Path, blocks: tuple[int, ...], channels_last: bool) -> None:
    torch = pytest.importorskip("torch", reason=TORCH)
    whole = vgg(blocks, DENSE, size=64, channels_last=channels_last)
    onnxnorm.export(whole, tmp_path / "v.pth", layout="torchvision")
    nn = torch.nn
    classifier = nn.Sequential(
        nn.Linear(4 * WIDTHS[-1], 9), nn.ReLU(), nn.Dropout(), nn.Linear(9, 8), nn.ReLU(), nn.Dropout(), nn.Linear(8, 7)
    )
    network = nn.ModuleDict({"features": torchvision_features(blocks), "classifier": classifier}).eval()
    network.load_state_dict(torch.load(tmp_path / "v.pth", weights_only=True))
    images = photo(64)
    handed = np.ascontiguousarray(images.transpose(0, 2, 3, 1)) if channels_last else images
    assert_close(behind(network["features"], "ReLU", images), activations(whole, relus(blocks), handed))
    with torch.no_grad():
        logits = network["classifier"](network["features"](torch.from_numpy(images)).flatten(1)).numpy()
    assert_close([logits], activations(whole, ["d2_out"], handed))


@pytest.mark.parametrize("blocks", [VGG16, VGG19])
def test_torchvision_itself(tmp_path: Path, blocks: tuple[int, ...]) -> None:
    torch = pytest.importorskip("torch", reason=TORCH)
    models = pytest.importorskip("torchvision", reason="needs torchvision").models.vgg
    whole = vgg(blocks, DENSE)
    done = onnxnorm.export(whole, tmp_path / "v.pth", layout="torchvision")
    with torch.device("meta"):
        full = models.vgg16() if blocks == VGG16 else models.vgg19()
    assert list(full.state_dict()) == list(done.arrays)
    features = models.make_layers(plan(blocks))
    state = torch.load(tmp_path / "v.pth", weights_only=True)
    features.load_state_dict({k.removeprefix("features."): v for k, v in state.items() if k.startswith("features")})
    copied = [value.copy() for value in behind(features, "MaxPool2d", photo())]
    assert_close(copied, activations(whole, [f"p{block}_out" for block in range(5)], photo()))


def test_caffe(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason=TORCH)

    class Style(torch.nn.Module):  # type: ignore[misc, name-defined]
        """A network as those for style transfer are: one attribute for each convolution."""

        def __init__(self) -> None:
            super().__init__()
            channels = 3
            for block, count in enumerate(VGG16, 1):
                for index in range(1, count + 1):
                    setattr(self, f"conv{block}_{index}", torch.nn.Conv2d(channels, WIDTHS[block - 1], 3, padding=1))
                    channels = WIDTHS[block - 1]

        def forward(self, value: Any) -> list[Any]:
            found = []
            for block, count in enumerate(VGG16, 1):
                for index in range(1, count + 1):
                    value = torch.relu(getattr(self, f"conv{block}_{index}")(value))
                    found.append(value)
                value = torch.nn.functional.max_pool2d(value, 2, 2)
            return found

    onnxnorm.export(vgg(), tmp_path / "v.pth", layout="caffe")
    network = Style()
    network.load_state_dict(torch.load(tmp_path / "v.pth", weights_only=True))
    with torch.no_grad():
        found = [value.numpy() for value in network(torch.from_numpy(photo()))]
    assert_close(found, activations(vgg(), relus(VGG16), photo()))


def adain_network(blocks: Sequence[int]) -> Any:
    """The encoder of AdaIN: a 1x1 convolution, then a ReflectionPad2d before every convolution."""
    nn = pytest.importorskip("torch", reason=TORCH).nn
    layers: list[Any] = [nn.Conv2d(3, 3, (1, 1))]
    channels = 3
    for item in plan(blocks):
        if item == "M":
            layers.append(nn.MaxPool2d((2, 2), (2, 2), (0, 0), ceil_mode=True))
        else:
            layers += [nn.ReflectionPad2d((1, 1, 1, 1)), nn.Conv2d(channels, item, (3, 3)), nn.ReLU()]
            channels = int(item)
    return nn.Sequential(*layers[:-1])  # there is no pool behind the last block


@pytest.mark.parametrize("blocks", [VGG16, VGG19])
@pytest.mark.parametrize("preset", ["caffe", None])
def test_adain(tmp_path: Path, blocks: tuple[int, ...], preset: str | None) -> None:
    torch = pytest.importorskip("torch", reason=TORCH)
    last = f"relu5_{blocks[-1]}"
    changed = onnxnorm.features(vgg(blocks), last, padding="reflect", fold_preprocessing=preset).model
    done = onnxnorm.export(changed, tmp_path / "vgg_normalised.pth", layout="adain")
    network = adain_network(blocks)
    network.load_state_dict(torch.load(tmp_path / "vgg_normalised.pth", weights_only=True))
    assert_close(behind(network, "ReLU", photo()), activations(changed, relus(blocks), photo()))
    assert (preset is None) == any("changes nothing" in note for note in done.notes)


def test_the_places_of_adain_are_the_published_ones(tmp_path: Path) -> None:
    """Its code cuts the encoder behind relu1_1, relu2_1, relu3_1 and relu4_1, at 4, 11, 18 and 31."""
    changed = onnxnorm.features(vgg(VGG19), "relu5_4", padding="reflect").model
    done = onnxnorm.export(changed, tmp_path / "v.safetensors", layout="adain")
    places = [name.partition(".")[0] for name in done.arrays if name.endswith("weight")]
    assert places == ["0", "2", "5", "9", "12", "16", "19", "22", "25", "29", "32", "35", "38", "42", "45", "48", "51"]
    constants = dict(zip(places[1:], [f"w{number}" for number in range(16)], strict=True))
    for relu, value in {4: "w0", 11: "w2", 18: "w4", 31: "w8"}.items():
        assert constants[str(relu - 2)] == value == done.sources[f"{relu - 2}.weight"]


# --- Keras -----------------------------------------------------------------------------------------------------------


def read_keras(path: Path) -> dict[str, list[Floats]]:
    """The arrays of each layer, in order, as Keras reads a weight file: by the attributes of its groups."""
    h5py = pytest.importorskip("h5py", reason="needs h5py, of the extra h5")
    with h5py.File(path, "r") as file:
        names = [name.decode() for name in file.attrs["layer_names"]]
        return {
            name: [file[name][weight.decode()][()] for weight in file[name].attrs["weight_names"]] for name in names
        }


def same_convolution(value: Floats, kernel: Floats, bias: Floats) -> Floats:
    """Conv2D(padding="same", activation="relu") on NHWC with an HWIO kernel."""
    padded = np.pad(value, ((0, 0), (1, 1), (1, 1), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (1, 2))
    found: Floats = np.maximum(np.einsum("nhwcij,ijco->nhwo", windows, kernel) + bias, 0)
    return found


@pytest.mark.parametrize("channels_last", [False, True])
def test_keras(tmp_path: Path, channels_last: bool) -> None:
    pytest.importorskip("h5py", reason="needs h5py, of the extra h5")
    whole = vgg(VGG16, DENSE, size=64, channels_last=channels_last)
    onnxnorm.export(whole, tmp_path / "v.h5", layout="keras")
    layers = read_keras(tmp_path / "v.h5")
    value, found = photo(64).transpose(0, 2, 3, 1), []
    for block, count in enumerate(VGG16, 1):
        for index in range(1, count + 1):
            value = same_convolution(value, *layers[f"block{block}_conv{index}"])
            found.append(value.transpose(0, 3, 1, 2))
        value = value.reshape(2, value.shape[1] // 2, 2, value.shape[2] // 2, 2, -1).max((2, 4))
    value = value.reshape(2, -1)
    for name in ("fc1", "fc2"):
        value = np.maximum(value @ layers[name][0] + layers[name][1], 0)
    value = value @ layers["predictions"][0] + layers["predictions"][1]
    images = photo(64).transpose(0, 2, 3, 1) if channels_last else photo(64)
    expected = activations(whole, [*relus(VGG16), "d2_out"], np.ascontiguousarray(images))
    assert_close([*found, value], expected)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # in Keras, over PyTorch
@pytest.mark.parametrize("by_name", [False, True])
def test_keras_itself(tmp_path: Path, by_name: bool) -> None:
    keras = pytest.importorskip("keras", reason="needs Keras")
    pytest.importorskip("h5py", reason="needs h5py, of the extra h5")
    layers: list[Any] = [keras.layers.Input((64, 64, 3))]
    for block, count in enumerate(VGG16, 1):
        for index in range(1, count + 1):
            words = {"activation": "relu", "padding": "same", "name": f"block{block}_conv{index}"}
            layers.append(keras.layers.Conv2D(WIDTHS[block - 1], 3, **words))
        layers.append(keras.layers.MaxPooling2D(name=f"block{block}_pool"))
    layers.append(keras.layers.Flatten(name="flatten"))
    for name, size, activation in zip(("fc1", "fc2", "predictions"), DENSE, ("relu", "relu", None), strict=True):
        layers.append(keras.layers.Dense(size, activation=activation, name=name))
    network = keras.Sequential(layers)
    whole = vgg(VGG16, DENSE, size=64)
    onnxnorm.export(whole, tmp_path / "v.h5", layout="keras")
    network.load_weights(tmp_path / "v.h5", **({"by_name": True} if by_name else {}))
    found = np.asarray(keras.ops.convert_to_numpy(network(photo(64).transpose(0, 2, 3, 1))))
    assert_close([found], activations(whole, ["d2_out"], photo(64)))


def test_keras_names_in_a_flat_file(tmp_path: Path) -> None:
    onnxnorm.export(vgg(), tmp_path / "v.safetensors", layout="keras")
    found = load_file(tmp_path / "v.safetensors")
    assert found["block1_conv1/kernel"].shape == (3, 3, 3, 4)
    assert found["block5_conv3/bias"].shape == (8,)


# --- what does not fit -----------------------------------------------------------------------------------------------


def refused(proto: onnx.ModelProto, layout: Any, path: Path) -> str:
    with pytest.raises(onnxnorm.OnnxnormError) as caught:
        onnxnorm.export(proto, path / "v.safetensors", layout=layout)
    assert list(path.iterdir()) == []
    return str(caught.value)


@pytest.mark.parametrize("layout", ["torchvision", "caffe", "keras", "adain"])
def test_layouts_are_for_vggs(tmp_path: Path, layout: str) -> None:
    proto = model("a = Conv(x, w) z = Relu(a)", constants={"w": rand(4, 3, 1, 1)})
    assert "is for VGGs, and this model is none: convolution 'a' is not 3x3; use --layout names" in refused(
        proto, layout, tmp_path
    )


def test_adain_reflects(tmp_path: Path) -> None:
    assert "run onnxnorm features MODEL --padding reflect" in refused(vgg(), "adain", tmp_path)


@pytest.mark.parametrize("layout", ["torchvision", "caffe", "keras"])
def test_a_preprocessing_in_front_has_no_place(tmp_path: Path, layout: str) -> None:
    folded = onnxnorm.features(vgg(), "relu5_1", fold_preprocessing="caffe").model
    assert "no place for the 1x1 convolution in front" in refused(folded, layout, tmp_path)


def test_batch_normalization_has_no_place(tmp_path: Path) -> None:
    proto = vgg()
    proto.graph.node.insert(1, helper.make_node("BatchNormalization", ["n0_out", *["b0"] * 4], ["bn"], "bn"))
    proto.graph.node[2].input[0] = "bn"
    assert "no place for BatchNormalization" in refused(proto, "torchvision", tmp_path)


def test_pixels_that_are_no_square(tmp_path: Path) -> None:
    proto = model(
        "a = Conv<pads=[1,1,1,1]>(x, w) r = Relu(a) f = Flatten(r) d = Gemm(f, u) e = Gemm(d, v) z = Gemm(e, v)",
        {"x": (1, 3, 2, 4)},
        {"w": rand(4, 3, 3, 3), "u": rand(32, 5), "v": rand(5, 5)},
    )
    assert "no square of pixels with 4 channels" in refused(proto, "keras", tmp_path)
    onnxnorm.export(proto, tmp_path / "v.safetensors", layout="caffe")
    np.testing.assert_array_equal(load_file(tmp_path / "v.safetensors")["fc6.weight"], rand(32, 5).T)


def test_what_the_network_must_do_is_said(tmp_path: Path) -> None:
    changed = onnxnorm.features(vgg(), "relu5_1", pool="average", padding="reflect").model
    for layout in ("torchvision", "caffe", "keras", "adain"):
        notes = onnxnorm.export(changed, tmp_path / "v.npz", layout=layout).notes
        assert any("average pooling" in note for note in notes)
        assert any("pads its borders by reflect" in note for note in notes) == (layout != "adain")


def notes(proto: onnx.ModelProto, layout: Any, path: Path) -> str:
    return "\n".join(onnxnorm.export(proto, path / "v.npz", layout=layout).notes)


@pytest.mark.parametrize("change", [{"ceil_mode": 1}, {"auto_pad": "SAME_UPPER"}])
def test_how_pools_round_is_said(tmp_path: Path, change: dict[str, Any]) -> None:
    down = onnxnorm.features(vgg(), "pool2", padding="reflect").model
    up = onnx.ModelProto()
    up.CopyFrom(down)
    for node in up.graph.node:
        if node.op_type == "MaxPool":
            node.attribute.extend(helper.make_attribute(name, value) for name, value in change.items())
    assert "pools round odd sizes up (ceil_mode): the network that loads" in notes(up, "torchvision", tmp_path)
    assert "odd sizes" not in notes(down, "torchvision", tmp_path)
    assert "feed images whose sides are multiples of 4" in notes(down, "adain", tmp_path)
    assert "odd sizes" not in notes(up, "adain", tmp_path)


def test_what_stands_in_front_is_said(tmp_path: Path) -> None:
    body = "s = Sub(x, m) a = Conv<pads=[1,1,1,1]>(s, w) z = Relu(a)"
    proto = model(body, {"x": (1, 3, 8, 8)}, {"w": rand(4, 3, 3, 3), "m": rand(3, 1, 1)})
    for layout in ("torchvision", "caffe", "keras"):
        assert "Sub node 's' in front of the first convolution is not in the file" in notes(proto, layout, tmp_path)


@pytest.mark.parametrize("dynamo", [False, True])
def test_the_network_of_adain_and_back(tmp_path: Path, dynamo: bool) -> None:
    """Exported by PyTorch, of which the older way computes how much is reflected by nodes."""
    torch = pytest.importorskip("torch", reason=TORCH)
    if dynamo:
        pytest.importorskip("onnxscript", reason="needs onnxscript, of the extra torch")
    network = adain_network((2, 1)).eval()
    names: dict[str, Any] = {} if dynamo else {"dynamic_axes": {"x": {2: "h", 3: "w"}}, "input_names": ["x"]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(network, (torch.rand(1, 3, 32, 32),), tmp_path / "a.onnx", dynamo=dynamo, **names)
    assert onnxnorm.features(tmp_path / "a.onnx", "relu1_2,relu2_1").layers.keys() == {"relu1_2", "relu2_1"}
    done = onnxnorm.export(tmp_path / "a.onnx", tmp_path / "v.pth", layout="adain")
    assert not done.notes
    state = torch.load(tmp_path / "v.pth", weights_only=True)
    assert list(state) == list(network.state_dict())
    assert all(torch.equal(state[name], value) for name, value in network.state_dict().items())


def test_a_missing_bias_is_zeros(tmp_path: Path) -> None:
    proto = model("a = Conv<pads=[1,1,1,1]>(x, w) z = Relu(a)", constants={"w": rand(4, 3, 3, 3)})
    done = onnxnorm.export(proto, tmp_path / "v.safetensors", layout="torchvision")
    np.testing.assert_array_equal(load_file(tmp_path / "v.safetensors")["features.0.bias"], np.zeros(4))
    assert done.sources == {"features.0.weight": "w"}
