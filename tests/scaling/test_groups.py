"""From ties, pins and products to groups: every constraint holds, and nothing is pinned without need."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from onnxnorm.scaling.groups import Groups, solve
from onnxnorm.scaling.slots import ZERO, Barrier, Ids, Slots, at_rank, distinct, squeezed

steady = settings(deadline=None, derandomize=True, database=None, max_examples=300)

Pair = tuple[int, int]
Triple = tuple[int, int, int]


def ids(*slots: int) -> Ids:
    return np.asarray(slots, np.int64)


def barrier(name: str = "b") -> Barrier:
    return Barrier(name, "op", name, f"because of {name}")


def solved(count: int, ties: list[Pair] = [], pins: list[int] = [], products: list[Triple] = []) -> Groups:  # noqa: B006
    slots = Slots()
    slots.fresh(count)
    for a, b in ties:
        slots.tie(ids(a), ids(b))
    for index, slot in enumerate(pins):
        slots.pin(ids(slot), barrier(f"p{index}"))
    for index, (c, a, b) in enumerate(products):
        slots.relate([(-1, ids(c)), (1, ids(a)), (1, ids(b))], barrier(f"m{index}"))
    return solve(slots)


def pinned(groups: Groups, *slots: int) -> list[bool]:
    return [bool(flag) for flag in groups.is_pinned(ids(*slots))]


def scales(groups: Groups, seed: int) -> NDArray[np.float64]:
    of_group = np.exp(groups.at(np.random.default_rng(seed).normal(size=groups.basis.shape[1])))
    of_slot: NDArray[np.float64] = of_group[groups.of]
    of_slot[ZERO] = 1
    return of_slot


# --- slots ---------------------------------------------------------------------------------------------------------


def test_fresh_slots_are_new_and_none_is_zero() -> None:
    slots = Slots()
    a, b = slots.fresh(2, 3), slots.fresh(4)
    assert a.shape == (2, 3)
    assert sorted([*a.reshape(-1), *b]) == list(range(1, 11))
    assert slots.fresh(0).size == 0


def test_ties_broadcast_and_pass_over_zeros() -> None:
    slots = Slots()
    a = slots.fresh(1, 3)
    slots.fresh(5)
    slots.tie(a, at_rank(ids(ZERO, 7, 8), 2))
    slots.tie(ids(5), ids(5))
    assert np.concatenate(slots.ties, axis=1).tolist() == [[2, 3], [7, 8]]


def test_pins_and_products_of_zeros_are_nothing() -> None:
    slots = Slots()
    slots.fresh(3)
    slots.pin(ids(ZERO, ZERO), barrier())
    slots.relate([(-1, ids(ZERO)), (1, ids(1)), (1, ids(ZERO))], barrier())
    assert (slots.pins, slots.relations, slots.barriers) == ([], [], [])


def test_distinct_squeezed_and_rank() -> None:
    array = np.asarray([[[3, 3], [5, 5]], [[3, 3], [5, 5]]])
    assert distinct(array).tolist() == [3, 5]
    assert distinct(ids(ZERO)).size == 0
    assert squeezed(array).tolist() == [[[3], [5]]]
    assert at_rank(ids(1, 2), 3).shape == (1, 1, 2)
    assert at_rank(ids(1, 2).reshape(1, 1, 2), 1).shape == (2,)
    assert squeezed(np.empty((0, 2), np.int64)).shape[0] == 0


# --- groups --------------------------------------------------------------------------------------------------------


def test_ties_make_groups() -> None:
    groups = solved(5, ties=[(1, 2), (4, 2)])
    assert groups.of[1] == groups.of[2] == groups.of[4]
    assert len({groups.of[1], groups.of[3], groups.of[5]}) == 3
    assert pinned(groups, 1, 3, 5) == [False] * 3


def test_a_pin_takes_the_whole_group_and_says_why() -> None:
    groups = solved(4, ties=[(1, 2)], pins=[2, 3])
    assert pinned(groups, 1, 2, 3, 4) == [True, True, True, False]
    assert [b.reason for b in groups.reasons(ids(1, 2, 4))] == ["because of p0"]
    assert [b.reason for b in groups.reasons(ids(3, 1, 1))] == ["because of p1", "because of p0"]
    assert groups.reasons(ids(ZERO, 4)) == []


def test_the_first_reason_counts() -> None:
    assert [b.reason for b in solved(2, ties=[(1, 2)], pins=[2, 1]).reasons(ids(1))] == ["because of p0"]


@pytest.mark.parametrize("zero", [ids(ZERO), ids(ZERO, 1)])
def test_zero_is_pinned_for_itself_alone(zero: Ids) -> None:
    groups = solved(1)
    assert groups.is_pinned(zero).tolist() == [slot == ZERO for slot in zero]


@pytest.mark.parametrize(
    ("what", "ties", "pins", "product", "is_pinned", "tied"),
    [
        ("a gate that is pinned lets the other through", [], [3], (1, 2, 3), [False, False, True], [(1, 2)]),
        ("on either side", [], [2], (1, 2, 3), [False, True, False], [(1, 3)]),
        ("both pinned: the product is", [], [2, 3], (1, 2, 3), [True, True, True], []),
        ("none pinned: all are free", [], [], (1, 2, 3), [False, False, False], []),
        ("a product that must be 1: one is the inverse of the other", [], [1], (1, 2, 3), [True, False, False], []),
        ("a square", [(2, 3)], [], (1, 2, 3), [False, False, False], [(2, 3)]),
        ("a square that must be 1", [(2, 3)], [1], (1, 2, 3), [True, True, True], []),
        ("a product tied to a factor: the other is 1", [(1, 2)], [], (1, 2, 3), [False, False, True], [(1, 2)]),
        ("or that one", [(1, 3)], [], (1, 2, 3), [False, True, False], [(1, 3)]),
        ("all tied", [(1, 2), (2, 3)], [], (1, 2, 3), [True, True, True], []),
    ],
)
def test_products(
    what: str, ties: list[Pair], pins: list[int], product: Triple, is_pinned: list[bool], tied: list[Pair]
) -> None:
    groups = solved(3, ties, pins, [product])
    assert pinned(groups, 1, 2, 3) == is_pinned, what
    assert all(groups.of[a] == groups.of[b] for a, b in tied), what


def test_a_product_of_a_product() -> None:
    """d = b * c and b = a * x: pinning x ties b to a, no more."""
    groups = solved(6, pins=[5], products=[(1, 2, 3), (2, 4, 5)])
    assert pinned(groups, 1, 2, 3, 4, 5) == [False, False, False, False, True]
    assert groups.of[2] == groups.of[4]


def test_equal_products_are_one_group() -> None:
    groups = solved(4, products=[(1, 2, 3), (4, 3, 2)])
    assert groups.of[1] == groups.of[4]


def test_what_the_algebra_pins_has_a_reason() -> None:
    groups = solved(3, ties=[(1, 2)], products=[(1, 2, 3)])
    assert [b.reason for b in groups.reasons(ids(3))] == ["because of m0"]


def test_roots_and_powers_have_whole_numbers() -> None:
    slots = Slots()
    slots.fresh(4)
    slots.relate([(-1, ids(2)), (Fraction(1, 2), ids(1))], barrier())
    slots.relate([(-1, ids(3)), (Fraction(2, 3), ids(1))], barrier())
    groups = solve(slots)
    assert groups.basis.data.dtype.kind == "i"
    logs = groups.at(np.ones(groups.basis.shape[1], np.int64))[groups.of]
    assert logs[1:].tolist() == [6, 3, 4, 1]
    assert groups.unknown(groups.at(np.arange(1.0, 4.0))).tolist() == [1.0, 2.0, 3.0]


def test_long_chains_are_no_problem() -> None:
    n = 20_000
    slots = Slots()
    slots.fresh(2 * n + 2)
    for k in range(1, n):
        slots.relate([(-1, ids(k + 1)), (1, ids(k)), (1, ids(n + 1 + k))], barrier())
    groups = solve(slots)
    assert groups.basis.nnz < 70 * n


@st.composite
def constraints(draw: st.DrawFn) -> tuple[int, list[Pair], list[int], list[Triple]]:
    count = draw(st.integers(1, 9))
    slot = st.integers(1, count)
    return (
        count,
        draw(st.lists(st.tuples(slot, slot), max_size=4)),
        draw(st.lists(slot, max_size=2)),
        draw(st.lists(st.tuples(slot, slot, slot), max_size=5)),
    )


@steady
@given(constraints(), st.integers(0, 9))
def test_every_constraint_holds(given_constraints: tuple[int, list[Pair], list[int], list[Triple]], seed: int) -> None:
    count, ties, pins, products = given_constraints
    groups = solved(count, ties, pins, products)
    s = scales(groups, seed)
    assert all(groups.of[a] == groups.of[b] for a, b in ties)
    assert all(pinned(groups, *pins))
    for c, a, b in products:
        assert s[c] == pytest.approx(s[a] * s[b], rel=1e-12), (c, a, b)
    assert groups.basis.shape[1] == degrees_of_freedom(count, ties, pins, products)
    assert np.linalg.matrix_rank(groups.basis.toarray()) == groups.basis.shape[1]


def degrees_of_freedom(count: int, ties: list[Pair], pins: list[int], products: list[Triple]) -> int:
    """How many scales the constraints leave open, from the rank of their matrix; slot 0 has no constraints."""
    rows = [*([(a, 1), (b, -1)] for a, b in ties), *([(pin, 1)] for pin in pins)]
    rows += [[(c, -1), (a, 1), (b, 1)] for c, a, b in products]
    matrix = np.zeros((len(rows) + 1, count + 1))
    for index, row in enumerate(rows):
        for slot, factor in row:
            matrix[index, slot] += factor
    return count + 1 - int(np.linalg.matrix_rank(matrix))


@steady
@given(constraints())
def test_nothing_is_pinned_without_a_reason(given_constraints: tuple[int, list[Pair], list[int], list[Triple]]) -> None:
    """Without products the pinned slots are those that ties lead to from a pin."""
    count, ties, pins, products = given_constraints
    groups = solved(count, ties, pins)
    reach = set(pins)
    while more := {x for a, b in ties for x in (a, b) if {a, b} & reach} - reach:
        reach |= more
    assert pinned(groups, *range(1, count + 1)) == [slot in reach for slot in range(1, count + 1)]
    with_products = solved(count, ties, pins, products)
    touched = reach | {slot for triple in products for slot in triple}
    while more := {x for a, b in ties for x in (a, b) if {a, b} & touched} - touched:
        touched |= more
    untouched = [slot for slot in range(1, count + 1) if slot not in touched]
    assert not any(pinned(with_products, *untouched))
    for slot in range(1, count + 1):
        assert bool(with_products.reasons(ids(slot))) == pinned(with_products, slot)[0]
