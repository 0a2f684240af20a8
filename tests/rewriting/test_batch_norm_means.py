"""Means implied by BatchNormalization: the statistic bn, which needs no images."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from scipy.integrate import quad
from scipy.stats import norm

import onnxnorm
from onnxnorm.model.files import Model
from onnxnorm.rewriting import rewrite_model
from onnxnorm.rewriting.batch_norm_means import clipped
from onnxnorm.rewriting.options import ScaleOptions
from tests.helpers.graphs import model as network


@pytest.mark.parametrize(("low", "high"), [(0.0, np.inf), (0.0, 6.0), (-np.inf, np.inf), (-1.0, 2.0), (-np.inf, 0.0)])
def test_moments_of_a_clipped_normal(low: float, high: float) -> None:
    for mean, deviation in ((0.0, 1.0), (2.0, 0.5), (-1.5, 1.0), (3.0, 4.0)):

        def expected(power: int, m: float = mean, s: float = deviation) -> float:
            return float(
                quad(lambda x: np.clip(x, low, high) ** power * norm.pdf(x, m, s), m - 12 * s, m + 12 * s, limit=200)[0]
            )

        found, variance = clipped(np.asarray([mean]), np.asarray([deviation**2]), low, high)
        assert found[0] == pytest.approx(expected(1), abs=1e-6)
        assert variance[0] == pytest.approx(expected(2) - expected(1) ** 2, abs=1e-6)


def test_moments_without_variance() -> None:
    mean, variance = clipped(np.asarray([-1.0, 0.0, 2.0, 9.0]), np.zeros(4), 0.0, 6.0)
    assert mean.tolist() == [0.0, 0.0, 2.0, 6.0]
    assert variance.tolist() == [0.0] * 4


def normalized(body: str) -> onnx.ModelProto:
    """1x1 convolutions of normal inputs, and BatchNormalizations that hold the true moments of what they read."""
    random = np.random.default_rng(0)
    constants: dict[str, Any] = {}
    for name in ("p", "q"):
        w = random.standard_normal((16, 32)).astype(np.float32)
        w[:, slice(16, 32) if name == "p" else slice(0, 16)] = 0  # so that the branches are independent
        constants[f"w{name}"] = w.reshape(16, 32, 1, 1)
        constants[f"v{name}"] = (w**2).sum(axis=1)
        constants[f"m{name}"] = np.zeros(16, np.float32)
        constants[f"g{name}"] = random.uniform(-2, 2, 16).astype(np.float32)
        constants[f"b{name}"] = random.uniform(-2, 2, 16).astype(np.float32)
    constants["wz"] = random.standard_normal((2, 16, 1, 1)).astype(np.float32)
    constants["zero"], constants["six"] = np.float32(0), np.float32(1.5)
    used = {name: value for name, value in constants.items() if f"{name}," in body or f"{name})" in body}
    return network(body, {"x": ("N", 32, 16, 16)}, used)


P = "a = Conv(x, wp)   n = BatchNormalization(a, gp, bp, mp, vp)   "
Q = "c = Conv(x, wq)   k = BatchNormalization(c, gq, bq, mq, vq)   "


@pytest.mark.parametrize(
    ("body", "values"),
    [
        (P + "r = Relu(n)   z = Conv(r, wz)", "r"),
        (P + "r = LeakyRelu<alpha=0.2>(n)   z = Conv(r, wz)", "r"),
        (P + "r = Clip(n, zero, six)   z = Conv(r, wz)", "r"),
        (P + "z = Conv(n, wz)", "n"),
        (P + Q + "s = Add(n, k)   r = Relu(s)   z = Conv(r, wz)", "r r"),
        (P + Q + "t = Relu(k)   s = Add(n, t)   r = Relu(s)   z = Conv(r, wz)", "r t"),
    ],
)  # fmt: skip
def test_means_implied_by_batchnormalization(body: str, values: str) -> None:
    proto = normalized(body)
    x = np.random.default_rng(1).standard_normal((40, 32, 16, 16)).astype(np.float32)
    implied = rewrite_model(Model.open(proto), None, ScaleOptions(statistic="bn")).scales.layers
    measured = rewrite_model(Model.open(proto), onnxnorm.calibrate(proto, x)).scales.layers
    assert [layer.layer.site.value for layer in implied[:-1]] == values.split()
    for a, b in zip(implied[:-1], measured[:-1], strict=True):
        # A sum with a rectified value is taken as normal, which it is not quite.
        np.testing.assert_allclose(a.statistic, b.statistic, rtol=0.02, atol=0.04 if values == "r t" else 0.02)
    assert np.isnan(implied[-1].statistic).all()


def test_the_sum_of_a_value_and_itself_is_not_taken_as_independent() -> None:
    proto = normalized(P + "s = Add(n, n)   r = Relu(s)   z = Conv(r, wz)")
    with pytest.raises(onnxnorm.StatisticsError, match="not known of any filter"):
        rewrite_model(Model.open(proto), None, ScaleOptions(statistic="bn"))
