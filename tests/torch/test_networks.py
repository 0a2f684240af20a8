"""Networks that tools/networks exports: with any batch size, with the samples beside them, all channels alive."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

import onnxnorm

torch = pytest.importorskip("torch", reason="PyTorch is not installed (extra torch)")

from tools.networks.catalogue import CATALOGUE  # noqa: E402
from tools.networks.export import main  # noqa: E402
from tools.networks.shared import images, prepare  # noqa: E402


@pytest.mark.slow
@pytest.mark.parametrize("exporter", ["torchscript", "dynamo"])
@pytest.mark.parametrize("name", ["nafnet", "text_detector"])
def test_a_network_is_exported_with_its_samples(name: str, exporter: str, tmp_path: Path) -> None:
    assert main([name, "--into", str(tmp_path), "--exporter", exporter]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{name}.npz", f"{name}.onnx"]
    onnx.checker.check_model(tmp_path / f"{name}.onnx", full_check=True)
    samples = dict(np.load(tmp_path / f"{name}.npz"))
    assert all(len(array) == 4 for array in samples.values())
    for limit in (1, 3):
        statistics = onnxnorm.calibrate(tmp_path / f"{name}.onnx", tmp_path / f"{name}.npz", limit=limit)
        assert statistics.images == limit


def test_an_unknown_network_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["resnet51"])
    assert caught.value.code == 2
    assert "there is no network resnet51" in capsys.readouterr().err


def test_preparing_spreads_what_libraries_start_at_one_number() -> None:
    network = CATALOGUE["text_detector"]()
    prepare(network)
    norms = [module for module in network.module.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    assert norms
    for norm in norms:
        assert not norm.training
        assert norm.momentum == 0.1
        assert norm.num_batches_tracked == 4
        assert all(len(tensor.unique()) > 1 for tensor in (norm.weight, norm.bias, norm.running_mean, norm.running_var))


def test_images_are_centred_and_smooth() -> None:
    drawn = images(64)(3, torch.Generator().manual_seed(0))["input"]
    assert drawn.shape == (3, 3, 64, 64)
    torch.testing.assert_close(drawn.mean((1, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
    assert (drawn[..., 1:] - drawn[..., :-1]).std() < 0.5 * drawn.std()
