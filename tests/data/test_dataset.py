"""From DATA to batches: the journey as a whole."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from onnxnorm.data.batches import Batch
from onnxnorm.data.dataset import Dataset
from onnxnorm.data.images.decoding import read_decoded, read_image
from onnxnorm.data.images.options import ImageOptions
from onnxnorm.data.images.preprocessing import Preprocessing
from onnxnorm.data.opening import open_data
from onnxnorm.errors import DataError, OptionError
from onnxnorm.model.inputs import InputSpec

F32 = np.dtype(np.float32)
SPEC = InputSpec("x", (None, 3, 8, 8), F32)
OPEN = InputSpec("x", (None, 3, None, None), F32)
RAW = ImageOptions(preset="raw")


def image(path: Path, value: int, size: tuple[int, int] = (8, 8)) -> Path:
    Image.new("RGB", size, (value, value, value)).save(path)
    return path


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Ten images 0.png .. 9.png, filled with their number."""
    for number in range(10):
        image(tmp_path / f"{number}.png", number)
    return tmp_path


def values(batches: Iterator[Batch] | list[Batch]) -> list[list[int]]:
    return [[int(sample.ravel()[0]) for sample in batch.feeds["x"]] for batch in batches]


def flat(batches: Iterator[Batch] | list[Batch]) -> list[int]:
    return [value for batch in values(batches) for value in batch]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 10, 11])
