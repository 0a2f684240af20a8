"""The same statistics and the same verdicts on a CUDA device; skipped where there is none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import onnxnorm
from onnxnorm.errors import OnnxnormError
from onnxnorm.model.files import Model
from onnxnorm.runtime import Runtime

MODELS = Path(__file__).resolve().parents[2] / "models"
DEMO = MODELS / "demo_vgg.onnx"


def cuda_problem() -> str | None:
    """Why CUDA cannot be had, or None."""
    try:
        Runtime("cuda").session(Model.open(DEMO))
    except OnnxnormError as error:
        return str(error)
    return None


PROBLEM = cuda_problem()
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(PROBLEM is not None, reason=f"no CUDA: {PROBLEM}")]


def test_moments_agree_with_the_cpu() -> None:
    on_cpu, on_gpu = (
        onnxnorm.calibrate(DEMO, MODELS / "images", preset="unit", provider=provider) for provider in ("cpu", "cuda")
    )
    for value, moments in on_cpu.values.items():
        other = on_gpu.values[value]
        size = moments.mean.max()
        # Both sum float32 products in other orders: some hundred units in the last place of the layer's largest mean.
        assert np.abs(other.mean - moments.mean).max() <= 500 * np.finfo(np.float32).eps * size, value
        assert other.images == moments.images


@pytest.mark.parametrize("size", [1, 3, 7])
def test_batch_size_does_not_matter(size: int) -> None:
    eight, other = (
        onnxnorm.calibrate(DEMO, MODELS / "images", preset="unit", provider="cuda", batch_size=batch)
        for batch in (8, size)
    )
    for value, moments in eight.values.items():
        error = np.abs(other.values[value].mean - moments.mean).max()
        assert error <= 500 * np.finfo(np.float32).eps * moments.mean.max(), value


def test_normalize_and_verify(tmp_path: Path) -> None:
    out = tmp_path / "out.onnx"
    done = onnxnorm.normalize(DEMO, MODELS / "images", out, preset="unit", provider="cuda")
    assert done.verification is not None
    assert done.verification.same
    assert onnxnorm.verify(DEMO, out, MODELS / "images", preset="unit", provider="cuda").same


def test_power_of_two_is_bit_identical(tmp_path: Path) -> None:
    done = onnxnorm.normalize(
        DEMO, MODELS / "images", tmp_path / "out.onnx", preset="unit", provider="cuda", power_of_two=True
    )
    assert done.verification is not None
    assert done.verification.bit_identical
