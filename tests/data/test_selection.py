"""Shards: disjoint, together everything, and added up the same as one run; nothing is counted twice."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import onnxnorm
from onnxnorm.data.arrays.reader import open_arrays
from onnxnorm.data.selection import Ranges, Selection, Shard
from onnxnorm.errors import DataError, OptionError, StatisticsError
from onnxnorm.model.inputs import InputSpec
from onnxnorm.statistics import Statistics
from tests.helpers.calibrations import close, net
from tests.helpers.graphs import rand

PLACES = st.sets(st.integers(0, 40))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Eleven images of three sizes, one unusable, and an array file between them."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(11):
        size = [(12, 10), (16, 16), (9, 14)][number % 3]
        pixels = np.random.default_rng(number).integers(0, 256, (size[1], size[0], 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:02}.png")
    (folder / "03.png").write_bytes(b"junk")
    np.save(folder / "05a.npy", rand(7, 3, 16, 16))
    return folder


@given(PLACES, PLACES)
def test_ranges_are_sets(one: set[int], other: set[int]) -> None:
    ranges = Ranges().with_places(one).with_places(other)
    assert len(ranges) == len(one | other)
    assert {place for place in range(50) if place in ranges} == one | other
    assert all(stop < start for (_, stop), (start, _) in zip(ranges.spans, ranges.spans[1:], strict=False))
    gaps = [place for start, stop in ranges.gaps(5, 30) for place in range(start, stop)]
    assert gaps == [place for place in range(5, 30) if place not in one | other]


@given(st.integers(1, 6), PLACES, st.integers(0, 50), st.integers(0, 20))
def test_a_selection_is_what_is_left_of_a_shard(count: int, done: set[int], start: int, length: int) -> None:
    for index in range(count):
        selection = Selection(Shard(index, count), Ranges().with_places(done))
        found = selection.among(start, start + length).tolist()
        mine = [i for i in range(start, start + length) if i % count == index]
        assert found == [i for i in mine if selection.place(i) not in done]
        assert selection.has_done(start, start + length) == any(selection.place(i) in done for i in mine)


@pytest.mark.parametrize("text", ["", "1", "2/2", "-1/2", "0/0", "a/b", "1/2/3"])
def test_shards_that_do_not_exist(text: str) -> None:
    with pytest.raises(OptionError, match="--shard"):
        Shard.parse(text)
    assert str(Shard.parse(" 3/7 ")) == "3/7"


@pytest.mark.parametrize("kind", ["npy", "npz", "compressed"])
@pytest.mark.parametrize("count", [2, 5])
def test_rows_of_a_shard(tmp_path: Path, kind: str, count: int) -> None:
    array = np.arange(23 * 3 * 4, dtype=np.float32).reshape(23, 3, 2, 2)
    path = tmp_path / ("a.npy" if kind == "npy" else "a.npz")
    {"npy": np.save, "npz": np.savez, "compressed": np.savez_compressed}[kind](path, array)
    file = open_arrays(path, [InputSpec("x", (None, 3, 2, 2), np.dtype(np.float32))])
    for index in range(count):
        blocks = list(file.blocks(3, 1, Selection(Shard(index, count)).among))
        np.testing.assert_array_equal(np.concatenate([block.feeds["x"] for block in blocks]), array[index::count])
        assert [i for block in blocks for i in block.indices] == list(range(index, 23, count))


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_shards_of_mixed_data_add_up_to_one_run(photos: Path, count: int) -> None:
    proto = net()
    whole = onnxnorm.calibrate(proto, photos, preset="unit", resize="none", batch_size=4, provider="cpu")
    assert whole.images == 17
    parts = [
        onnxnorm.calibrate(
            proto, photos, preset="unit", resize="none", batch_size=1 + index, shard=f"{index}/{count}", provider="cpu"
        )
        for index in range(count)
    ]
    merged = onnxnorm.merge(parts[::-1])
    close(merged, whole)
    assert sorted(merged.skipped) == sorted(whole.skipped)
    assert len(merged.inputs["sources"]) == 1
    close(onnxnorm.merge([parts[0], *parts[1:]]), whole)
    with pytest.raises(StatisticsError, match="counted twice"):
        onnxnorm.merge([*parts, parts[0]])
    with pytest.raises(StatisticsError, match="counted twice"):
        onnxnorm.merge([whole, parts[-1]])


def test_shards_of_two_inputs(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=rand(9, 3, 8, 8), y=rand(9, 3, 8, 8, seed=1), other=rand(2))
    np.savez_compressed(tmp_path / "b.npz", x=rand(4, 3, 8, 8, seed=2), y=rand(4, 3, 8, 8, seed=3))
    whole = onnxnorm.calibrate(net(2), tmp_path, provider="cpu")
    parts = [onnxnorm.calibrate(net(2), tmp_path, batch_size=3, shard=f"{i}/3", provider="cpu") for i in range(3)]
    close(onnxnorm.merge(parts), whole)


def test_shards_of_arrays_in_memory() -> None:
    arrays = [rand(5, 3, 8, 8), rand(4, 3, 8, 8, seed=1)]
    whole = onnxnorm.calibrate(net(), arrays, provider="cpu")
    parts = [onnxnorm.calibrate(net(), iter(arrays), shard=f"{i}/2", provider="cpu") for i in range(2)]
    close(onnxnorm.merge(parts), whole)


def test_a_shard_without_samples(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", rand(2, 3, 8, 8))
    with pytest.raises(DataError, match="shard 3/4 holds no sample"):
        onnxnorm.calibrate(net(), tmp_path, shard="3/4", provider="cpu")


def test_the_limit_counts_within_a_shard(photos: Path) -> None:
    part = onnxnorm.calibrate(net(), photos, preset="unit", resize="none", shard="1/2", limit=3, provider="cpu")
    assert part.images == 3
    assert [Path(name).name for name, _ in part.skipped] == ["03.png"]


def test_the_same_file_in_two_runs(tmp_path: Path) -> None:
    for folder, seed in (("one", 0), ("two", 1)):
        (tmp_path / folder).mkdir()
        np.save(tmp_path / folder / "a.npy", rand(4, 3, 8, 8, seed=seed))
    shutil.copy(tmp_path / "one" / "a.npy", tmp_path / "two" / "b.npy")
    one, two, both, b = (
        onnxnorm.calibrate(net(), [tmp_path / path for path in paths], provider="cpu")
        for paths in (["one"], ["two/a.npy"], ["one/a.npy", "two/a.npy"], ["two/b.npy"])
    )
    assert onnxnorm.merge([one, two]).images == 8  # one name and one length, but other numbers
    assert onnxnorm.merge([two, b]).images == 8
    for pair in ([one, one], [one, both], [both, two], [onnxnorm.merge([two, b]), both]):
        with pytest.raises(StatisticsError, match="counted twice"):
            onnxnorm.merge(pair)


def test_what_was_not_read_is_not_counted(photos: Path) -> None:
    names = sorted(path for path in photos.iterdir() if path.suffix == ".png")
    words = {"preset": "unit", "resize": "none", "provider": "cpu"}
    first = onnxnorm.calibrate(net(), names, limit=3, **words)  # type: ignore[arg-type]
    rest = onnxnorm.calibrate(net(), names[3:], **words)  # type: ignore[arg-type]
    close(onnxnorm.merge([first, rest]), onnxnorm.calibrate(net(), names, **words))  # type: ignore[arg-type]


def test_different_order_is_no_disjoint_shard(tmp_path: Path) -> None:
    for seed in range(4):
        np.save(tmp_path / f"{seed}.npy", rand(1, 3, 8, 8, seed=seed))
    paths = [tmp_path / f"{seed}.npy" for seed in range(4)]
    first = onnxnorm.calibrate(net(), paths, shard="0/2", provider="cpu")
    second = onnxnorm.calibrate(net(), paths[::-1], shard="1/2", provider="cpu")
    assert first.inputs["sources"][0]["digest"] == second.inputs["sources"][0]["digest"]
    with pytest.raises(StatisticsError, match="counted twice"):
        onnxnorm.merge([first, second])


def test_weighting(tmp_path: Path) -> None:
    np.save(tmp_path / "small.npy", rand(2, 3, 4, 4))
    np.save(tmp_path / "large.npy", rand(2, 3, 16, 16, seed=1))
    small, large = (onnxnorm.calibrate(net(), tmp_path / f"{name}.npy", provider="cpu") for name in ("small", "large"))
    by_position = onnxnorm.calibrate(net(), tmp_path, provider="cpu")
    by_image = onnxnorm.calibrate(net(), tmp_path, weighting="image", provider="cpu")
    for value, moments in by_image.values.items():
        a, b = small.values[value].mean, large.values[value].mean
        # Alone, samples are known to be of one size, and small maps are summed in float32 without windows.
        np.testing.assert_allclose(moments.mean, (a + b) / 2, rtol=1e-6)
        np.testing.assert_allclose(by_position.values[value].mean, (a + 16 * b) / 17, rtol=1e-6)
    by_image.save(tmp_path / "s.safetensors")
    again = Statistics.load(tmp_path / "s.safetensors")
    assert (again.weighting, again.complete, set(again.files)) == ("image", True, set(by_image.files))
    with pytest.raises(StatisticsError, match="weighting"):
        onnxnorm.merge([by_image, replace(by_position, inputs={})])
    with pytest.raises(OptionError, match="--weighting"):
        onnxnorm.calibrate(net(), tmp_path, weighting="pixel", provider="cpu")