@pytest.mark.parametrize("threads", [1, 4])
def test_images_come_in_order_in_batches_of_any_size(photos: Path, size: int, threads: int) -> None:
    dataset = open_data([str(photos)], [SPEC], RAW)
    assert dataset.total == 10
    batches = list(dataset.batches(size, threads=threads))
    assert flat(batches) == list(range(10))
    assert [batch.count for batch in batches] == [size] * (10 // size) + ([10 % size] if 10 % size else [])
    assert batches[0].names[0] == str(photos / "0.png")
    assert dataset.skipped == []


def test_a_sample_is_what_the_preprocessing_makes_of_the_picture(photos: Path) -> None:
    dataset = open_data(photos / "7.png", [SPEC])
    assert isinstance(dataset.preprocessing, Preprocessing)
    assert dataset.preprocessing.preset == "imagenet"
    (batch,) = dataset.batches(4)
    np.testing.assert_array_equal(batch.feeds["x"][0], dataset.preprocessing(read_image(photos / "7.png")))


@pytest.mark.parametrize("threads", [1, 4])
def test_large_jpegs_are_decoded_at_a_fraction_of_their_size_in_every_thread(tmp_path: Path, threads: int) -> None:
    rng = np.random.default_rng(0)
    for number in range(8):
        pixels = rng.integers(0, 256, (200 + number, 301, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.jpg")
    dataset = open_data(tmp_path, [SPEC], RAW)
    recipe = dataset.preprocessing
    assert recipe is not None
    samples = [sample for batch in dataset.batches(3, threads=threads) for sample in batch.feeds["x"]]
    for number, sample in enumerate(samples):
        image = read_decoded(tmp_path / f"{number}.jpg", recipe.least)
        assert image.image.size == (38, 25 + (number > 0))
        np.testing.assert_array_equal(sample, recipe(image))
        assert not np.array_equal(sample, recipe(read_image(tmp_path / f"{number}.jpg")))


def test_unusable_images_are_skipped_listed_and_do_not_count(photos: Path) -> None:
    (photos / "0.png").write_bytes(b"")
    (photos / "4.png").write_bytes((photos / "4.png").read_bytes()[:50])
    dataset = open_data(photos, [SPEC], RAW)
    assert values(dataset.batches(3, limit=4)) == [[1, 2, 3], [5]]
    assert [Path(item.name).name for item in dataset.skipped] == ["0.png", "4.png"]
    assert dataset.skipped[0].reason == "it is empty"
    assert values(dataset.batches(100)) == [[1, 2, 3, 5, 6, 7, 8, 9]]
    assert len(dataset.skipped) == 2


def test_too_many_unusable_images_are_an_error(photos: Path) -> None:
    for number in range(5):
        (photos / f"{number}.png").write_bytes(b"junk")
    assert flat(open_data(photos, [SPEC], RAW).batches(2)) == [5, 6, 7, 8, 9]
    (photos / "5.png").write_bytes(b"junk")
    with pytest.raises(DataError, match=r"6 of 10 samples cannot be used: .*0\.png: .*; and 3 more"):
        list(open_data(photos, [SPEC], RAW).batches(2))


def test_no_usable_image_at_all_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"1 of 1 samples cannot be used: .*a\.png: it is empty"):
        list(open_data(tmp_path, [SPEC]).batches(2))


def test_images_and_arrays_mix_in_a_batch(photos: Path) -> None:
    ones = np.ones((3, 3, 8, 8), np.float32)
    np.save(photos / "4a.npy", ones * np.array([40, 41, 42], np.float32).reshape(3, 1, 1, 1))
    np.savez_compressed(photos / "4b.npz", anything=ones * 50)
    (photos / "notes.txt").write_text("")
    dataset = open_data(photos, [SPEC], RAW)
    assert dataset.total == 16
    expected = [0, 1, 2, 3, 4, 40, 41, 42, 50, 50, 50, 5, 6, 7, 8, 9]
    assert values(dataset.batches(4)) == [expected[i : i + 4] for i in range(0, 16, 4)]
    assert flat(dataset.batches(4, limit=7)) == expected[:7]
    assert dataset.describe() == "10 image(s), 2 array file(s) with 6 sample(s), 1 other file(s) ignored"
    identity = dataset.identity
    assert identity["files"] == 12
    assert str(identity["digest"]).startswith("sha256:")


def test_own_sizes_are_batched_by_shape(tmp_path: Path) -> None:
    for number in range(12):
        image(tmp_path / f"{number:02}.png", number, (8, 6) if number % 3 else (4, 4))
    dataset = open_data(tmp_path, [OPEN], ImageOptions(preset="raw", resize="none"))
    batches = list(dataset.batches(4))
    assert sorted(batch.feeds["x"].shape for batch in batches) == [(4, 3, 4, 4), (4, 3, 6, 8), (4, 3, 6, 8)]
    assert sorted(flat(batches)) == list(range(12))
    assert values(batches) == values(dataset.batches(4, threads=3))


def test_stopping_early_stops_the_threads(photos: Path) -> None:
    np.save(photos / "5.npy", np.zeros((100, 3, 8, 8), np.float32))
    for select in (1, 5, 8):
        batches = open_data(photos, [SPEC], RAW).batches(1, threads=4)
        for _ in range(select):
            next(batches)
        batches.close()
        assert not [thread for thread in threading.enumerate() if thread.name.startswith("onnxnorm-data")]


def test_two_readers_at_once_do_not_disturb_each_other(photos: Path) -> None:
    dataset = open_data(photos, [SPEC], RAW)
    pairs = list(zip(dataset.batches(3), dataset.batches(3), strict=True))
    assert values([first for first, _ in pairs]) == values([second for _, second in pairs])


def numbered(count: int, start: int = 0) -> npt.NDArray[np.float32]:
    return np.broadcast_to(np.arange(start, start + count, dtype=np.float32)[:, None, None, None], (count, 3, 8, 8))


@pytest.mark.parametrize("size", [1, 2, 3, 7, 10])
def test_arrays_in_memory(size: int) -> None:
    expected = [list(range(10))[i : i + size] for i in range(0, 10, size)]
    several: list[Any] = [numbered(10), {"x": numbered(10)}, [numbered(4), {"x": numbered(6, 4)}]]
    for data in several:
        dataset = open_data(data, [SPEC])
        assert dataset.total == 10
        assert dataset.preprocessing is None
        assert values(dataset.batches(size)) == values(dataset.batches(size)) == expected
    assert dataset.describe() == "arrays in memory with 10 sample(s)"
    assert dataset.identity["files"] == 0


def test_an_iterator_is_read_lazily_and_once() -> None:
    made = 0

    def batches() -> Iterator[npt.NDArray[np.float32]]:
        nonlocal made
        for start in range(0, 1000, 2):
            made += 1
            yield numbered(2, start)

    dataset = open_data(batches(), [SPEC])
    assert dataset.total is None
    assert values(dataset.batches(3, limit=4)) == [[0, 1, 2], [3]]
    assert made < 5
    exhausted = open_data(iter([numbered(1)]), [SPEC])
    assert len(list(exhausted.batches(1))) == 1
    with pytest.raises(DataError, match="made anew"):
        list(exhausted.batches(1))


def test_a_loader_that_can_be_read_again_is() -> None:
    class Loader:
        def __iter__(self) -> Iterator[npt.NDArray[np.float32]]:
            return iter([numbered(2), numbered(2, 2)])

    dataset = open_data(Loader(), [SPEC])
    assert values(dataset.batches(2)) == values(dataset.batches(2)) == [[0, 1], [2, 3]]


def test_several_inputs_in_memory_and_on_disk(tmp_path: Path) -> None:
    specs = [SPEC, InputSpec("style", (None, 2), F32)]
    styles = np.arange(20, dtype=np.float32).reshape(10, 2)
    np.savez(tmp_path / "a.npz", x=numbered(10), style=styles)
    for data in ({"x": numbered(10), "style": styles}, tmp_path / "a.npz"):
        batches = list(open_data(data, specs).batches(4))
        np.testing.assert_array_equal(np.concatenate([batch.feeds["style"] for batch in batches]), styles)
        assert values(batches) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


def test_images_cannot_feed_several_inputs(photos: Path) -> None:
    with pytest.raises(DataError, match=r"0\.png is an image, but the model has the inputs 'x', 'y'.*\.npz"):
        open_data(photos, [SPEC, InputSpec("y", (None, 1), F32)])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "DATA is empty"),
        (iter(()), "DATA is empty"),
        (5, "DATA is a int"),
        (["a.png", np.zeros(3)], "mixes paths with ndarray"),
        (np.zeros((2, 3, 8, 8)), "dtype is float64"),
        (np.zeros((3, 8, 8), np.float32), r"takes \(N, 3, 8, 8\)"),
        ({"y": np.zeros((2, 3, 8, 8), np.float32)}, "no array for 'x'"),
        ([("label", np.zeros((2, 3, 8, 8), np.float32))], "batch 0 is a str"),
        ([()], "batch 0 is a tuple"),
    ],
)
def test_data_that_makes_no_sense_is_refused(data: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        open_data(data, [SPEC])


def test_a_bad_batch_of_an_iterator_is_named() -> None:
    batches: list[npt.NDArray[Any]] = [numbered(2), numbered(2).astype(np.float64)]
    dataset = open_data(iter(batches), [SPEC])
    with pytest.raises(DataError, match="array, batch 1: its dtype is float64"):
        list(dataset.batches(2))


@pytest.mark.parametrize("option", ["batch_size", "limit", "threads"])
def test_counts_must_be_positive(option: str) -> None:
    counts: dict[str, Any] = {"batch_size": 1, option: 0}
    with pytest.raises(OptionError, match=f"--{option.replace('_', '-')} 0 must be at least 1"):
        dataset().batches(**counts)


def dataset() -> Dataset:
    return open_data(numbered(3), [SPEC])


def test_a_model_without_inputs_is_refused() -> None:
    with pytest.raises(DataError, match="no inputs"):
        open_data(numbered(3), [])
