"""Extremes that follow from those of another value: which do, which must be measured, and what they are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.helpers.graphs import model, rand
from tests.helpers.ranges import checked_links

EACH = rand(1, 4, 1, 1, seed=7)
CONSTANTS: dict[str, Any] = {
    "w": rand(4, 3, 1, 1),
    "v": rand(2, 4, 1, 1, seed=1),
    "two": np.float32(2),
    "minus": np.float32(-3),
    "zero": np.float32(0),
    "none": np.array([1, 0, 2, 3], np.float32).reshape(1, 4, 1, 1),
    "each": EACH,
    "place": rand(1, 1, 5, 5),
    "low": np.float32(-0.4),
    "lows": np.array([-0.4], np.float32),
    "high": np.float32(0.3),
    "slopes": np.array([0, 0.1, 2, 1], np.float32).reshape(4, 1, 1),
    "falling": np.array([0.1, 0.1, -2, 1], np.float32).reshape(4, 1, 1),
    "gamma": np.array([1, -2, 0.5, 0], np.float32),
    "mean": rand(4, seed=8),
    "variance": np.array([1, 0.1, 3, 0.5], np.float32),
    "five": np.float32(5),
}


def linked(body: str, ends: str = "z = Conv(b, v)", rtol: float = 1e-6) -> dict[str, str]:
    """The values that follow from another, with its name; `a` is a convolution, and `b` the result of the body."""
    proto = model(f"a = Conv(x, w) {body} {ends}", {"x": ("n", 3, 5, 5)}, CONSTANTS)
    return checked_links(proto, {"x": rand(6, 3, 5, 5, seed=3) * 4}, rtol)


@pytest.mark.parametrize("op", ["Relu", "Sigmoid", "Tanh", "Softplus", "Exp", "Erf", "Identity"])
def test_functions_that_rise(op: str) -> None:
    assert linked(f"b = {op}(a)") == {"b": "a"}


@pytest.mark.parametrize("op", ["Abs", "Neg", "Sin", "LeakyRelu<alpha=-1.0>"])
def test_other_functions_are_measured(op: str) -> None:
    assert linked(f"b = {op}(a)") == {}


@pytest.mark.parametrize(
    "body",
    [
        "b = LeakyRelu<alpha=0.2>(a)",
        "b = PRelu(a, slopes)",
        "b = HardSigmoid<alpha=0.3>(a)",
        "b = HardSigmoid<alpha=-0.3>(a)",
        "b = BatchNormalization(a, gamma, mean, mean, variance)",
    ],
)
def test_functions_with_numbers_of_their_own(body: str) -> None:
    assert linked(body, rtol=1e-5) == {"b": "a"}


@pytest.mark.parametrize("body", ["b = PRelu(a, falling)", "b = HardSwish(a)", "b = Elu(a)"])
def test_functions_that_bend_down_are_measured(body: str) -> None:
    assert linked(body) == {}


@pytest.mark.parametrize(
    ("body", "links"),
    [
        ("n = Abs(a) b = Sub(n, five)", {}),  # the smallest magnitude counts
        ("n = Abs(a) b = Mul(n, minus)", {"n": "b"}),
        ("n = Abs(a) b = Add(n, two)", {"b": "n"}),
        ("n = Abs(a) b = Tanh(n)", {"b": "n"}),
        ("n = Abs(a) m = Mul(n, two) b = Sub(m, five)", {"n": "m"}),
        ("n = Relu(a) b = Sub(n, five)", {"n": "a", "b": "n"}),
        ("n = Mul(a, a) c = Sqrt(n) b = Sub(c, five)", {}),
    ],
)
def test_the_smallest_of_what_cannot_be_negative_is_not_measured(body: str, links: dict[str, str]) -> None:
    assert linked(body) == links


def test_what_follows_already_does_not_follow_from_the_product() -> None:
    assert linked("r = Relu(a) b = Mul(r, two)") == {"r": "a", "b": "r"}


@pytest.mark.parametrize("body", ["b = Clip(a, low, high)", "b = Clip(a, lows)", "b = Clip(a, , high)"])
def test_bounds(body: str) -> None:
    assert linked(body) == {"b": "a"}


@pytest.mark.parametrize("body", ["b = Add(a, each)", "b = Sub(a, two)", "b = Sub(each, a)", "b = Add(minus, a)"])
def test_sums_with_constants(body: str) -> None:
    assert linked(body) == {"b": "a"}


@pytest.mark.parametrize("body", ["b = Mul(a, two)", "b = Mul(minus, a)", "b = Div(a, minus)", "b = Mul(a, each)"])
def test_what_only_a_factor_reads_follows_from_the_product(body: str) -> None:
    assert linked(body) == {"a": "b"}


@pytest.mark.parametrize("body", ["b = Mul(a, two)", "b = Div(a, each)"])
def test_what_others_read_too_is_measured_and_the_product_follows(body: str) -> None:
    assert linked(body, "c = Conv(a, v) d = Conv(b, v) z = Add(c, d)") == {"b": "a"}


@pytest.mark.parametrize(
    "body",
    [
        "b = Mul(a, zero)",
        "b = Mul(a, none)",
        "b = Div(two, a)",
        "b = Add(a, place)",
        "b = Mul(a, a)",
        "b = Mul(a, place)",
    ],
)
def test_what_does_not_follow_is_measured(body: str) -> None:
    assert linked(body) == {}


def test_a_gate_has_one_number_for_all_channels() -> None:
    """So that x * Sigmoid(x) stays one operator."""
    assert linked("s = Sigmoid(a) b = Mul(a, s)") == {"s": "a"}


def test_inside_a_gelu_only_both_ends_are_measured() -> None:
    body = "d = Div(a, two) e = Erf(d) f = Add(e, high) g = Mul(a, f) b = Mul(g, two)"
    assert linked(body) == {"d": "a", "e": "d", "f": "e", "g": "b"}


def test_half_precision_is_measured() -> None:
    body = "h = Cast<to=10>(a) s = Sigmoid(h) r = Relu(h) t = Add(s, r) b = Cast<to=1>(t)"
    assert linked(body, rtol=float(np.finfo(np.float16).eps)) == {"r": "h"}
