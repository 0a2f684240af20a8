"""Arrays that are one image, or one sample, in an iterable."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import onnxnorm
from onnxnorm.data.batches import Batch
from onnxnorm.data.images.options import ImageOptions
from onnxnorm.data.memory import length
from onnxnorm.data.opening import open_data
from onnxnorm.errors import DataError
from onnxnorm.model.inputs import InputSpec
from tests.helpers.calibrations import close, net

FLOAT = InputSpec("x", (None, 3, 8, 8), np.dtype(np.float32))
BYTES = InputSpec("x", (None, 8, 8, 3), np.dtype(np.uint8))
PIXELS = [np.random.default_rng(n).integers(0, 256, (8, 8, 3), np.uint8) for n in range(5)]


def samples(data: Any, spec: InputSpec = FLOAT) -> np.ndarray:
    dataset = open_data(data, [spec], ImageOptions(preset="raw"))
    batches: list[Batch] = list(dataset.batches(2))
    assert dataset.total in {None, sum(batch.count for batch in batches)}
    assert [index for batch in batches for index in batch.indices] == list(range(sum(b.count for b in batches)))
    return np.concatenate([batch.feeds["x"] for batch in batches])


@pytest.mark.parametrize(
    "data", [PIXELS, tuple(PIXELS), [(image, 7) for image in PIXELS], iter(PIXELS), (p for p in PIXELS)]
)
def test_images_as_arrays(data: Any) -> None:
    assert (samples(data) == np.stack(PIXELS).transpose(0, 3, 1, 2)).all()


def test_they_are_prepared_as_images_are() -> None:
    """Scaled to the model's size, without their alpha, gray as three channels."""
    assert samples([np.full((20, 30, 3), 9, np.uint8)]).shape == (1, 3, 8, 8)
    assert (samples([np.dstack([PIXELS[0], np.zeros((8, 8), np.uint8)])]) == samples([PIXELS[0]])).all()
    gray = PIXELS[0][:, :, 0]
    assert (samples([gray]) == gray).all()
    assert (samples([gray[:, :, None]]) == gray).all()
    assert (samples([PIXELS[0]], BYTES)[0] == PIXELS[0]).all()
    assert (samples(PIXELS[0]) == samples([PIXELS[0]])).all()


def test_single_samples() -> None:
    arrays = [np.full((3, 8, 8), n, np.float32) for n in range(4)]
    assert (samples(arrays) == np.stack(arrays)).all()
    assert (samples(iter(arrays)) == np.stack(arrays)).all()
    with pytest.raises(DataError, match=r"its shape is \(3, 8, 8\), but input 'x' takes \(N, 3, 8, 8\)"):
        samples(arrays[0])  # alone, it has to have an axis for samples
    assert samples([arrays[0], np.stack(arrays)]).shape == (5, 3, 8, 8)
    with pytest.raises(DataError, match=r"its shape is \(3, 9, 8\)"):
        samples([np.zeros((3, 9, 8), np.float32)])
    with pytest.raises(DataError, match="its dtype is float64"):
        samples([np.zeros((3, 8, 8))])
    with pytest.raises(DataError, match="give only images, or only arrays"):
        samples([PIXELS[0], arrays[0]])


def test_shards_and_lengths() -> None:
    proto = net()
    whole = onnxnorm.calibrate(proto, PIXELS, preset="unit", provider="cpu")
    halves = [onnxnorm.calibrate(proto, PIXELS, preset="unit", provider="cpu", shard=f"{n}/2") for n in (0, 1)]
    close(onnxnorm.merge(halves), whole)
    assert [length(PIXELS[0]), length((PIXELS[0], 1)), length(np.zeros((5, 8, 8, 3), np.uint8))] == [1, 1, 5]
    done = onnxnorm.normalize(proto, iter(PIXELS), preset="unit", provider="cpu")
    assert done.verification is not None
    assert done.verification.same
