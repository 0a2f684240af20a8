"""Attention as one operator."""

from __future__ import annotations

import numpy as np
import pytest

from tests.helpers.graphs import model, rand
from tests.helpers.law_checks import RUNTIME, holds, refused
from tests.helpers.runtimes import recent

pytestmark = pytest.mark.skipif(RUNTIME < (1, 23), reason="ONNX Runtime has no Attention yet")

WEIGHTS = {"wq": rand(3, 8), "wk": rand(3, 8, seed=1), "wv": rand(3, 8, seed=2), "w": rand(8, 2, seed=3)}
LAYERS = "q = MatMul(x, wq) \n k = MatMul(x, wk) \n v = MatMul(x, wv) \n"
HEADS = "q_num_heads=2, kv_num_heads=2"


def test_scales_of_queries_and_keys_cancel_and_those_of_values_pass() -> None:
    body = LAYERS + f"o = Attention<{HEADS}>(q, k, v) \n z = MatMul(o, w)"
    checked = holds(model(body, {"x": (2, 5, 3)}, WEIGHTS, opset=23), {"q": 8, "k": 8, "v": 8, "o": 8})
    of_slot, ids = checked.of_slot, checked.trace.ids
    np.testing.assert_array_equal(of_slot[ids["q"]] * of_slot[ids["k"]], 1)


def test_heads_on_an_axis_of_their_own() -> None:
    apart = "".join(
        f"{name}r = Reshape({name}, heads) \n {name}h = Transpose<perm=[0,2,1,3]>({name}r) \n" for name in "qkv"
    )
    body = LAYERS + apart + "o = Attention(qh, kh, vh) \n t = Transpose<perm=[0,2,1,3]>(o) \n r = Reshape(t, flat)"
    constants = WEIGHTS | {"heads": [0, 0, 2, 4], "flat": [0, 0, -1]}
    proto = model(body + "\n z = MatMul(r, w)", {"x": (2, 5, 3)}, constants, opset=23)
    holds(proto, {"q": 8, "k": 8, "v": 8, "r": 8})


@pytest.mark.parametrize("held", [1, 2])
def test_keys_and_values_of_fewer_heads(held: int) -> None:
    """A head of theirs serves several of the queries, whichever these are."""
    weights = WEIGHTS | {"wk": rand(3, 2 * held, seed=1), "wv": rand(3, 2 * held, seed=2)}
    body = LAYERS + f"o = Attention<q_num_heads=4, kv_num_heads={held}>(q, k, v) \n z = MatMul(o, w)"
    holds(model(body, {"x": (2, 5, 3)}, weights, opset=23), {"q": 2, "k": 2, "v": 2, "o": 2})


def test_a_mask_keeps_its_scale() -> None:
    """It is a value of its own, of one sample, whose layers read another."""
    layers = LAYERS.replace("MatMul(x", "MatMul(u")
    body = f"u = Unsqueeze(x, zero) \n {layers} m = MatMul(x, wm) \n o = Attention<{HEADS}, softcap=2.0>(q, k, v, m)"
    weights = WEIGHTS | {"wm": rand(3, 5, seed=4), "zero": [0]}
    proto = model(body + "\n z = MatMul(o, w)", {"x": (5, 3)}, weights, opset=23)
    checked = holds(proto, {"v": 8, "m": 0, "q": 8}, whole=True)
    assert checked.reasons("m") == ["it is added to products of which a softmax is taken"]


@recent
def test_a_past_is_refused() -> None:
    body = LAYERS + f"o, keys, values = Attention<{HEADS}>(q, k, v) \n z = MatMul(o, w)"
    proto = model(body, {"x": (2, 5, 3)}, WEIGHTS, outputs=("z", "keys"), opset=23)
    refused(proto, "it joins keys and values with those of the past, or gives them out", "q")


def test_three_axes_without_the_number_of_heads_are_refused() -> None:
    from tests.helpers.scales_check import traced

    found = traced(model(LAYERS + "z = Attention(q, k, v)", {"x": (2, 5, 3)}, WEIGHTS, opset=23))
    assert found.groups.reasons(found.ids["q"])[0].reason == "the shapes of what it multiplies are not known"
