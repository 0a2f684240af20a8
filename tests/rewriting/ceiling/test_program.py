"""The integer program against trying all integers."""

from __future__ import annotations

from itertools import product

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array, eye_array

from onnxnorm.rewriting.ceiling.program import Costs, solve_integers

ROWS = st.lists(st.tuples(*[st.sampled_from([-2, -1, 0, 0, 1, 1, 2])] * 3, st.integers(-4, 4)), min_size=1, max_size=5)
REACH = 6


def each(*weights: float) -> Costs:
    """What it costs to move each unknown."""
    return Costs(csr_array(eye_array(len(weights), dtype=np.int64)), np.asarray(weights))


def best_by_trying(rows: np.ndarray, bounds: np.ndarray, weights: np.ndarray) -> tuple[int, float]:
    """The least by which wishes are missed, and the least weight that moves for that."""
    found = []
    for integers in product(range(-REACH, REACH + 1), repeat=rows.shape[1]):
        u = np.asarray(integers)
        left = rows @ u
        if (left <= np.maximum(bounds, 0)).all():
            found.append((int(np.maximum(left - bounds, 0).sum()), float(weights[u != 0].sum())))
    return min(found)


@settings(max_examples=120, deadline=None, derandomize=True, database=None)
@given(ROWS)
def test_as_good_as_trying_all(drawn: list[tuple[int, ...]]) -> None:
    table = np.asarray(drawn, np.int64)
    rows, bounds, weights = table[:, :-1], table[:, -1], np.asarray([3.0, 1.0, 2.0])
    found = solve_integers(csr_array(rows), bounds, each(*weights), 10.0)
    assert found.proven
    left = rows @ found.unknowns
    assert (left <= np.maximum(bounds, 0)).all()
    missed, weight = best_by_trying(rows, bounds, weights)
    multiple = (np.count_nonzero(rows, axis=1) > 1).any()
    ours = int(np.maximum(left - bounds, 0).sum())
    if np.abs(found.unknowns).max() <= REACH:
        assert ours >= missed
    assert ours <= missed or not multiple  # wishes that exclude each other are met in order where unknowns are single
    if ours == missed and np.abs(found.unknowns).max() < REACH:
        assert float(weights[found.unknowns != 0].sum()) <= weight + 1e-9


def test_a_product_moves_the_factor_with_fewer_filters() -> None:
    """c = a b is eight times too large."""
    rows = csr_array(np.asarray([[1, 1], [1, 0], [0, 1]]))
    found = solve_integers(rows, np.asarray([-3, 0, 0]), each(64.0, 1.0), 10.0)
    np.testing.assert_array_equal(found.unknowns, [0, -3])


def test_a_form_that_costs_more_is_kept_at_0() -> None:
    """To move the second one too is cheaper than to let the two differ."""
    rows = csr_array(np.asarray([[1, 0]]))
    costs = Costs(csr_array(np.asarray([[1, 0], [0, 1], [1, -1]])), np.asarray([1.0, 1.0, 5.0]))
    np.testing.assert_array_equal(solve_integers(rows, np.asarray([-3]), costs, 10.0).unknowns, [-3, -3])
    costs = Costs(costs.forms, np.asarray([1.0, 9.0, 5.0]))
    np.testing.assert_array_equal(solve_integers(rows, np.asarray([-3]), costs, 10.0).unknowns, [-3, 0])


def test_what_must_hold_is_kept_and_wishes_come_near() -> None:
    """a - b <= -5, and b cannot grow by more than 2, a cannot shrink by more than 1."""
    rows = csr_array(np.asarray([[1, -1], [0, 1], [-1, 0]]))
    found = solve_integers(rows, np.asarray([-5, 2, 1]), each(1.0, 1.0), 10.0)
    np.testing.assert_array_equal(found.unknowns, [-1, 2])


def test_without_wishes_nothing_moves() -> None:
    rows = csr_array(np.asarray([[1, -1], [-1, 2]]))
    assert not solve_integers(rows, np.asarray([0, 3]), each(1.0, 1.0), 10.0).unknowns.any()


def test_when_time_is_short_what_must_hold_still_does() -> None:
    random = np.random.default_rng(0)
    for _ in range(20):
        rows = random.integers(-2, 3, (12, 6))
        bounds = random.integers(-6, 7, 12)
        found = solve_integers(csr_array(rows), bounds, each(*np.ones(6)), 0.0)
        assert (rows @ found.unknowns <= np.maximum(bounds, 0)).all()
        assert not found.proven or not (bounds < 0).any()


def test_many_channels_are_solved_in_seconds() -> None:
    """20,000 products of two unknowns each."""
    count = 20_000
    pairs = np.repeat(np.arange(count), 2)
    rows = csr_array((np.ones(2 * count, np.int64), (pairs, np.arange(2 * count))), shape=(count, 2 * count))
    bounds = -np.asarray([3, 4, 5, 6] * (count // 4))
    found = solve_integers(rows, bounds, each(*np.tile([2.0, 1.0], count)), 60.0)
    assert found.proven
    assert (found.unknowns[::2] == 0).all()
    np.testing.assert_array_equal(found.unknowns[1::2], bounds)
