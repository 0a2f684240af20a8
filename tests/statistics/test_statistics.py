"""Moments add up however they are cut, mean what they say, and survive their file; damaged files are refused."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from safetensors.numpy import load, save_file

from onnxnorm.errors import StatisticsError
from onnxnorm.statistics import Moments, Statistics, Value
from tests.helpers.statistics import CHANNELS, moments_of, observed, rewritten, statistics

Floats = NDArray[np.float64]


def assert_same(a: Moments, b: Moments) -> None:
    assert a.images == b.images
    for name in ("weight", "weight_squares", "total", "square_total", "squares"):
        np.testing.assert_allclose(getattr(a, name), getattr(b, name), rtol=1e-12, err_msg=name)
    np.testing.assert_array_equal(a.largest, b.largest)


def merge_totals(parts: list[Moments]) -> Moments:
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total


@pytest.mark.parametrize("size", [1, 2, 7, 40, 82])
def test_chunks_of_any_size_give_the_same(size: int) -> None:
    means, largest, weights = observed(40)
    pieces = [slice(start, start + size) for start in range(0, 40, size)]
    parts = [Moments.of(means[piece], largest[piece], weights[piece]) for piece in pieces]
    assert_same(merge_totals(parts), Moments.of(means, largest, weights))


@given(st.lists(st.integers(1, 6), min_size=1, max_size=8), st.randoms(use_true_random=False))
def test_parts_add_up_in_any_order(sizes: list[int], random: Any) -> None:
    means, largest, weights = observed(sum(sizes))
    ends = np.cumsum(sizes)
    parts = [
        Moments.of(means[end - size : end], largest[end - size : end], weights[end - size : end])
        for size, end in zip(sizes, ends, strict=True)
    ]
    random.shuffle(parts)
    while len(parts) > 1:  # and in any tree
        left = parts.pop(random.randrange(len(parts)))
        right = parts.pop(random.randrange(len(parts)))
        parts.append(left + right)
    assert_same(parts[0], Moments.of(means, largest, weights))


def test_the_mean_is_over_images_and_positions() -> None:
    """A mean of batch means, or of image means where images differ in size, would be wrong."""
    rng = np.random.default_rng(0)
    images = [rng.normal(size=(positions, CHANNELS)) for positions in (4, 100, 9, 49)]
    parts = [Moments.of(x.mean(axis=0)[None], x.max(axis=0)[None], np.array([len(x)])) for x in images]
    found = merge_totals(parts)
    everything = np.concatenate(images)
    np.testing.assert_allclose(found.mean, everything.mean(axis=0), rtol=1e-12)
    np.testing.assert_array_equal(found.largest, everything.max(axis=0))
    assert (found.images, found.weight) == (4, 162)


def test_standard_error_of_equal_images_is_the_textbook_one() -> None:
    means, largest, weights = observed(40, equal=True)
    want = means.std(axis=0, ddof=1) / np.sqrt(40)
    np.testing.assert_allclose(Moments.of(means, largest, weights).standard_error, want, rtol=1e-9)


def test_standard_error_of_unequal_images_is_that_of_a_bootstrap() -> None:
    means, largest, weights = observed(300)
    rng = np.random.default_rng(1)
    drawn = rng.integers(0, 300, (4000, 300))
    resampled = (weights[drawn][..., None] * means[drawn]).sum(axis=1) / weights[drawn].sum(axis=1)[:, None]
    found = Moments.of(means, largest, weights).standard_error
    np.testing.assert_allclose(found, resampled.std(axis=0), rtol=0.08)


def test_standard_error_of_one_image_is_unknown_and_of_equal_means_nothing() -> None:
    assert np.isnan(moments_of(1).standard_error).all()
    same = Moments.of(np.full((9, 2), 0.1), np.ones((9, 2)), np.array([3.0] * 9))
    np.testing.assert_allclose(same.standard_error, 0, atol=1e-9)


# Statistics


def assert_equal(a: Statistics, b: Statistics) -> None:
    assert (a.model, a.version, a.filters, a.skipped) == (b.model, b.version, b.filters, b.skipped)
    assert (dict(a.shapes), dict(a.inputs)) == (dict(b.shapes), dict(b.inputs))
    assert list(a.values) == list(b.values)
    for value, moments in a.values.items():
        assert_same(moments, b.values[value])


def test_a_file_gives_back_what_was_saved(tmp_path: Path) -> None:
    made = statistics()
    made.save(tmp_path / "s.safetensors")
    assert_equal(Statistics.load(tmp_path / "s.safetensors"), made)
    assert Statistics.load(str(tmp_path / "s.safetensors")).to_bytes() == made.to_bytes()
    arrays = load((tmp_path / "s.safetensors").read_bytes())
    assert {array.dtype for name, array in arrays.items() if not name.startswith("files")} == {np.dtype(np.float64)}


def test_a_file_is_readable_by_whom_the_umask_lets(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        statistics().save(tmp_path / "s")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "s").stat().st_mode) == 0o644


def test_merging_adds_images_and_keeps_what_was_skipped() -> None:
    one, two = statistics(0, "a"), statistics(7, "b")
    both = Statistics.merged([one, two])
    assert both.images == 80
    assert both.skipped == one.skipped * 2
    for value, moments in both.values.items():
        assert_same(moments, one.values[value] + two.values[value])
    assert_same(next(iter((two + one).values.values())), next(iter(both.values.values())))


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"model": "cd" * 32}, "model"),
        ({"filters": "all"}, "filters"),
        ({"inputs": {"preprocessing": {"preset": "caffe"}}}, "preprocessing"),
        ({"values": {Value("relu", "mean"): moments_of()}}, "measured values"),
    ],
)
def test_statistics_that_do_not_belong_together(changes: dict[str, Any], what: str) -> None:
    with pytest.raises(StatisticsError, match=f"differ in their {what}"):
        statistics() + statistics(1, "b", **changes)


def test_the_same_images_are_not_counted_twice() -> None:
    with pytest.raises(StatisticsError, match=r"counted twice|more than one"):
        statistics() + statistics()


def test_statistics_of_another_model() -> None:
    statistics().check_model("ab" * 32)
    with pytest.raises(StatisticsError, match=r"measured on another model .* calibrate this model"):
        statistics().check_model("cd" * 32)


# Files that are not what they should be


def cut(path: Path) -> None:
    path.write_bytes(statistics().to_bytes()[:-100])


HOSTILE: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("mean,1\n" * 100),
    "cut short": cut,
    "cut in the head": lambda path: path.write_bytes(statistics().to_bytes()[:20]),
    "a head without end": lambda path: path.write_bytes(b"\xff" * 64),
    "a folder": lambda path: path.mkdir(),
    "weights of something else": lambda path: save_file({"w": np.ones(3)}, path),
    "other metadata": lambda path: save_file({"w": np.ones(3)}, path, {"onnxnorm": "[]"}),
    "metadata that is no JSON": lambda path: save_file({"w": np.ones(3)}, path, {"onnxnorm": "{"}),
    "another format": rewritten(lambda header, _: header.update(format="999")),
    "no model": rewritten(lambda header, _: header.pop("model")),
    "values of another kind": rewritten(lambda header, _: header.update(values=5)),
    "shapes of another kind": rewritten(lambda header, _: header.update(shapes=[1])),
    "skipped of another kind": rewritten(lambda header, _: header.update(skipped=["a"])),
    "no images": rewritten(lambda header, _: header["values"][0].update(images=0)),
    "images of another kind": rewritten(lambda header, _: header["values"][0].update(images="many")),
    "no weight": rewritten(lambda header, _: header["values"][0].update(weight=0.0)),
    "an array missing": rewritten(lambda _, arrays: arrays.pop("0.total")),
    "all arrays missing": rewritten(lambda _, arrays: arrays.clear()),
    "an array of another length": rewritten(lambda _, arrays: arrays.update({"0.total": np.ones(4)})),
    "single precision": rewritten(
        lambda _, arrays: arrays.update({key: array.astype(np.float32) for key, array in arrays.items()})
    ),
    "two axes": rewritten(
        lambda _, arrays: arrays.update({key: array.reshape(1, -1) for key, array in arrays.items()})
    ),
    "not a number": rewritten(lambda _, arrays: arrays.update({"0.total": np.full(CHANNELS, np.nan)})),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused_in_one_line(name: str, tmp_path: Path) -> None:
    path = tmp_path / "s.safetensors"
    HOSTILE[name](path)
    with pytest.raises(StatisticsError) as caught:
        Statistics.load(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "onnxnorm calibrate" in str(caught.value) or "measure again" in str(caught.value)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(StatisticsError, match="do not exist; make them with onnxnorm calibrate"):
        Statistics.load(tmp_path / "s")


# Writing


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "s"
    statistics().save(path)
    before = path.read_bytes()

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", fail)
        with pytest.raises(StatisticsError, match=r"cannot write statistics .*No space left"):
            statistics(3).save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
    statistics(3).save(path)
    assert path.read_bytes() != before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("place", ["missing/s", "file/s", "."])
def test_where_nothing_can_be_written(place: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StatisticsError, match="cannot write statistics"):
        statistics().save(tmp_path / place)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
