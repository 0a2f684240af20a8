"""Data in memory as Python programs have it: images, lists of them, and what a DataLoader yields."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image

import onnxnorm
from onnxnorm.data.batches import Batch, Skipped
from onnxnorm.data.dataset import Dataset
from onnxnorm.data.images.options import ImageOptions
from onnxnorm.data.memory import length
from onnxnorm.data.opening import open_data
from onnxnorm.errors import DataError
from onnxnorm.model.inputs import InputSpec
from tests.helpers.calibrations import close, net
from tests.helpers.graphs import rand

SPEC = InputSpec("x", (None, 3, 8, 8), np.dtype(np.float32))
RAW = ImageOptions(preset="raw")
ARRAY = np.arange(10, dtype=np.float32).reshape(10, 1, 1, 1) * np.ones((1, 3, 8, 8), np.float32)


def picture(value: int, size: tuple[int, int] = (8, 8)) -> Image.Image:
    return Image.new("RGB", size, (value, value, value))


class Tensor:
    """As much of a tensor of PyTorch as is used: it must be detached, and copied from its device, to be an array."""

    def __init__(self, array: Any) -> None:
        self.array, self.shape, self.steps = array, array.shape, 0

    def detach(self) -> Tensor:
        self.steps += 1
        return self

    def cpu(self) -> Tensor:
        self.steps += 1
        return self

    def __len__(self) -> int:
        return len(self.array)

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        if self.steps < 2:
            raise TypeError("can't convert a tensor that requires grad or lies on a device")
        return self.array


class Loader:
    """Iterates over batches again and again, as a DataLoader does."""

    def __init__(self, *items: Any) -> None:
        self.items = items

    def __iter__(self) -> Iterator[Any]:
        return iter(self.items)


def flat(data: Any, **words: Any) -> list[int]:
    return values(open_data(data, [SPEC], RAW), **words)


def values(dataset: Dataset, **words: Any) -> list[int]:
    return [int(sample.ravel()[0]) for batch in dataset.batches(3, threads=1, **words) for sample in batch.feeds["x"]]


def index_of(block: Batch | Skipped) -> int:
    return block.index if isinstance(block, Skipped) else block.indices[0]


IMAGES = [picture(value) for value in range(10)]
LABELS = np.zeros(5)


@pytest.mark.parametrize(
    "data",
    [
        IMAGES,
        tuple(IMAGES),
        [IMAGES[:4], IMAGES[4:]],
        [(image, 3) for image in IMAGES],
        Loader([(image, 3) for image in IMAGES[:5]], [(image, 3) for image in IMAGES[5:]]),
        Loader((ARRAY[:5], LABELS), (ARRAY[5:], LABELS)),
        Loader([Tensor(ARRAY[:5]), Tensor(LABELS)], [Tensor(ARRAY[5:]), Tensor(LABELS)]),
        Loader({"x": Tensor(ARRAY[:5]), "label": Tensor(LABELS)}, {"x": Tensor(ARRAY[5:]), "label": 1}),
        [({"x": ARRAY}, LABELS)],
        Tensor(ARRAY),
        [Tensor(ARRAY)],
    ],
    ids=range(11),
)
def test_every_form_gives_the_same_samples(data: Any) -> None:
    assert flat(data) == flat(data) == list(range(10))
    assert flat(data, limit=4) == [0, 1, 2, 3]


def test_images_in_memory_are_prepared_as_files_are() -> None:
    dataset = open_data(
        iter([picture(1), Image.new("L", (9, 5), 2), Image.new("F", (9, 5)), picture(3, (30, 8))]), [SPEC]
    )
    assert dataset.preprocessing is not None
    assert dataset.describe() == "images in memory"
    (batch,) = dataset.batches(8)
    assert batch.count == 3
    assert [(item.name, item.index) for item in dataset.skipped] == [("image[2]", 2)]
    np.testing.assert_array_equal(batch.feeds["x"][0], dataset.preprocessing(picture(1)))
    assert open_data(picture(1), [SPEC]).total == 1
    assert open_data(IMAGES, [SPEC]).describe() == "images in memory with 10 sample(s)"


def test_images_in_memory_are_divided_like_arrays() -> None:
    dataset = open_data([IMAGES[:4], [Image.new("F", (9, 5))], IMAGES[4:]], [SPEC], RAW)
    assert dataset.total == 11
    ((_, reader),) = dataset.select(np.array([1, 3, 4, 9]))
    assert [index_of(block) for block in reader.blocks(1, 1)] == [1, 3, 4, 9]
    ((_, again),) = [(0, reader.select(np.array([4, 9])))]
    assert [index_of(block) for block in again.blocks(1, 1)] == [4, 9]
    assert again.total == 2


def test_a_whole_run(tmp_path: Any) -> None:
    pixels = [np.random.default_rng(n).integers(0, 256, (10, 12, 3), np.uint8) for n in range(20)]
    for number, array in enumerate(pixels):
        Image.fromarray(array).save(tmp_path / f"{number:02}.png")
    images = [Image.fromarray(array) for array in pixels]
    words: dict[str, Any] = {"preset": "unit", "size": "8", "provider": "cpu"}
    expected = onnxnorm.calibrate(net(), tmp_path, **words)
    # Files are known to come in one size, and small maps of theirs are summed in float32 without windows.
    in_memory = onnxnorm.calibrate(net(), images, **words)
    close(in_memory, expected, rtol=1e-6)
    close(onnxnorm.merge([onnxnorm.calibrate(net(), images, shard=f"{i}/2", **words) for i in (0, 1)]), in_memory)
    assert onnxnorm.calibrate(net(), images, **words).inputs["preprocessing"] == expected.inputs["preprocessing"]
    done = onnxnorm.normalize(net(), ((image, "label") for image in images), **words)
    assert done.verification is not None
    assert done.verification.samples == 16
    assert onnxnorm.verify(net(), done.model, Loader(*images), **words).samples == 20


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([picture(1), rand(1, 3, 8, 8)], "array, batch 1 follows images; give only images"),
        ([rand(1, 3, 8, 8), picture(1)], r"image\[1\] follows arrays"),
        ([picture(1), "a.png"], "batch 1 follows images"),
        ([(1, 2)], r"takes \(N, 3, 8, 8\)"),
        ([object()], "batch 0 is a object"),
    ],
)
def test_what_does_not_go_together_is_refused(data: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        list(open_data(data, [SPEC]).batches(4))
    with pytest.raises(DataError, match=message):
        list(open_data(iter(data), [SPEC]).batches(4))


def test_several_inputs_cannot_be_fed_with_images() -> None:
    with pytest.raises(DataError, match="DATA are images, but the model has the inputs 'x', 'y'"):
        open_data(IMAGES, [SPEC, InputSpec("y", (None, 2), SPEC.dtype)])


def test_lengths() -> None:
    items: list[Any] = [
        ARRAY,
        (ARRAY, LABELS),
        IMAGES[0],
        IMAGES,
        [(i, 1) for i in IMAGES],
        {"x": ARRAY, "t": 1},
        "a.png",
        3,
    ]
    assert [length(item) for item in items] == [10, 10, 1, 10, 10, 10, 1, 1]
