"""Statistics of different functions are never merged, and a run is never resumed with another one."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import onnxnorm
from onnxnorm.data.images.transform import transform_for
from onnxnorm.errors import DataError, StatisticsError
from onnxnorm.model.inputs import InputSpec
from tests.helpers.commands import DEMO, SOME

SPEC = InputSpec("x", (None, 3, None, None), np.dtype(np.float32))


def scaled(image: Image.Image, size: int = 64, by: float = 255.0) -> np.ndarray:
    return np.asarray(image.resize((size, size)), np.float32).transpose(2, 0, 1) / by


def bound(by: float) -> Callable[[Image.Image], Any]:
    return lambda image: scaled(image, by=by)


class Steps:
    """A pipeline as libraries have them: what it does is in its attributes, which its repr shows."""

    def __init__(self, *steps: object) -> None:
        self.steps = steps

    def __call__(self, image: Image.Image) -> np.ndarray:
        return scaled(image, *self.steps)  # type: ignore[arg-type]

    def __repr__(self) -> str:
        return f"Steps{self.steps}"


PAIRS: dict[str, tuple[Any, Any]] = {
    "closures": (bound(255.0), bound(1.0)),
    "lambdas": (lambda image: scaled(image, 16), lambda image: scaled(image, 32)),
    "partial": (partial(scaled, size=64), partial(scaled, size=32)),
    "objects": (Steps(64, 255.0), Steps(64, 1.0)),
    "names": (scaled, bound),
}


@pytest.mark.parametrize("name", PAIRS)
def test_what_differs_has_another_record(name: str) -> None:
    one, other = (transform_for(SPEC, function) for function in PAIRS[name])
    assert one.to_json() != other.to_json()
    assert one.to_json() == transform_for(SPEC, PAIRS[name][0]).to_json()


def test_the_same_made_again_has_the_same_record() -> None:
    assert transform_for(SPEC, bound(2.0)).to_json() == transform_for(SPEC, bound(2.0)).to_json()
    assert transform_for(SPEC, Steps(64)).to_json() == transform_for(SPEC, Steps(64)).to_json()


def test_they_are_not_merged() -> None:
    one, other = (
        onnxnorm.calibrate(DEMO, images, transform=bound(by), provider="cpu")
        for images, by in ((SOME[:3], 255.0), (SOME[3:], 1.0))
    )
    with pytest.raises(StatisticsError, match="differ in their preprocessing"):
        onnxnorm.merge([one, other])
    same = onnxnorm.calibrate(DEMO, SOME[3:], transform=bound(255.0), provider="cpu")
    assert onnxnorm.merge([one, same]).images == 6


def test_a_run_is_not_resumed_with_another_one(tmp_path: Path) -> None:
    def stop(progress: onnxnorm.Progress) -> None:
        raise KeyboardInterrupt

    settings: dict[str, Any] = {"provider": "cpu", "checkpoint": tmp_path / "s.partial", "batch_size": 1}
    with pytest.raises(onnxnorm.Interrupted):
        onnxnorm.calibrate(DEMO, SOME, transform=bound(255.0), progress=stop, **settings)
    with pytest.raises(StatisticsError, match="its preprocessing differs"):
        onnxnorm.calibrate(DEMO, SOME, transform=bound(1.0), resume=True, **settings)
    assert onnxnorm.calibrate(DEMO, SOME, transform=bound(255.0), resume=True, **settings).images == 6


def test_numbers_are_not_cut_off() -> None:
    """Fractions for an input of whole numbers would all become 0."""
    transform = transform_for(InputSpec("x", (None, 3, None, None), np.dtype(np.uint8)), scaled)
    with pytest.raises(DataError, match=r"returned float32, but input 'x' takes uint8; convert it in the function"):
        transform(Image.new("RGB", (8, 8), "white"))
