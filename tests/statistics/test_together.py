"""Moments of many values that are added at once are those that are added one by one."""

from __future__ import annotations

import pickle
from collections.abc import Mapping

import numpy as np

from onnxnorm.statistics.moments import Moments, Totals, Value
from onnxnorm.statistics.together import Block, Together, image_count, merge_totals
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
