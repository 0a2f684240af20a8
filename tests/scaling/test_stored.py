"""Constants behind nodes that an exporter left: the stored one is edited, if nothing else reads what lies between."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.helpers.graphs import between, model, rand
from tests.helpers.law_checks import holds
from tests.helpers.scales_check import check_scales

W = rand(5, 4, 1, 1)

CHAINS: dict[str, tuple[str, dict[str, Any]]] = {
    "a Transpose of the axes": ("k = Transpose<perm=[3,2,0,1]>(w)", {"w": W.transpose(2, 3, 1, 0).copy()}),
    "a Transpose without an order": ("k = Transpose(w)", {"w": W.transpose().copy()}),
    "a Reshape": ("k = Reshape(w, to)", {"w": W.reshape(20), "to": [5, 4, 1, 1]}),
    "a Reshape of the filters": ("k = Reshape(w, to)", {"w": W.reshape(5, 4), "to": [0, 4, 1, -1]}),
    "an Unsqueeze": ("k = Unsqueeze(w, axes)", {"w": W.reshape(5, 4), "axes": [2, 3]}),
    "a Squeeze": ("k = Squeeze(w, axes)", {"w": W.reshape(5, 1, 4, 1, 1), "axes": [1]}),
    "a Cast and a Transpose": (
        "c = Cast<to=1>(w) \n k = Transpose<perm=[1,0,2,3]>(c)",
        {"w": W.swapaxes(0, 1).astype(np.float64)},
    ),
    "a Neg": ("k = Neg(w)", {"w": W}),
    "a CastLike": ("k = CastLike(w, like)", {"w": W.astype(np.float64), "like": np.float32(0)}),
    "a product with a number": ("k = Mul(n, w)", {"w": W, "n": np.float32(3)}),
    "a product with a vector": ("k = Mul(w, n)", {"w": W, "n": rand(1, 4, 1, 1)}),
    "a quotient": ("k = Div(w, n)", {"w": W, "n": np.float32(3)}),
    "an Identity of an Identity": ("i = Identity(w) \n k = Identity(i)", {"w": W}),
}

REFUSED: dict[str, tuple[str, dict[str, Any]]] = {
    "it is computed otherwise": ("k = Exp(w)", {"w": W}),
    "the number of a quotient is divided": ("k = Div(n, w)", {"w": W, "n": np.float32(3)}),
    "a sum": ("k = Add(w, n)", {"w": W, "n": np.float32(3)}),
    "a Reshape that repeats": ("k = Expand(w, to)", {"w": W[:, :1], "to": [5, 4, 1, 1]}),
}


@pytest.mark.parametrize("name", CHAINS)
def test_it_is_followed(name: str) -> None:
    made, constants = CHAINS[name]
    holds(between(f"{made} \n b = Conv(a, k)", constants=constants), {"a": 4, "b": 5})


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_not_followed(name: str) -> None:
    made, constants = REFUSED[name]
    holds(between(f"{made} \n b = Conv(a, k)", constants=constants), {"a": 1, "b": 1})


def test_what_lies_between_is_read_by_another_node() -> None:
    body = "k = Identity(w) \n c = Conv(a, k) \n t = ReduceSum(k) \n b = Mul(c, t)"
    holds(between(body, constants={"w": W}), {"a": 1})


def test_what_lies_between_is_a_graph_output() -> None:
    proto = model("k = Identity(w) z = Conv(x, k)", {"x": ("n", 4, 3, 3)}, {"w": W}, ("z", "k"))
    checked = check_scales(proto, {"x": rand(2, 4, 3, 3)})
    assert checked.pinned("z")


def test_a_stored_weight_that_two_layers_read_by_different_ways_is_cloned() -> None:
    """One convolution reads the weight itself, the other its Transpose: each gets its own version."""
    square = rand(4, 4, 1, 1)
    body = "k = Transpose<perm=[1,0,2,3]>(w) \n c = Conv(a, w) \n r = Relu(c) \n b = Conv(r, k)"
    checked = holds(between(body, constants={"w": square}), {"a": 4, "r": 4, "b": 4})
    names = [tensor.name for tensor in checked.rewritten.proto.graph.initializer]
    assert sum(name.startswith("w_onnxnorm") for name in names) == 1


def test_a_quantized_weight_in_blocks_pins() -> None:
    constants = {"w": np.arange(16, dtype=np.int8).reshape(4, 4), "s": rand(4, 2) ** 2}
    body = (
        "m = ReduceMean(a, axes) \n k = DequantizeLinear<axis=1, block_size=2>(w, s) \n g = MatMul(m, k) \n b = Relu(g)"
    )
    holds(between(body, (2, 3, 6, 4), {**constants, "axes": [1]}), {"a": 1, "b": 1})
