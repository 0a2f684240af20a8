"""Extremes that follow from those of another value: which do, which must be measured, and what they are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import onnxnorm
from onnxnorm.calibration.links import find_links
from onnxnorm.model.files import Model
from onnxnorm.model.shapes import read_graph
from onnxnorm.scaling import trace
from onnxnorm.scaling.channels import channel_axes
from tests.helpers import oracle
from tests.helpers.graphs import model, rand

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
    "high": np.float32(0.3),
}


def linked(body: str, ends: str = "z = Conv(b, v)", rtol: float = 1e-6) -> dict[str, str]:
    """The values that follow from another, with its name; `a` is a convolution, and `b` the result of the body."""
    proto = model(f"a = Conv(x, w) {body} {ends}", {"x": ("n", 3, 5, 5)}, CONSTANTS)
    traced = trace(read_graph(Model.open(proto), {"x": (1, 3, 5, 5)}))
    axes = channel_axes(traced)
    links = {name: ", ".join(link.sources) for name, link in find_links(traced, axes).items()}
    data = rand(6, 3, 5, 5, seed=3) * 4
    found = onnxnorm.calibrate(proto, data, measure=("range",), provider="cpu", batch_size=3).peaks
    raw = oracle.activations(proto, {"x": data}, [name for name in axes if name != "x"])
    for name, values in raw.items():
        others = tuple(axis for axis in range(4) if axis not in axes[name])
        want = np.abs(values.astype(np.float64)).max(axis=others).reshape(-1)
        np.testing.assert_allclose(np.asarray(found[name].largest), want, rtol=rtol, atol=1e-6, err_msg=name)
    return links


@pytest.mark.parametrize("op", ["Relu", "Sigmoid", "Tanh", "Softplus", "Exp", "Erf", "Identity"])
def test_functions_that_rise(op: str) -> None:
    assert linked(f"b = {op}(a)") == {"b": "a"}


@pytest.mark.parametrize("op", ["Abs", "Neg", "Sin", "LeakyRelu<alpha=-1.0>"])
def test_other_functions_are_measured(op: str) -> None:
    assert linked(f"b = {op}(a)") == {}


@pytest.mark.parametrize("body", ["b = Clip(a, low, high)", "b = Clip(a, low)", "b = Clip(a, , high)"])
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
