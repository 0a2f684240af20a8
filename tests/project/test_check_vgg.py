"""tools/check_vgg.py reads a VGG from every layout, and tells a normalized one from another."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

import onnxnorm
from tests.helpers.commands import SOME
from tests.helpers.vggs import VGG16, VGG19, vgg
from tools import check_vgg

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


@pytest.mark.parametrize(("layout", "ending"), FILES)
def test_every_layout_is_read_as_the_network_that_it_is(
    layout: str, ending: str, blocks: tuple[int, ...], tmp_path: Path
) -> None:
    """The activations are measured again, in the network that was put together from the file."""
    model = vgg(blocks, dense=(9, 7))
    if layout == "adain":
        onnx.save(model, tmp_path / "vgg.onnx")
        last = f"relu5_{blocks[-1]}"
        onnxnorm.features(tmp_path / "vgg.onnx", [last], tmp_path / "cut.onnx", padding="reflect",
                          fold_preprocessing="caffe")  # fmt: skip
        model = onnx.load(tmp_path / "cut.onnx")
    found = check_vgg.check(check_vgg.weights(check_vgg.arrays(exported(tmp_path, model, layout, ending))))
    assert Counter(layer.block for layer in found.layers) == dict(enumerate(blocks, 1))
    assert found.preset == {"torchvision": "imagenet", "adain": "unit"}.get(layout, "caffe")
    measured = [means(given, found.preset) for given in (model, check_vgg.network(found))]
    for before, after in zip(measured[0], measured[1], strict=True):
        np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-6)


def test_a_normalized_network_is_told_from_another(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    onnx.save(vgg(), tmp_path / "vgg.onnx")
    onnxnorm.normalize(tmp_path / "vgg.onnx", PHOTOS, tmp_path / "done.onnx", preset="caffe", outputs="scale")
    codes = []
    for name in ("vgg", "done"):
        onnxnorm.export(tmp_path / f"{name}.onnx", tmp_path / f"{name}.npz", layout="caffe")
        codes.append(check_vgg.main([str(tmp_path / f"{name}.npz"), *PHOTOS]))
    assert codes == [check_vgg.NOT, check_vgg.NORMALIZED]
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "13 convolutions, photographs as caffe"
    assert lines[-1].startswith("100.0% of the filters")
    assert lines[-1].endswith(": normalized")


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"scale": np.ones(3)}, "no convolutions were found"),
        ({"features.0.weight": np.ones((4, 3, 3, 3)), "features.1.running_mean": np.ones(4)}, "BatchNormalization"),
        ({"conv1_1.weight": np.ones((4, 5, 3, 3)), "conv1_1.bias": np.ones(4)}, r"convolution 1 has weights of shape"),
    ],
)
def test_other_files_are_refused(
    arrays: dict[str, Any], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.savez(tmp_path / "a.npz", **arrays)
    assert check_vgg.main([str(tmp_path / "a.npz"), *PHOTOS]) == check_vgg.WRONG
    assert message in capsys.readouterr().err


def test_files_that_cannot_be_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check_vgg.main([str(tmp_path / "none.npz"), *PHOTOS]) == check_vgg.WRONG
    assert check_vgg.main([str(tmp_path / "weights.t7"), *PHOTOS]) == check_vgg.WRONG
    assert "the ending should be one of .pth" in capsys.readouterr().err
    (tmp_path / "weights.safetensors").write_bytes(b"nothing of the kind")
    assert check_vgg.main([str(tmp_path / "weights.safetensors"), *PHOTOS]) == check_vgg.WRONG
    assert "it cannot be read as .safetensors" in capsys.readouterr().err
