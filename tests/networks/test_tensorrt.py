"""NVIDIA's parser and builder take a rewritten model, and make the same network of it. No GPU is needed."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import onnxnorm
from onnxnorm.model.files import Model
from onnxnorm.model.graph import input_specs
from onnxnorm.model.shapes import sample_shapes
from tests.helpers.graphs import between, model, rand
from tools.checks import tensorrt as check

ROOT = Path(__file__).resolve().parents[2]
ZOO = sorted((ROOT.parent / "shared" / "zoo" / "models").glob("*.onnx"))
VGG16 = ROOT / "build" / "models" / "vgg16_features.onnx"


installed = pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx") is None, reason="NVIDIA's parser is not installed: tensorrt-rtx-cu13"
)


def rewritten(path: Path, folder: Path, size: tuple[int, int] = (64, 64), **words: Any) -> Path:
    """The model scaled on a few random inputs: scales as wild as they come."""
    specs = input_specs(Model.open(path))
    (shape,) = sample_shapes(specs, size).values()
    data = np.abs(rand(2, *shape[1:]))
    out = folder / "rewritten.onnx"
    onnxnorm.rewrite(path, onnxnorm.calibrate(path, data, provider="cpu"), out, verify=False, **words)
    return out


def saved(proto: onnx.ModelProto, path: Path) -> Path:
    onnx.save(proto, path)
    return path


def pair(original: Path, other: Path, size: str = "64x64") -> tuple[Any, Any]:
    return check.read_network(original, size), check.read_network(other, size)


@installed
@pytest.mark.parametrize("words", [{}, {"power_of_two": True}, {"outputs": "scale"}], ids=str)
def test_the_demo_network_stays_the_same_network(tmp_path: Path, words: dict[str, Any]) -> None:
    demo = ROOT / "models" / "demo_vgg.onnx"
    one, two = pair(demo, rewritten(demo, tmp_path, **words))
    assert list(one.differences(two)) == []
    assert list(one.beyond_refit(two)) == []
    assert one.refittable == set(check.weight_names(demo))


@installed
@pytest.mark.parametrize("path", ZOO or [pytest.param(None, marks=pytest.mark.skip(reason="shared/zoo is not here"))],
                         ids=lambda path: path.stem if path else "zoo")  # fmt: skip
def test_real_networks_stay_the_same_networks(path: Path, tmp_path: Path) -> None:
    one, two = pair(path, rewritten(path, tmp_path))
    assert list(one.differences(two)) == []
    assert len(one.layers) > 10
    baked = [text for text in one.beyond_refit(two) if ": beta is " not in text]  # bounds of ReLU6
    assert baked == []


@installed
@pytest.mark.skipif(not VGG16.exists(), reason="build/models/vgg16_features.onnx is not fetched")
def test_the_feature_stack_of_vgg16_stays_the_same_network(tmp_path: Path) -> None:
    one, two = pair(VGG16, rewritten(VGG16, tmp_path))
    assert list(one.differences(two)) == []
    assert list(one.beyond_refit(two)) == []
    assert len(one.refittable) == 26


@installed
def test_a_scaled_bound_is_the_same_network_but_no_matter_of_weights(tmp_path: Path) -> None:
    bounds = {"low": np.float32(0), "high": np.float32(6)}
    path = saved(between("b = Clip(a, low, high)", (1, 4, 6, 6), bounds), tmp_path / "clip.onnx")
    one, two = pair(path, rewritten(path, tmp_path, target=0.01))
    assert list(one.differences(two)) == []
    assert any("beta is 6.0 and " in text for text in one.beyond_refit(two))


@installed
def test_a_clone_is_named(tmp_path: Path) -> None:
    body = (
        "a = Conv(x, w, b) \n r = Relu(a) \n c = Conv(x, w2, b) \n q = Sigmoid(c) \n d = Conv(r, w3) \n z = Add(d, q)"
    )
    constants = {"w": rand(4, 3, 1, 1), "b": rand(4), "w2": rand(4, 3, 1, 1, seed=1), "w3": rand(4, 4, 1, 1, seed=2)}
    path = saved(model(body, {"x": (1, 3, 6, 6)}, constants), tmp_path / "shared.onnx")
    one, two = pair(path, rewritten(path, tmp_path))
    assert any("in one of them only" in text for text in one.beyond_refit(two))


@installed
def test_another_network_is_told(tmp_path: Path) -> None:
    one = saved(between("b = Relu(a)", (1, 4, 6, 6)), tmp_path / "one.onnx")
    slope = saved(between("b = LeakyRelu<alpha=0.1>(a)", (1, 4, 6, 6)), tmp_path / "two.onnx")
    more = saved(between("c = Relu(a) \n b = Sigmoid(c)", (1, 4, 6, 6)), tmp_path / "three.onnx")
    found, other, longer = (check.read_network(path) for path in (one, slope, more))
    assert any("LEAKY_RELU" in text for text in found.differences(other))
    assert any("3 and 4 layers" in text for text in found.differences(longer))
    assert list(found.differences(found)) == []


@installed
def test_other_integers_are_another_network(tmp_path: Path) -> None:
    paths = [
        saved(between("b = Gather<axis=1>(a, k)", (1, 4, 6, 6), {"k": np.asarray(k)}), tmp_path / f"{k[0]}.onnx")
        for k in ([0, 1], [1, 0])
    ]
    one, two = (check.read_network(path) for path in paths)
    assert list(one.differences(two)) != []


@installed
def test_what_the_parser_rejects_is_said_in_its_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(between("b = ours.Twist(a)", (1, 4, 6, 6), domains=["ours"], tail="none"), tmp_path / "odd.onnx")
    with pytest.raises(check.RejectedError, match="is not parsed"):
        check.read_network(path)
    monkeypatch.setattr(sys, "argv", ["check_tensorrt", str(path), str(path)])
    assert check.main() == 1


@installed
def test_the_tool_says_whether_a_refit_will_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    demo = ROOT / "models" / "demo_vgg.onnx"
    monkeypatch.setattr(sys, "argv", ["check_tensorrt", str(demo), str(rewritten(demo, tmp_path))])
    assert check.main() == 0
    said = capsys.readouterr().out
    assert "20 of 20 weights refittable" in said
    assert "refit by name: yes" in said


def test_without_the_package_the_tool_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    demo = shutil.copy(ROOT / "models" / "demo_vgg.onnx", tmp_path)
    monkeypatch.setattr(sys, "argv", ["check_tensorrt", str(demo), str(demo)])
    assert check.main() == 1
    assert "pip install tensorrt-rtx-cu13" in capsys.readouterr().err


def test_weight_names_are_those_of_floating_point(tmp_path: Path) -> None:
    proto = between("b = Gather<axis=1>(a, k)", (1, 4, 6, 6), {"k": np.asarray([0, 1])})
    proto.graph.initializer.append(numpy_helper.from_array(np.zeros(1, np.float16), "half"))
    assert sorted(check.weight_names(saved(proto, tmp_path / "m.onnx"))) == ["b_a", "b_z", "half", "w_a", "w_z"]


SILU = "s = Sigmoid(a) \n b = Mul(a, s)"
RESIDUAL = "r = Relu(a) \n c = Conv(r, k) \n d = Add(c, r) \n b = Relu(d)"
NORM = "b = InstanceNormalization<epsilon=0.01>(a, g, s)"
RELU6 = "b = Clip(a, low, high)"
OPENED: dict[str, tuple[str, dict[str, Any]]] = {
    "SiLU": (SILU, {}),
    "residual": (RESIDUAL, {"k": rand(4, 4, 1, 1, seed=7)}),
    "norm": (NORM, {"g": rand(4, seed=1), "s": rand(4, seed=2)}),
    "ReLU6": (RELU6, {"low": np.float32(0), "high": np.float32(6)}),
}


@installed
@pytest.mark.parametrize("name", OPENED)
def test_added_nodes_are_parsed_and_built(name: str, tmp_path: Path) -> None:
    """Each is an element-wise layer and its constant; beside these the network has the layers that it had."""
    body, constants = OPENED[name]
    path = saved(between(body, (1, 4, 6, 6), constants, tail="none"), tmp_path / "one.onnx")
    one, two = pair(path, rewritten(path, tmp_path, allow="nodes"))
    added = [node for node in onnx.load(tmp_path / "rewritten.onnx").graph.node if node.name.startswith("onnxnorm_")]
    assert added
    kinds = [Counter(layer["layer"] for layer in network.layers) for network in (one, two)]
    more = kinds[1] - kinds[0]
    assert more["ELEMENTWISE"] == len(added)
    assert not kinds[0] - kinds[1]
    assert set(more) <= {"ELEMENTWISE", "CONSTANT"}
    assert (one.inputs, one.outputs) == (two.inputs, two.outputs)


@installed
def test_attributes_are_no_matter_of_weights(tmp_path: Path) -> None:
    """The same network, whose engine has to be built again."""
    constants = {"g": rand(4, seed=1), "s": rand(4, seed=2)}
    path = saved(between(NORM, (1, 4, 6, 6), constants), tmp_path / "one.onnx")
    one, two = pair(path, rewritten(path, tmp_path, allow="attributes"))
    assert list(one.differences(two)) == []
    assert any("epsilon is 0.00999" in text for text in one.beyond_refit(two))


@installed
@pytest.mark.parametrize("level", ["attributes", "nodes"])
@pytest.mark.parametrize("path", ZOO or [pytest.param(None, marks=pytest.mark.skip(reason="shared/zoo is not here"))],
                         ids=lambda path: path.stem if path else "zoo")  # fmt: skip
def test_real_networks_are_parsed_and_built_at_every_level(path: Path, level: str, tmp_path: Path) -> None:
    one, two = pair(path, rewritten(path, tmp_path, allow=level))
    assert (one.inputs, one.outputs) == (two.inputs, two.outputs)
    assert len(two.layers) >= len(one.layers)
