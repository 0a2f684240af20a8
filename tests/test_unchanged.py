"""Statistics files and rewritten models, byte for byte as they were before the rooms were redrawn.

The digests are those of one machine: sums in ONNX Runtime depend on the processor. They are for the time of the move.
"""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import pytest

from tests.helpers.commands import DEMO, IMAGES, ROOT, succeeded

VGG = ROOT / "build" / "models" / "vgg16_features.onnx"
DEMO_DIGESTS = ("ff00e7c03b802d16", "976f00176b0e2b6e")
VGG_DIGESTS = ("09cdc9ee184b3d37", "97fec5f526ea62fe")


def digest(path: Path) -> str:
    return sha256(path.read_bytes()).hexdigest()[:16]


def test_the_demo(tmp_path: Path) -> None:
    stats, out = tmp_path / "a.safetensors", tmp_path / "a.onnx"
    succeeded("calibrate", DEMO, IMAGES, "--preset", "unit", "--measure", "rms", "--measure", "p99.9", "-o", stats)
    succeeded("rewrite", DEMO, "--stats", stats, "-o", out)
    assert (digest(stats), digest(out)) == DEMO_DIGESTS


@pytest.mark.skipif(not VGG.exists(), reason="VGG-16 is not in build/models: python -m tools.models.fetch")
def test_vgg16(tmp_path: Path) -> None:
    stats, out = tmp_path / "v.safetensors", tmp_path / "v.onnx"
    succeeded("calibrate", VGG, IMAGES, "--preset", "caffe", "--limit", "8", "-o", stats)
    succeeded("rewrite", VGG, "--stats", stats, "--outputs", "scale", "-o", out)
    assert (digest(stats), digest(out)) == VGG_DIGESTS
