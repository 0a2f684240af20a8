"""Constants come out of every file as they are in the model, and files that cannot hold them are refused."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import load_file

import onnxnorm
from onnxnorm.errors import ModelError
from tests.helpers.commands import DEMO, run, succeeded
from tests.helpers.graphs import Array, model, rand
from tests.helpers.model_files import external

Loaded = Mapping[str, Any]


def load_npz(path: Path) -> Loaded:
    with np.load(path, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def load_h5(path: Path) -> Loaded:
    h5py = pytest.importorskip("h5py", reason="needs h5py, of the extra h5")
    with h5py.File(path, "r") as file:
        found: dict[str, Any] = {}
        file.visititems(lambda name, item: found.update({name: item[()]}) if hasattr(item, "shape") else None)
        return found


def load_pth(path: Path) -> Loaded:
    torch = pytest.importorskip("torch", reason="needs PyTorch, of the extra torch")
    return {name: tensor.numpy() for name, tensor in torch.load(path, weights_only=True).items()}


READERS: dict[str, Callable[[Path], Loaded]] = {
    ".safetensors": load_file,
    ".npz": load_npz,
    ".h5": load_h5,
    ".pth": load_pth,
}
PACKAGES = {".h5": "h5py", ".pth": "torch"}


@pytest.fixture(params=READERS)
def ending(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    if found in PACKAGES:
        pytest.importorskip(PACKAGES[found], reason=f"needs the extra for {found}")
    return found


def odd_constants() -> dict[str, Array]:
    """Constants of several types and shapes, some of them bulky, some with slashes, one scalar, one empty."""
    return {
        "w": rand(40, 3, 8, 8),
        "half": rand(3, 5).astype(np.float16),
        "double": rand(2, 2).astype(np.float64),
        "a/b/c:0": rand(7),
        "file": np.arange(6).reshape(2, 3),
        "yes": np.array(True),
        "scalar": np.array(2.5, np.float32),
        "none": np.zeros((0, 3), np.float32),
        "网络": rand(2),
    }


def odd_model() -> onnx.ModelProto:
    proto = model("z = Conv(x, w)", constants=odd_constants())
    value = numpy_helper.from_array(rand(3, seed=4))
    proto.graph.node.insert(0, helper.make_node("Constant", [], ["from_node"], value=value))
    return proto


def test_every_constant_under_its_own_name(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"c{ending}"
    done = onnxnorm.export(odd_model(), path)
    found = READERS[ending](path)
    expected = {**odd_constants(), "from_node": rand(3, seed=4)}
    assert set(found) == set(expected) == set(done.arrays)
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values)
        assert found[name].dtype == values.dtype
        assert found[name].shape == values.shape == done.arrays[name]
    assert done.left_out == ()
    assert [item.name for item in tmp_path.iterdir()] == [path.name]


def test_external_data(tmp_path: Path) -> None:
    path = external(tmp_path / "m", {"w1": "w.bin", "b1": "w.bin"})
    onnxnorm.export(path, tmp_path / "c.safetensors")
    found = load_file(tmp_path / "c.safetensors")
    for tensor in onnx.load(path).graph.initializer:
        np.testing.assert_array_equal(found[tensor.name], numpy_helper.to_array(tensor))


def test_bfloat16(tmp_path: Path) -> None:
    proto = model("z = Relu(x)", constants={"v": rand(4)})
    tensor = helper.make_tensor("w", TensorProto.BFLOAT16, [2, 2], [1.0, -2.5, 0.0, 3e38])
    proto.graph.initializer.append(tensor)
    onnxnorm.export(proto, tmp_path / "c.safetensors")
    found = load_file(tmp_path / "c.safetensors")["w"]
    assert found.dtype.name == "bfloat16"
    np.testing.assert_array_equal(found, numpy_helper.to_array(tensor))
    with pytest.raises(onnxnorm.OptionError, match=r"\.npz files hold no bfloat16.*'w'.*write \.safetensors, \.pth"):
        onnxnorm.export(proto, tmp_path / "c.npz")


def test_bfloat16_in_pytorch(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="needs PyTorch, of the extra torch")
    proto = model("z = Relu(x)")
    proto.graph.initializer.append(helper.make_tensor("w", TensorProto.BFLOAT16, [3], [1.0, -2.5, 3e38]))
    onnxnorm.export(proto, tmp_path / "c.pth")
    found = torch.load(tmp_path / "c.pth", weights_only=True)["w"]
    assert found.dtype == torch.bfloat16
    assert found.float().tolist()[:2] == [1.0, -2.5]


def test_the_same_bytes_every_time(tmp_path: Path, ending: str) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        onnxnorm.export(odd_model(), tmp_path / name / f"c{ending}")
    assert (tmp_path / "a" / f"c{ending}").read_bytes() == (tmp_path / "b" / f"c{ending}").read_bytes()


@pytest.mark.parametrize(
    ("name", "message"),
    [("c.json", "the ending .json says no format; use one of .safetensors, .npz, .h5, .pth"), ("c", "of the name")],
)
def test_an_unknown_ending(tmp_path: Path, name: str, message: str) -> None:
    assert message in run("export", DEMO, "-o", tmp_path / name).error


@pytest.mark.parametrize("ending", PACKAGES)
def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str) -> None:
    monkeypatch.setitem(__import__("sys").modules, PACKAGES[ending], None)
    told = run("export", DEMO, "-o", tmp_path / f"c{ending}").error
    assert f"pip install 'onnxnorm[{ {'.h5': 'h5', '.pth': 'torch'}[ending] }]'" in told
    assert list(tmp_path.iterdir()) == []


def test_names_that_exclude_each_other_in_h5(tmp_path: Path) -> None:
    pytest.importorskip("h5py", reason="needs h5py, of the extra h5")
    proto = model("z = Relu(x)", constants={"a": rand(2), "a/b": rand(2)})
    with pytest.raises(onnxnorm.OptionError, match=r"no place for 'a/b'.*write \.safetensors"):
        onnxnorm.export(proto, tmp_path / "c.h5")
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_the_format_uses_itself(tmp_path: Path) -> None:
    proto = model("z = Relu(x)", constants={"__metadata__": rand(2)})
    with pytest.raises(onnxnorm.OptionError, match="has no place in a file"):
        onnxnorm.export(proto, tmp_path / "c.safetensors")


def test_a_model_without_constants(tmp_path: Path) -> None:
    with pytest.raises(onnxnorm.ModelError, match="nothing to export"):
        onnxnorm.export(model("z = Relu(x)"), tmp_path / "c.npz")


def test_an_old_file_stays_if_writing_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "c.npz"
    path.write_bytes(b"old")
    path.chmod(0o640)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np.lib.format, "write_array", full)
    assert "No space left on device" in run("export", DEMO, "-o", path).error
    assert path.read_bytes() == b"old"
    monkeypatch.undo()
    succeeded("export", DEMO, "-o", path)
    assert path.stat().st_mode & 0o777 == 0o640
    assert os.listdir(tmp_path) == ["c.npz"]


def test_the_command(tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    ran = succeeded("export", DEMO, "--layout", "caffe", "-o", path)
    assert "16 arrays, 62,304 numbers, layout caffe" in ran.out
    assert "left out, since the layout has no place for them: fc1.weight, fc1.bias, fc2.weight, fc2.bias" in ran.out
    assert f"written to {path}" in ran.out
    found = json.loads(succeeded("export", DEMO, "--layout", "caffe", "-o", path, "--json").out)
    assert found["arrays"]["conv1_1.weight"] == [16, 3, 3, 3]
    assert found["constants"]["conv1_1.weight"] == "conv1_1.weight"
    assert found["left_out"] == ["fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias"]
    assert found["notes"] == []
    assert run("export", DEMO, "--layout", "darknet", "-o", path).code != 0


def normalized(data: Any, **words: Any) -> onnx.ModelProto:
    return onnxnorm.normalize(DEMO, data, provider="cpu", verify=False, **words).model


def test_it_says_what_images_the_filters_have_their_targets_for(tmp_path: Path) -> None:
    images = [np.random.default_rng(number).integers(0, 256, (64, 64, 3), np.uint8) for number in range(2)]
    proto = normalized(images, preset="unit", channels="bgr")
    (note,) = onnxnorm.export(proto, tmp_path / "c.npz").notes
    assert "for images as at the calibration, unit: BGR/255, " in note
    assert onnxnorm.export(onnxnorm.restore(proto).model.to_proto(), tmp_path / "c.npz").notes == ()
    assert onnxnorm.export(normalized(rand(2, 3, 64, 64)), tmp_path / "c.npz").notes == ()


@pytest.mark.parametrize("text", ["{", "[]", "7", "{}", '{"preset": 1}', "[" * 100_000])
def test_a_damaged_entry_about_images_is_refused(text: str, tmp_path: Path) -> None:
    proto = onnx.load(DEMO)
    proto.metadata_props.add(key="onnxnorm.preprocessing", value=text)
    with pytest.raises(ModelError, match=r"'onnxnorm\.preprocessing' of the model is damaged"):
        onnxnorm.export(proto, tmp_path / "c.npz")
    assert os.listdir(tmp_path) == []
