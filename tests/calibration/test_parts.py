"""Values that are parts of others, or others side by side: which follow, and which must be measured."""

from __future__ import annotations

import numpy as np
import pytest

from tests.helpers.graphs import model, rand
from tests.helpers.ranges import checked_links

CONSTANTS = {
    "w": rand(4, 3, 1, 1),
    "u": rand(4, 3, 1, 1, seed=1),
    "t": rand(4, 4, 1, 1, seed=2),
    "v": rand(2, 4, 1, 1, seed=3),
    "v8": rand(2, 8, 1, 1, seed=4),
    "v2": rand(2, 2, 1, 1, seed=5),
    "sizes": np.array([2, 2], np.int64),
    "rows": np.array([2, 4], np.int64),
    "scales": np.array([1, 1, 2, 3], np.float32),
    "uneven": np.array([1, 1, 1.5, 2], np.float32),
}


def linked(body: str, side: int = 6, rtol: float = 1e-6) -> dict[str, str]:
    """The links between the results of a body, whose values `a` and `c` are convolutions of one input."""
    proto = model(f"a = Conv(x, w) c = Conv(x, u) {body}", {"x": ("n", 3, "h", "w")}, CONSTANTS)
    return checked_links(proto, {"x": rand(6, 3, side, side, seed=3) * 4}, rtol)


@pytest.mark.parametrize(
    ("body", "links"),
    [
        ("b = Concat<axis=1>(a, c) z = Conv(b, v8)", {"b": "a c"}),
        ("b = Concat<axis=2>(a, c) z = Conv(b, v)", {"b": "a c"}),
        ("b = Concat<axis=-3>(a, a) z = Conv(b, v8)", {"b": "a a"}),
        ("r = Relu(c) b = Concat<axis=1>(a, r) s = Sigmoid(b) z = Conv(s, v8)", {"r": "c", "b": "a r", "s": "b"}),
    ],
)
def test_joined(body: str, links: dict[str, str]) -> None:
    assert linked(body) == links


@pytest.mark.parametrize(
    ("body", "links"),
    [
        ("b, d = Split<axis=1>(a, sizes) y = Conv(b, v2) z = Conv(d, v2)", {"b": "a", "d": "a"}),
        ("b, d = Split<axis=2>(a, rows) y = Conv(b, v) z = Conv(d, v)", {}),
    ],
)
def test_cut_along_channels_but_not_along_positions(body: str, links: dict[str, str]) -> None:
    assert linked(body) == links


@pytest.mark.parametrize(
    ("body", "links"),
    [
        ('b = Resize<mode="nearest">(a, , scales) z = Conv(b, v)', {"b": "a"}),
        ('b = Resize<mode="linear">(a, , scales) z = Conv(b, v)', {}),
        ('b = Resize<mode="nearest">(a, , uneven) z = Conv(b, v)', {}),
    ],
)
def test_repeated_by_whole_numbers(body: str, links: dict[str, str]) -> None:
    assert linked(body) == links


@pytest.mark.parametrize(
    ("pool", "follows"),
    [
        ("kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1]", True),
        ("kernel_shape=[3,3], pads=[1,1,1,1]", True),
        ('kernel_shape=[2,2], strides=[2,2], auto_pad="SAME_UPPER"', True),
        ("kernel_shape=[2,2], strides=[2,2], ceil_mode=1", True),
        ("kernel_shape=[2,2], strides=[2,2]", False),  # of an odd size, which other inputs may have, one row is missed
        ("kernel_shape=[2,2], strides=[3,3]", False),
        ("kernel_shape=[2,2], dilations=[2,2]", False),
    ],
)
@pytest.mark.parametrize("side", [6, 7])
def test_the_largest_of_neighbours(pool: str, follows: bool, side: int) -> None:
    assert linked(f"r = Relu(a) b = MaxPool<{pool}>(r) z = Conv(b, v)", side).get("b") == ("r" if follows else None)
    assert "b" not in linked(f"b = MaxPool<{pool}>(a) z = Conv(b, v)", side)  # whose smallest is not that of a


def test_a_pool_that_fits_the_only_size() -> None:
    body = "a = Conv(x, w) r = Relu(a) b = MaxPool<kernel_shape=[2,2], strides=[2,2]>(r) z = Conv(b, v)"
    x = {"x": rand(4, 3, 6, 6)}
    assert checked_links(model(body, {"x": ("n", 3, 6, 6)}, CONSTANTS), x) == {"r": "a", "b": "r"}


def test_what_the_smallest_number_of_a_pool_decides_is_measured() -> None:
    pool = "r = Relu(a) b = MaxPool<kernel_shape=[3,3]>(r)"
    constants = CONSTANTS | {"five": np.float32(5)}
    proto = model(f"a = Conv(x, w) {pool} d = Sub(b, five) z = Conv(d, v)", {"x": ("n", 3, 6, 6)}, constants)
    assert checked_links(proto, {"x": rand(4, 3, 6, 6)}) == {"r": "a", "b": "r"}


@pytest.mark.parametrize(
    ("body", "links"),
    [
        ("q = GlobalAveragePool(c) g = Tanh(q) b = Mul(a, g) z = Conv(b, v)", {"g": "q", "b": "a g"}),
        ("q = GlobalAveragePool(c) b = Add(q, a) z = Conv(b, v)", {"b": "a q"}),
        ("p = Abs(a) q = GlobalAveragePool(c) g = Sigmoid(q) b = Mul(p, g) z = Conv(b, v)", {"b": "p g"}),
        ("p = Abs(a) q = GlobalAveragePool(c) b = Mul(p, q) z = Conv(b, v)", {}),  # which may turn what is loose
        ("q = GlobalAveragePool(c) b = Sub(a, q) z = Conv(b, v)", {}),
        ("b = Mul(a, c) z = Conv(b, v)", {}),
        ("q = AveragePool<kernel_shape=[6,1]>(c) b = Mul(a, q) z = Conv(b, v)", {}),  # it differs from place to place
    ],
)
def test_one_number_for_each_channel(body: str, links: dict[str, str]) -> None:
    found = linked(body, rtol=1e-5)
    assert {name: source for name, source in found.items() if name == "b"} == {
        name: source for name, source in links.items() if name == "b"
    }
