"""Real trained networks from end to end on photographs: the same function, mean one, the promised shares.

The networks and photographs are not part of the repository; without them these tests are skipped.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import onnxnorm
from tests.helpers.open_batches import check_open, fixed_at_one

ZOO = Path(__file__).resolve().parents[3] / "shared" / "zoo"

pytestmark = pytest.mark.skipif(
    not (ZOO / "models").is_dir(), reason="the zoo of networks is not beside the repository"
)


@dataclass(frozen=True)
class Case:
    """How a network is fed, and what share of its filters must be free, or tied, at least."""

    name: str
    share: float
    words: Mapping[str, Any] = field(default_factory=dict)


OPEN = {"size": "64x64"}
CASES = [
    Case("ccexam_mnist_tinyvgg", 1.0),
    Case("ccexam_usps_bn", 1.0),
    Case("ccexam_svhn_vggbn", 1.0),
    Case("digitrec_tinyvgg", 1.0),
    Case("efficientnet_lite0_imagenet", 1.0, {"preset": "raw", "mean": 127, "std": 128}),
    Case("nsfwjs_mobilenet_v2", 1.0),
    Case("mouse_pupil_unet", 0.997, OPEN),
    Case("waifu2x_vgg7_rgb", 0.993, OPEN),
    Case("waifu2x_upconv7_rgb", 0.996, OPEN),
    Case("waifu2x_resnet10_rgb", 0.996, OPEN),
    Case("realesr_animevideov3_srvgg_prelu", 0.957, OPEN),
]


def photographs(count: int) -> list[Path]:
    """Some of them, from all folders."""
    found = sorted(path for path in (ZOO / "images").rglob("*") if path.suffix.lower() in {".jpg", ".jpeg", ".png"})
    return found[:: len(found) // count][:count]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_real_network(case: Case, tmp_path: Path) -> None:
    model = ZOO / "models" / f"{case.name}.onnx"
    words: dict[str, Any] = {"preset": "unit", "provider": "cpu", **case.words}
    images = photographs(4)
    statistics = onnxnorm.calibrate(model, images, **words)
    assert statistics.images == 4

    done = onnxnorm.rewrite(model, statistics, tmp_path / "exact.onnx", verify=False)
    assert (done.plan.free + done.plan.tied) / done.plan.filters >= case.share
    verdict = onnxnorm.verify(model, tmp_path / "exact.onnx", images[:2], **words)
    assert verdict.same
    assert verdict.graph_identical or done.rewriting.clones
    assert verdict.max_relative_error <= 1e-5

    again = onnxnorm.calibrate(tmp_path / "exact.onnx", images, **words)
    exact = 0
    for layer in done.rewriting.scales.layers:
        (measured,) = (m for v, m in again.values.items() if v.name == layer.layer.site.value)
        live = ~layer.dead
        resolution = float(np.finfo(np.float32).eps * np.abs(layer.after).max())  # below it, filters count as dead
        np.testing.assert_allclose(measured.mean[live], layer.after[live], rtol=1e-3, atol=resolution)
        exact += int((np.abs(np.abs(measured.mean[live & ~layer.pinned]) - 1) < 1e-3).sum())
    assert exact >= done.plan.free - done.plan.dead

    powers = onnxnorm.rewrite(model, statistics, power_of_two=True, verify=False)
    assert onnxnorm.verify(model, powers.model, images[:1], **words).bit_identical


@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case.name))
def test_several_samples_give_what_each_gives(case: Case) -> None:
    """Each network with its batch fixed at 1, at a small size where it leaves that open."""
    assert check_open(fixed_at_one(onnx.load(ZOO / "models" / f"{case.name}.onnx"), side=32))


def test_every_network_of_the_zoo_has_a_case() -> None:
    assert {case.name for case in CASES} == {path.stem for path in (ZOO / "models").glob("*.onnx")}
