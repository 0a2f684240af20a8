"""Moments of many values that are added at once are those that are added one by one."""

from __future__ import annotations

import pickle
from collections.abc import Mapping

import numpy as np

from onnxnorm.statistics.measures import MEANS
from onnxnorm.statistics.moments import Moments, Totals, Value
from onnxnorm.statistics.precision import RelativeErrors
from onnxnorm.statistics.together import Block, Together, blocks_of, image_count, merge_totals, sums_of, without
from tests.helpers.graphs import rand

LAYOUT = ((Value("a", "peak"), 2), (Value("b", "peak"), 3))
OWN = Value("a", "mean")
VALUES = (OWN, LAYOUT[0][0], LAYOUT[1][0])


def batch(count: int, seed: int) -> Together:
    peaks = np.abs(rand(count, 5, seed=seed)).astype(np.float64)
    peaks[0, 1] = peaks[:, 2] = 0
    own = Moments.of(rand(count, 4, seed=seed), None, np.ones(count))
    return Together({OWN: own}, (Block(LAYOUT, Moments.of_peaks(peaks)),), VALUES)


def same(one: Mapping[Value, Moments], other: Mapping[Value, Moments]) -> None:
    assert set(one) == set(other)
    for value, moments in one.items():
        assert moments.images == other[value].images
        for name in ("total", "square_total", "squares", "largest", "smallest"):
            mine, theirs = getattr(moments, name), getattr(other[value], name)
            assert (mine is None) == (theirs is None)
            if mine is not None:
                np.testing.assert_array_equal(mine, theirs)


def test_they_add_up() -> None:
    one, other = batch(3, 1), batch(4, 2)
    joint = merge_totals(one, other)
    assert isinstance(joint, Together)
    apart: Totals = {value: one[value] + other[value] for value in one}
    same(joint, apart)
    same(merge_totals(dict(one), other), apart)
    same(merge_totals(one, dict(other)), apart)
    assert image_count(joint) == image_count(apart) == 7


def test_they_travel_between_processes() -> None:
    one = batch(3, 1)
    same(merge_totals(pickle.loads(pickle.dumps(one)), one), merge_totals(one, one))


def test_another_layout_is_added_one_by_one() -> None:
    one = batch(3, 1)
    turned = Together(one.each, (Block((LAYOUT[1], LAYOUT[0]), Moments.of_peaks(np.ones((2, 5)))),), VALUES)
    joint = merge_totals(one, turned)
    assert not isinstance(joint, Together)
    np.testing.assert_array_equal(joint[LAYOUT[0][0]].total, one[LAYOUT[0][0]].total + 2)


def test_the_largest_of_one_value_are_found_with_another() -> None:
    peaks, means = np.abs(rand(3, 5)).astype(np.float64), rand(3, 2)
    beside = Block(((OWN, 2),), Moments.of(means, None, np.ones(3)))
    other = Block(LAYOUT, Moments.of_peaks(peaks))
    one = Together({}, (beside, other), VALUES, {OWN: LAYOUT[0][0]})
    assert one.blocks[0].moments.largest is None
    np.testing.assert_array_equal(one[OWN].largest, peaks[:, :2].max(axis=0))
    twice = merge_totals(one, one)
    assert isinstance(twice, Together)
    np.testing.assert_array_equal(twice[OWN].largest, peaks[:, :2].max(axis=0))
    assert Together({}, (beside, other), VALUES, {OWN: LAYOUT[1][0]})[OWN].largest is None  # it has other channels
    assert not one.alike(Together({}, (beside, other), VALUES))


def means(count: int, seed: int) -> Together:
    """Two blocks of means, of other weights, and peaks; `OWN` is dead in one channel."""
    blocks = []
    for number, (names, weight) in enumerate([("abc", 1.0), ("de", 9.0)]):
        rows = np.abs(rand(count, 3 * len(names), seed=seed + number)).astype(np.float64)
        rows[:, 1] = 0
        layout = tuple((Value(name, "mean"), 3) for name in names)
        blocks.append(Block(layout, Moments.of(rows, None, np.full(count, weight))))
    peaks = Moments.of_peaks(np.abs(rand(count, 5, seed=seed)).astype(np.float64))
    blocks.append(Block(LAYOUT, peaks))
    return Together({}, tuple(blocks), tuple(value for block in blocks for value, _ in block.layout))


def test_blocks_are_all_there_is() -> None:
    one = batch(3, 1)
    assert [block.layout for block in blocks_of(one)] == [LAYOUT, ((OWN, 4),)]
    assert [block.layout for block in blocks_of(dict(one))] == [((value, one[value].channels),) for value in VALUES]
    assert list(blocks_of({})) == []


def test_errors_are_those_of_each_value() -> None:
    together = means(12, 1)
    found, apart = RelativeErrors.of(together), RelativeErrors.of(dict(together))
    assert found.images == apart.images == 12
    assert [value.name for value, _ in found.places] == list("abcde")
    assert all(value.measure == "mean" for value, _ in found.places)
    np.testing.assert_array_equal(found.relative, apart.relative)
    for (value, live), (other, also) in zip(found.places, apart.places, strict=True):
        assert value == other
        np.testing.assert_array_equal(live, also)
        np.testing.assert_array_equal(live, np.flatnonzero(together[value].live))
    expected = np.concatenate([together[value].relative_error[live] for value, live in found.places])
    np.testing.assert_array_equal(found.relative, expected)
    assert len(found.relative) == 13  # two are dead


def test_a_run_without_some_of_its_images() -> None:
    parts = [means(count, seed) for count, seed in ((8, 1), (9, 5), (10, 9))]
    start = parts[0]
    after = merge_totals(start, parts[1])
    whole = merge_totals(after, parts[2])
    left = without(sums_of(whole, MEANS), sums_of(start, MEANS), sums_of(after, MEANS))
    assert isinstance(left, Together)
    apart = without(dict(whole), dict(start), {value: after[value] for value in after if value.measure == "mean"})
    assert image_count(left) == image_count(apart) == 18
    same(left, apart)
    for value, moments in left.items():
        np.testing.assert_allclose(moments.total, parts[0][value].total + parts[2][value].total, rtol=1e-12)
    first = {value: start[value] for value in start if value.measure == "mean"}
    same(without(sums_of(whole, MEANS), {}, sums_of(start, MEANS)), without(dict(whole), {}, first))


def test_sums_are_those_of_some_measures() -> None:
    together = means(4, 1)
    kept = sums_of(together, MEANS)
    assert isinstance(kept, Together)
    assert [value.measure for value in kept] == ["mean"] * 5
    assert len(kept.blocks) == 2
    same(kept, {value: together[value] for value in kept})
    mixed = sums_of(batch(3, 1), MEANS)  # with a value of its own, whose histogram would stay
    assert list(mixed) == [OWN]


def test_nothing_changes_nothing() -> None:
    one = batch(3, 1)
    assert merge_totals({}, one) is merge_totals(one, {}) is one
    assert tuple(one) == VALUES
    assert len(one) == 3
    assert Value("c", "peak") not in one


def test_the_smallest_is_not_zero_unless_all_are() -> None:
    peaks = np.array([[0, 3, 0, 2], [5, 0, 0, 1]], np.float64)
    whole = Moments.of_peaks(peaks)
    np.testing.assert_array_equal(whole.smallest, [5, 3, 0, 1])
    parts = Moments.of_peaks(peaks[:1]) + Moments.of_peaks(peaks[1:])
    np.testing.assert_array_equal(parts.smallest, [5, 3, 0, 1])
