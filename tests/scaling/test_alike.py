"""Components of equations that look alike are found, and only those; and so planning takes time in proportion."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from onnxnorm.model.files import Model
from onnxnorm.model.graph import input_specs
from onnxnorm.model.shapes import read_graph, sample_shapes
from onnxnorm.scaling import choose_openings, elimination, find_layers, trace
from onnxnorm.scaling.alike import Likeness, find_likeness
from onnxnorm.scaling.elimination import Number, Row, System
from onnxnorm.scaling.groups import solve
from onnxnorm.scaling.slots import Barrier, Slots
from tools.benchmarks.graphs import network


def likeness(count: int, *equations: tuple[int, tuple[int, ...]], fixed: tuple[int, ...] = ()) -> Likeness:
    """Of variables and equations, each a number and its variables."""
    mask = np.isin(np.arange(count), fixed)
    numbers = sorted({number for number, _ in equations})
    each = [np.asarray([row for own, row in equations if own == number], np.int64).T for number in numbers]
    bundles = [(rows, np.full(rows.shape[1], number)) for number, rows in zip(numbers, each, strict=True)]
    return find_likeness(mask, bundles)


def alike(found: Likeness) -> list[tuple[list[int], list[int]]]:
    return [(one.tolist(), other.tolist()) for one, other in found.copies()]


def test_the_same_equations_between_other_variables() -> None:
    found = likeness(6, (0, (0, 2)), (0, (1, 3)), (1, (2, 4)), (1, (3, 5)))
    assert alike(found) == [([0, 2, 4], [1, 3, 5])]
    assert found.chosen.tolist() == [True, False] * 3


@pytest.mark.parametrize(
    "equations",
    [
        ((0, (0, 2)), (0, (1, 3)), (1, (2, 4)), (2, (3, 5))),
        ((0, (0, 2)), (0, (1, 3)), (1, (2, 4)), (1, (5, 3))),
        ((0, (0, 2)), (0, (1, 3)), (1, (2, 4)), (1, (1, 5))),
        ((0, (0, 2)), (0, (1, 3)), (1, (2, 4)), (1, (3, 5)), (1, (3, 5))),
        ((0, (0, 2)), (0, (1, 3)), (0, (2, 4)), (0, (3, 6))),
    ],
    ids=["another kind", "the other way round", "at another place", "once more", "a fixed one"],
)
def test_what_differs_is_not_alike(equations: tuple[tuple[int, tuple[int, ...]], ...]) -> None:
    assert alike(likeness(7, *equations, fixed=(6,))) == []


def test_fixed_variables_connect_nothing_and_look_alike() -> None:
    assert alike(likeness(4, (0, (0, 2)), (0, (1, 3)), fixed=(0, 1))) == [([2], [3])]
    assert alike(likeness(4, (0, (0, 2)), (0, (0, 3)), fixed=(0,))) == [([2], [3])]
    assert alike(likeness(4, (0, (0, 2)), (0, (0, 3)))) == []
    assert alike(likeness(2, (0, (0, 1)), fixed=(0, 1))) == []


def test_nothing_at_all() -> None:
    assert alike(find_likeness(np.zeros(0, np.bool_), [])) == []
    assert alike(find_likeness(np.zeros(3, np.bool_), [])) == []


def test_channels_are_solved_like_the_first() -> None:
    """c = a + b, d = c + a and e = 2 d, and e of the first channel alone is pinned in the end."""
    slots, channels = Slots(), 4
    a, b, c, d, e = (slots.fresh(channels) for _ in range(5))
    for factors, out in (((a, b), c), ((c, a), d), ((d, d), e)):
        slots.relate([(-1, out), *((1, one) for one in factors)], Barrier("n", "Mul", "v", "a product"))
    slots.pin(e[:1], Barrier("n", "op", "v", "pinned"))
    groups = solve(slots)
    logs = np.random.default_rng(0).normal(size=groups.basis.shape[1])
    at_a, at_b, at_c, at_d, at_e = (groups.at(logs)[groups.of[one]] for one in (a, b, c, d, e))
    np.testing.assert_allclose(at_c, at_a + at_b, atol=1e-12)
    np.testing.assert_allclose(at_d, at_c + at_a, atol=1e-12)
    np.testing.assert_allclose(at_e, 2 * at_d, atol=1e-12)
    assert groups.is_pinned(e).tolist() == [True, False, False, False]
    assert groups.basis.shape[1] == 1 + 1 + 3 * 2  # one is that of slot 0


class Counting:
    """Counts the terms that eliminations add and keep."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.terms = 0
        add, determine = elimination._add, System.determine

        def counted_add(row: Row, other: Mapping[int, Number], factor: Number) -> list[int]:
            self.terms += len(other)
            return add(row, other, factor)

        def counted_determine(system: System, unknown: int, row: Row) -> list[int]:
            self.terms += len(row)
            return determine(system, unknown, row)

        monkeypatch.setattr(elimination, "_add", counted_add)
        monkeypatch.setattr(System, "determine", counted_determine)

    def of_choice(self, family: str, nodes: int, *, thorough: bool) -> int:
        """For choosing where a network is opened."""
        model = Model.open(network(family, nodes))
        graph = read_graph(model, sample_shapes(input_specs(model), (16, 16)))
        layers = find_layers(trace(graph), "conv")
        before = self.terms
        choose_openings(graph, layers, thorough=thorough)
        return self.terms - before


@pytest.mark.parametrize("thorough", [False, True])
@pytest.mark.parametrize("family", ["gated", "silu", "residual"])
def test_twice_the_nodes_take_twice_the_terms(monkeypatch: pytest.MonkeyPatch, family: str, thorough: bool) -> None:
    """Also where each product of scales hangs on the one before it, so that the last depends on all filters."""
    counting = Counting(monkeypatch)
    small, large = (counting.of_choice(family, nodes, thorough=thorough) for nodes in (160, 320))
    assert small < large < 2.2 * small
