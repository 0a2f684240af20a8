"""`onnxnorm check` reads a VGG from every layout, and tells a normalized one from another."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from safetensors.numpy import save_file

import onnxnorm
from onnxnorm.exporting import read_arrays, recognize, vgg_model
from tests.helpers.commands import SOME, run, succeeded
from tests.helpers.vggs import VGG16, VGG19, vgg

PHOTOS = [str(path) for path in SOME]
FILES = [
    ("caffe", ".safetensors"),
    ("caffe", ".npz"),
    ("caffe", ".pth"),
    ("torchvision", ".safetensors"),
    ("torchvision", ".pth"),
    ("keras", ".h5"),
    ("keras", ".npz"),
    ("adain", ".pth"),
    ("adain", ".npz"),
]
NEEDED = {".pth": "torch", ".h5": "h5py"}


@pytest.fixture(scope="module", params=[VGG16, VGG19], ids=["VGG-16", "VGG-19"])
def blocks(request: pytest.FixtureRequest) -> tuple[int, ...]:
    return tuple(request.param)


def exported(folder: Path, model: onnx.ModelProto, layout: str, ending: str) -> Path:
    if ending in NEEDED:
        pytest.importorskip(NEEDED[ending])
    path = folder / f"weights{ending}"
    onnxnorm.export(model, path, layout=layout)
    return path


def means(model: onnx.ModelProto, preset: str) -> list[NDArray[np.float64]]:
    statistics = onnxnorm.calibrate(model, PHOTOS, preset=preset, size="32x32")
    return [moments.mean for moments in statistics.values.values()]


def assert_same_network(path: Path, model: onnx.ModelProto, blocks: tuple[int, ...], preset: str) -> None:
    """The activations are measured again, in the network that is put together from the file."""
    found = recognize(read_arrays(path))
    assert Counter(layer.block for layer in found.layers) == dict(enumerate(blocks, 1))
    assert found.preset == preset
    for before, after in zip(means(model, preset), means(vgg_model(found), preset), strict=True):
        np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("layout", "ending"), FILES)
def test_every_layout_is_read_as_the_network_that_it_is(
    layout: str, ending: str, blocks: tuple[int, ...], tmp_path: Path
) -> None:
    model = vgg(blocks, dense=(9, 7))
    if layout == "adain":
        last = f"relu5_{blocks[-1]}"
        model = onnxnorm.features(model, last, padding="reflect", fold_preprocessing="caffe").model
    preset = {"torchvision": "imagenet", "adain": "unit"}.get(layout, "caffe")
    assert_same_network(exported(tmp_path, model, layout, ending), model, blocks, preset)


@pytest.mark.parametrize(
    ("root", "named"),
    [
        ("layers", True),
        ("layers", False),
        ("_layer_checkpoint_dependencies", False),
        ("layers/functional/layers", True),
    ],
)
def test_weights_of_keras_3(root: str, named: bool, blocks: tuple[int, ...], tmp_path: Path) -> None:
    """As Keras writes .weights.h5: layers numbered by class, their names in an attribute since 3.7, pools without
    variables; `_layer_checkpoint_dependencies` is what TensorFlow 2.12 called `layers`."""
    h5py = pytest.importorskip("h5py")
    model = vgg(blocks, dense=(9, 7))
    exported(tmp_path, model, "keras", ".npz")
    layers: dict[str, dict[str, Any]] = {}
    for name, values in np.load(tmp_path / "weights.npz").items():
        layers.setdefault(name.partition("/")[0], {})[name.partition("/")[2]] = values
    path = tmp_path / "vgg.weights.h5"
    counts: Counter[str] = Counter()
    with h5py.File(path, "w") as file:
        for name, arrays in layers.items():
            kind = "conv2d" if "conv" in name else "dense"
            group = file.create_group(f"{root}/{kind}_{counts[kind]}/vars".replace("_0/", "/"))
            counts[kind] += 1
            group["0"], group["1"] = arrays["kernel"], arrays["bias"]
            if named:
                group.attrs["name"] = name
        file.create_group(f"{root}/max_pooling2d/vars").attrs["name"] = "block1_pool"
        file["optimizer/vars/0"] = np.zeros((3, 3, 3, 4), np.float32)
        file.create_group("vars")
    assert_same_network(path, model, blocks, "caffe")


def test_a_whole_model_of_old_keras(tmp_path: Path) -> None:
    """`model.save("vgg.h5")`: weights below model_weights, and those of the optimizer, which have the same names."""
    h5py = pytest.importorskip("h5py")
    source = exported(tmp_path, vgg(), "keras", ".h5")
    path = tmp_path / "whole.h5"
    with h5py.File(source) as weights, h5py.File(path, "w") as file:
        weights.copy("/", file, "model_weights")
        file["optimizer_weights/Adam/block1_conv1/kernel/m:0"] = np.zeros((3, 3, 3, 4), np.float32)
    assert_same_network(path, vgg(), VGG16, "caffe")


def test_a_normalized_network_is_told_from_another(tmp_path: Path) -> None:
    onnx.save(vgg(), tmp_path / "vgg.onnx")
    onnxnorm.normalize(tmp_path / "vgg.onnx", PHOTOS, tmp_path / "done.onnx", preset="caffe", outputs="scale")
    for name in ("vgg", "done"):
        onnxnorm.export(tmp_path / f"{name}.onnx", tmp_path / f"{name}.npz", layout="caffe")
    before = run("check", tmp_path / "vgg.npz", *PHOTOS)
    assert before.code == 3
    assert before.out.endswith(": NOT normalized, if it reads images as caffe, which is a guess\n")
    after = succeeded("check", tmp_path / "done.npz", *PHOTOS)
    assert "images as caffe: BGR" in after.out
    assert "100.0% of the filters that are not dead have a mean between 0.5 and 2: normalized\n" in after.out
    assert "the preset caffe is a guess from the names in" in after.err
    found = succeeded("check", tmp_path / "done.npz", *PHOTOS, "--preset", "caffe", "--json").json
    assert (found["normalized"], found["share"], found["images"], found["preset_guessed"]) == (True, 1, 6, None)
    assert [layer["name"] for layer in found["layers"]][:3] == ["conv1_1", "conv1_2", "conv2_1"]
    for layer in found["layers"]:
        assert layer["min"] == pytest.approx(1, rel=1e-3)
        assert layer["max"] == pytest.approx(1, rel=1e-3)


def test_a_network_that_was_changed_is_checked_as_it_is(tmp_path: Path) -> None:
    """Weights do not tell how their network pools and pads."""
    changes: dict[str, Any] = {"pool": "average", "padding": "reflect"}
    changed = onnxnorm.features(vgg(), "relu5_3", **changes).model
    onnx.save(changed, tmp_path / "changed.onnx")
    onnxnorm.normalize(tmp_path / "changed.onnx", PHOTOS, tmp_path / "done.onnx", preset="caffe", outputs="scale")
    onnxnorm.export(tmp_path / "done.onnx", tmp_path / "done.npz", layout="caffe")
    right = onnxnorm.check(tmp_path / "done.npz", PHOTOS, preset="caffe", **changes)
    for layer in right.layers:
        np.testing.assert_allclose(layer.live, 1, rtol=1e-3)
    others: list[dict[str, Any]] = [{}, {"pool": "average"}, {"padding": "reflect"}]
    for wrong in others:
        found = onnxnorm.check(tmp_path / "done.npz", PHOTOS, preset="caffe", **wrong)
        assert np.abs(found.layers[-1].live - 1).max() > 0.01
    ran = run("check", tmp_path / "done.npz", *PHOTOS, "--preset", "caffe", "--pool", "average", "--padding", "reflect")
    assert (ran.code, "100.0% of the filters" in ran.out) == (0, True)
    assert "'median' is not one of 'average'" in run("check", tmp_path / "done.npz", *PHOTOS, "--pool", "median").error


def test_from_python_with_arrays_and_dead_filters(tmp_path: Path) -> None:
    model = vgg()
    for tensor in model.graph.initializer:
        if tensor.name in {"w12", "b12"}:
            tensor.CopyFrom(onnx.numpy_helper.from_array(-abs(onnx.numpy_helper.to_array(tensor)), tensor.name))
    onnxnorm.export(model, tmp_path / "vgg.npz", layout="caffe")
    images = np.random.default_rng(0).uniform(0, 255, (3, 3, 32, 32)).astype(np.float32)
    found = onnxnorm.check(tmp_path / "vgg.npz", images, limit=2)
    assert found.statistics.images == 2
    assert found.guessed == "caffe"
    assert not len(found.layers[-1].live)
    onnxnorm_means = onnxnorm.calibrate(model, images, limit=2).values.values()
    for layer, moments in zip(found.layers, onnxnorm_means, strict=True):
        np.testing.assert_allclose(layer.means, moments.mean, rtol=1e-5)


WEIGHT, BIAS = np.ones((4, 3, 3, 3)), np.ones(4)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"scale": np.ones(3)}, "no convolutions were found"),
        ({"features.0.weight": WEIGHT, "features.1.running_mean": BIAS}, "BatchNormalization"),
        ({"conv1_1.weight": np.ones((4, 5, 3, 3)), "conv1_1.bias": BIAS}, "convolution 1 has weights of shape"),
        ({"a/conv1_1.weight": WEIGHT, "b/conv1_1.weight": WEIGHT}, "are all for one convolution"),
        ({"conv1_1.weight": WEIGHT * np.nan}, "'conv1_1.weight' has numbers that are not finite"),
    ],
)
def test_other_files_are_refused(arrays: dict[str, Any], message: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **arrays)
    refused = run("check", tmp_path / "a.npz", *PHOTOS)
    assert refused.code == 1
    assert message in refused.error
    assert "a.npz" in refused.error


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "folder.npz").mkdir()
    assert "does not exist" in run("check", tmp_path / "none.npz", *PHOTOS).error
    assert "is not a regular file" in run("check", tmp_path / "folder.npz", *PHOTOS).error
    assert "the ending should be one of .pth" in run("check", tmp_path / "weights.t7", *PHOTOS).error
    assert "is measured by onnxnorm calibrate" in run("check", tmp_path / "model.onnx", *PHOTOS).error
    assert run("check", tmp_path / "none.npz").code == 2


@pytest.mark.parametrize("ending", [".safetensors", ".npz", ".h5", ".pth"])
def test_what_is_not_what_its_ending_says(ending: str, tmp_path: Path) -> None:
    if ending in NEEDED:
        pytest.importorskip(NEEDED[ending])
    path = tmp_path / f"weights{ending}"
    path.write_bytes(b"nothing of the kind")
    ran = run("check", path, *PHOTOS)
    assert ran.code == 1
    assert f"cannot be read as {ending}" in ran.error


@pytest.mark.parametrize(("ending", "extra"), [(".pth", "torch"), (".pt", "torch"), (".h5", "h5")])
def test_a_missing_package_is_named(ending: str, extra: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / f"a{ending}"
    path.write_bytes(b"")
    monkeypatch.setitem(sys.modules, "torch" if extra == "torch" else "h5py", None)
    told = run("check", path, *PHOTOS).error
    assert f"pip install 'onnxnorm[{extra}]', or save the weights as .safetensors" in told


def test_a_pth_file_runs_no_code(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    torch.save(torch.nn.Conv2d(3, 4, 3), tmp_path / "module.pth")  # would be unpickled
    assert "cannot be read as .pth" in run("check", tmp_path / "module.pth", *PHOTOS).error
    torch.save([1, 2], tmp_path / "list.pth")
    assert "it holds a list, not a state_dict" in run("check", tmp_path / "list.pth", *PHOTOS).error


def test_values_in_other_files_are_not_read(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    (tmp_path / "secret").write_bytes(bytes(16))
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("conv1_1/bias", (4,), "f4", external=[(str(tmp_path / "secret"), 0, 16)])
    assert "the values of 'conv1_1/bias' lie in another file" in run("check", tmp_path / "a.h5", *PHOTOS).error
    with h5py.File(tmp_path / "b.h5", "w") as file:  # some kilobytes that claim to be terabytes
        file.create_dataset("conv1_1/kernel", (1 << 20, 1 << 20, 3, 3), "f4", chunks=(64, 64, 3, 3))
    assert "too many for a VGG" in run("check", tmp_path / "b.h5", *PHOTOS).error


def test_half_precision_is_read(tmp_path: Path) -> None:
    onnxnorm.export(vgg(), tmp_path / "v.npz", layout="caffe")
    save_file({k: v.astype(np.float16) for k, v in np.load(tmp_path / "v.npz").items()}, tmp_path / "v.safetensors")
    whole, half = (onnxnorm.check(tmp_path / f"v{end}", PHOTOS, size=32) for end in (".npz", ".safetensors"))
    for before, after in zip(whole.layers, half.layers, strict=True):
        np.testing.assert_allclose(after.means, before.means, rtol=0.05, atol=1e-2)
