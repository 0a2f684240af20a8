"""The loud networks of the tables: norms that are written out compute the same, and constants get louder."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from onnxnorm.runtime import Runtime
from tests.helpers.graphs import model, rand
from tools.networks.loud import Loud, decomposed, made_loud


def normed() -> onnx.ModelProto:
    body = "a = MatMul(x, w) n = LayerNormalization<axis=-1, epsilon=0.001>(a, g, k) z = MatMul(n, v)"
    constants = {"w": rand(5, 8), "g": rand(8, seed=1), "k": rand(8, seed=2), "v": rand(8, 3, seed=3)}
    return model(body, {"x": ("N", 4, 5)}, constants, opset=17)


def test_a_norm_that_is_written_out_is_the_same() -> None:
    given = {"x": rand(2, 4, 5, seed=4)}
    other = decomposed(normed())
    assert not any(node.op_type == "LayerNormalization" for node in other.graph.node)
    before, after = (Runtime("cpu").session(proto).run(given)["z"] for proto in (normed(), other))
    np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-5)


def test_constants_get_louder_by_name() -> None:
    made = made_loud(normed(), Loud("^w$", 1000.0))
    values = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in made.graph.initializer}
    np.testing.assert_array_equal(values["w"], rand(5, 8) * np.float32(1000))
    np.testing.assert_array_equal(values["v"], rand(8, 3, seed=3))
    with pytest.raises(ValueError, match="export the network again"):
        made_loud(normed(), Loud("nothing", 2.0))
