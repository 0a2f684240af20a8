"""Connected components, beside SciPy's."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from onnxnorm.scaling.components import components

NONE = np.empty((2, 0), np.int64)


def expected(count: int, edges: NDArray[np.int64]) -> NDArray[np.int32]:
    matrix = coo_array((np.ones(edges.shape[1], np.int8), tuple(edges)), shape=(count, count))
    return connected_components(matrix, directed=False)[1]


def test_without_edges_each_is_alone() -> None:
    assert components(0, NONE).tolist() == []
    assert components(3, NONE).tolist() == [0, 1, 2]


def test_numbers_follow_the_smallest_vertices() -> None:
    assert components(6, np.array([[5, 4, 3, 3], [1, 2, 3, 4]])).tolist() == [0, 1, 2, 2, 2, 1]


@pytest.mark.parametrize("seed", range(5))
def test_as_scipy_finds_them(seed: int) -> None:
    generator = np.random.default_rng(seed)
    for _ in range(100):
        count, number = int(generator.integers(1, 60)), int(generator.integers(0, 80))
        edges = generator.integers(0, count, (2, number))
        assert np.array_equal(components(count, edges), expected(count, edges))


@pytest.mark.parametrize("shape", ["chain", "shuffled", "star", "stars", "comb"])
def test_shapes_that_take_many_rounds(shape: str) -> None:
    count = 2000
    place = np.random.default_rng(0).permutation(count)
    chain = np.stack([np.arange(count - 1), np.arange(1, count)])
    edges = {
        "chain": chain,
        "shuffled": place[chain],
        "star": np.stack([np.full(count - 1, count - 1), np.arange(count - 1)]),
        "stars": np.stack([count - 1 - np.arange(count - 50) % 50, np.arange(count - 50)]),
        "comb": np.concatenate(
            [chain[:, : count // 2], np.stack([np.arange(count // 2), np.arange(count // 2) * 2])], 1
        ),
    }[shape]
    assert np.array_equal(components(count, edges), expected(count, edges))
    assert np.array_equal(components(count, edges[::-1]), expected(count, edges))
