"""Heads that read as many rows as are found in a sample, such as the regions of a detector."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

import onnxnorm
from onnxnorm.errors import BatchWarning
from onnxnorm.model.files import Model
from onnxnorm.model.shapes import ROWS, read_graph
from tests.helpers.graphs import Array, model, rand
from tests.helpers.oracle import activations

X = np.abs(rand(6, 3, 8, 8))
X[2] = 0  # nothing is found here
HEAD = """
a = Conv(x, w) r = Relu(a) s = ReduceSum<keepdims=0>(x, one) g = Greater(s, limit) n = NonZero(g)
rows = Transpose<perm=[1, 0]>(n) points = Slice(rows, one, three, one) f = Cast<to=1>(points)
far = Add(f, two) boxes = Concat<axis=1>(f, far) batch = Slice(rows, zero, one, one) which = Squeeze(batch, one)
q = RoiAlign<output_height=3, output_width=3>(r, boxes, which)
b = Conv(q, v) t = Relu(b) p = GlobalAveragePool(t) h = Flatten(p) z = Gemm<transB=1>(h, k)
"""


def head(body: str = HEAD, **constants: object) -> onnx.ModelProto:
    """A head that sees 3x3 pixels around every point that is bright enough."""
    numbers = {"one": [1], "three": [3], "zero": [0], "limit": np.float32(4), "two": np.float32(2)}
    weights = {"w": np.abs(rand(4, 3, 1, 1)), "v": rand(6, 4, 3, 3, seed=1), "k": rand(2, 6)}
    return model(body, {"x": ("N", 3, 8, 8)}, {**numbers, **weights, **constants}, opset=18)


def mean_of_rows(proto: onnx.ModelProto, value: str) -> Array:
    """The mean of each channel over all rows of all samples, each run by itself."""
    rows = [activations(proto, {"x": X[i : i + 1]}, [value])[value] for i in range(len(X))]
    means: Array = np.concatenate(rows).mean(axis=(0, 2, 3))
    return means


def test_layers_behind_are_measured_and_normalized() -> None:
    proto = head()
    with pytest.warns(BatchWarning, match="as many rows as NonZero node '.*' finds .* samples are run one at a time"):
        done = onnxnorm.normalize(proto, X, provider="cpu")
    assert done.plan.free == 10
    assert done.reach.normalized == done.reach.live == 10 - done.plan.dead
    assert done.verification is not None
    assert done.verification.same
    means = mean_of_rows(done.model, "t")
    assert np.abs(means[means > 0] - 1).max() < 1e-5


def test_a_sample_without_rows_is_not_counted() -> None:
    with pytest.warns(BatchWarning):
        statistics = onnxnorm.calibrate(head(), X, provider="cpu")
    images = {value.name: moments.images for value, moments in statistics.values.items()}
    assert images == {"r": 6, "t": 5}


def test_the_number_of_rows_is_open() -> None:
    graph = read_graph(Model.open(head()), {"x": (1, 3, 8, 8)})
    assert graph.shapes["t"] == (ROWS, 6, 1, 1)
    assert graph.varying["t"] == (0,)
    assert "t" in graph.claimed  # so the probe asks the runtime
    assert "r" not in graph.claimed


@pytest.mark.parametrize("last", ["z = Reshape(h, fixed)", "z = MatMul(square, h)"])
def test_where_no_number_fits_the_shape_stays_unknown(last: str) -> None:
    body = HEAD.replace("z = Gemm<transB=1>(h, k)", last)
    graph = read_graph(Model.open(head(body, fixed=[7, 6], square=rand(7, 7))), {"x": (1, 3, 8, 8)})
    assert "t" not in graph.shapes


def test_rows_that_no_layer_reads_allow_any_batch() -> None:
    body = HEAD.split("q = RoiAlign", maxsplit=1)[0] + "z = Identity(boxes) y = Identity(r)"
    proto = head(body)
    assert onnxnorm.calibrate(proto, X, provider="cpu").images == 6  # a warning would be an error
