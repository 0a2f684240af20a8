"""Activations whose batch axis is not the first are measured sample by sample; what holds no samples stops nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

import onnxnorm
from onnxnorm.errors import ModelError
from onnxnorm.runtime import Runtime
from onnxnorm.statistics import Value
from tests.helpers.graphs import model, rand

# A convolution, a Transpose that moves the batch, a ReLU, and back: (body, constants, input, order of axes).
CASES: dict[str, tuple[str, dict[str, Any], tuple[int | str, ...], tuple[int, ...]]] = {
    "channels first": (
        "c = Conv(x, w) t = Transpose<perm=[1,0,2,3]>(c) r = Relu(t) u = Transpose<perm=[1,0,2,3]>(r) z = Conv(u, v)",
        {"w": rand(5, 3, 3, 3), "v": rand(2, 5, 1, 1)},
        ("n", 3, 8, 8),
        (1, 0, 2, 3),
    ),
    "time first": (
        "c = Conv(x, w) t = Transpose<perm=[2,0,1]>(c) r = Relu(t) z = MatMul(r, v)",
        {"w": rand(5, 3, 3), "v": rand(5, 2)},
        ("n", 3, 20),
        (2, 0, 1),
    ),
    "time first, a fixed batch": (
        "c = Conv(x, w) t = Transpose<perm=[2,0,1]>(c) r = Relu(t) z = MatMul(r, v)",
        {"w": rand(5, 3, 3), "v": rand(5, 2)},
        (4, 3, 20),
        (2, 0, 1),
    ),
    "all axes reversed": (
        "c = Conv(x, w) t = Transpose(c) r = Relu(t) u = Transpose(r) z = Conv(u, v)",
        {"w": rand(5, 3, 3, 3), "v": rand(2, 5, 1, 1)},
        ("n", 3, 8, 8),
        (3, 2, 1, 0),
    ),
}


def activations(proto: onnx.ModelProto, x: np.ndarray, order: tuple[int, ...]) -> np.ndarray:
    """The activation `r` of every sample, `(samples, channels, positions)`, run by run as the model's batch demands."""
    seen = onnx.ModelProto()
    seen.CopyFrom(proto)
    seen.graph.output.append(onnx.helper.make_tensor_value_info("r", onnx.TensorProto.FLOAT, None))
    size = proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value or 1
    session, parts = Runtime("cpu", 1).session(seen), []
    for start in range(0, len(x), size):
        block = x[start : start + size]
        padded = np.concatenate([block, np.repeat(block[-1:], size - len(block), axis=0)])
        parts.append(session.run({"x": padded})["r"].transpose(np.argsort(order))[: len(block)])
    whole = np.concatenate(parts).astype(np.float64)
    return whole.reshape(*whole.shape[:2], -1)


@pytest.mark.parametrize("name", CASES)
def test_means_and_percentiles(name: str) -> None:
    body, constants, shape, order = CASES[name]
    proto = model(body, {"x": shape}, constants)
    x = rand(10, *[int(size) for size in shape[1:]])
    statistics = onnxnorm.calibrate(
        proto, x, provider="cpu", batch_size=None if shape[0] == 4 else 3, measure=("rms", "p99.9")
    )
    expected = activations(proto, x, order)
    mean = statistics.values[Value("r", "mean")]
    assert mean.images == 10
    np.testing.assert_allclose(mean.mean, expected.mean(axis=(0, 2)), rtol=1e-5)
    np.testing.assert_allclose(np.asarray(mean.largest), expected.max(axis=(0, 2)), rtol=1e-6)
    np.testing.assert_allclose(mean.standard_error, expected.mean(axis=2).std(axis=0, ddof=1) / 10**0.5, rtol=1e-4)
    assert mean.histogram is not None
    assert mean.histogram.positions == expected.shape[0] * expected.shape[2]
    square = statistics.values[Value("r", "mean_square")]
    np.testing.assert_allclose(square.mean, (expected**2).mean(axis=(0, 2)), rtol=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_the_rewritten_network_has_means_of_one(name: str) -> None:
    body, constants, shape, order = CASES[name]
    proto = model(body, {"x": shape}, constants)
    x = rand(8, *[int(size) for size in shape[1:]])
    done = onnxnorm.rewrite(proto, onnxnorm.calibrate(proto, x, provider="cpu"), provider="cpu")
    assert done.verification is not None
    assert done.verification.same
    np.testing.assert_allclose(activations(done.model, x, order).mean(axis=(0, 2)), 1, rtol=1e-5)


def test_a_pinned_layer_whose_rows_are_no_samples_stops_nothing() -> None:
    """A convolution that sees the whole batch as one image: its filters are pinned, the others normalized."""
    body = """
    a = Conv<pads=[1,1,1,1]>(x, w, b) r = Relu(a)
    f = Reshape(r, one) c = Conv<group=2>(f, v) t = Sigmoid(c) z = Reshape(t, two)
    """
    constants = {
        **{"w": rand(4, 3, 3, 3), "b": rand(4, seed=1), "v": rand(6, 4, 1, 1, seed=2)},
        **{"one": [1, 8, 6, 6], "two": [2, 3, 6, 6]},
    }
    proto = model(body, {"x": (2, 3, 6, 6)}, constants)
    statistics = onnxnorm.calibrate(proto, rand(6, 3, 6, 6), provider="cpu")
    done = onnxnorm.rewrite(proto, statistics, provider="cpu")
    assert [layer.layer.output for layer in done.rewriting.scales.layers if not layer.pinned.all()] == ["a"]
    assert (done.plan.free, done.plan.pinned) == (4, 6)
    assert done.reach.normalized == 4


def test_a_graph_made_for_one_sample_at_a_time_says_so() -> None:
    """The batch axis is open outside, and a Reshape inside has the batch 1 of the exporter's example."""
    body = "a = Conv(x, w) r = Relu(a) f = Reshape(r, one) z = Conv(f, v)"
    constants = {"w": rand(4, 3, 3, 3), "v": rand(2, 4, 1, 1), "one": [1, 4, 6, 6]}
    proto = model(body, {"x": ("n", 3, 8, 8)}, constants)
    with pytest.raises(ModelError, match="it runs with one sample at a time: give --batch-size 1"):
        onnxnorm.calibrate(proto, rand(6, 3, 8, 8), provider="cpu", batch_size=2)
    assert onnxnorm.calibrate(proto, rand(6, 3, 8, 8), provider="cpu", batch_size=1).images == 6
    broken = model(body, {"x": ("n", 3, 8, 8)}, {**constants, "one": [7, 4, 6, 6]})
    with pytest.raises(ModelError, match="fails on inputs x") as raised:
        onnxnorm.calibrate(broken, rand(6, 3, 8, 8), provider="cpu", batch_size=2)
    assert "--batch-size 1" not in str(raised.value)
