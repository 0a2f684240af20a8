"""VGG-16, its 13 convolutions and the whole of it: power-of-two scales keep every bit, exact ones the function.

`python -m tools.models.fetch` fetches the network; without it these tests are skipped.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import onnxnorm
from onnxnorm.model.files import Model
from onnxnorm.runtime import Runtime

ROOT = Path(__file__).resolve().parents[2]
MODELS = ROOT / "build" / "models"
IMAGES = ROOT / "models" / "images"

pytestmark = pytest.mark.skipif(
    not (MODELS / "vgg16_full.onnx").exists() or not (MODELS / "vgg16_features.onnx").exists(),
    reason="VGG-16 is not in build/models: python -m tools.models.fetch",
)


@pytest.fixture(scope="module", params=["vgg16_features", "vgg16_full"])
def network(request: pytest.FixtureRequest) -> tuple[Path, dict[str, Any], onnxnorm.Statistics]:
    path = MODELS / f"{request.param}.onnx"
    features = {"preset": "caffe", "size": "96x96"}
    words: dict[str, Any] = features if request.param == "vgg16_features" else {"preset": "unit"}
    return path, words, onnxnorm.calibrate(path, IMAGES, limit=6, provider="cpu", **words)


def test_powers_of_two_keep_every_bit(network: tuple[Path, dict[str, Any], onnxnorm.Statistics]) -> None:
    path, words, statistics = network
    done = onnxnorm.rewrite(path, statistics, power_of_two=True, verify=False)
    scales = np.concatenate([layer.scale for layer in done.rewriting.scales.layers])
    assert scales.size == 4224
    assert (np.frexp(scales)[0] == 0.5).all()
    assert (scales != 1).mean() > 0.5
    assert onnxnorm.verify(path, done.model, IMAGES, limit=2, **words).bit_identical
    assert bits(Model.open(path), 1) == bits(Model.open(done.model), 1)


def test_exact_scales_keep_the_function(network: tuple[Path, dict[str, Any], onnxnorm.Statistics]) -> None:
    path, words, statistics = network
    done = onnxnorm.rewrite(path, statistics, verify=False)
    verdict = onnxnorm.verify(path, done.model, IMAGES, limit=2, **words)
    assert verdict.same
    assert not verdict.bit_identical


def bits(model: Model, seed: int) -> list[bytes]:
    """All outputs for random inputs, without the runtime's graph optimizations."""
    session = Runtime("cpu").session(model, optimize=False)
    (given,) = session.ort.get_inputs()
    shape = [side if isinstance(side, int) else side_of(index) for index, side in enumerate(given.shape)]
    sample = np.random.default_rng(seed).random(shape, np.float32)
    return [array.tobytes() for array in session.run({given.name: sample}).values()]


def side_of(axis: int) -> int:
    """What to feed where the model leaves an axis open."""
    return 1 if axis == 0 else 64
