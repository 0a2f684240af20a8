"""Operators that normalize."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.helpers.graphs import between, rand
from tests.helpers.law_checks import holds, refused

EPS = float(np.finfo(np.float32).eps)
STATISTIC = "it divides by a statistic of its input with an epsilon"


def parameters(channels: int = 4, dtype: Any = np.float32) -> dict[str, Any]:
    return {
        "g": rand(channels, seed=1, dtype=dtype),
        "s": rand(channels, seed=2, dtype=dtype),
        "m": rand(channels, seed=3, dtype=dtype),
        "v": np.abs(rand(channels, seed=4, dtype=dtype)) + dtype(0.1),
    }


@pytest.mark.parametrize("opset", [7, 8, 9, 13, 14, 15, 21])
@pytest.mark.parametrize("shape", [(2, 4, 5, 5), (2, 4), (2, 4, 6), (2, 4, 2, 3, 2)], ids=str)
@pytest.mark.parametrize("body", ["r = BatchNormalization(a, g, s, m, v) \n b = Relu(r)",
                                  "r = Relu(a) \n b = BatchNormalization<epsilon=0.01>(r, g, s, m, v)"])  # fmt: skip
def test_batch_normalization(body: str, shape: tuple[int, ...], opset: int) -> None:
    holds(between(body, shape, parameters(), opset=opset), {"a": 4, "b": 4})


def test_batch_normalization_of_one_channel() -> None:
    holds(between("b = BatchNormalization(a, g, s, m, v)", (2, 1, 3, 3), parameters(1)), {"a": 1, "b": 1})


def test_batch_normalizations_that_share_all_parameters() -> None:
    """Both need other values, so one of them gets copies."""
    body = "p = BatchNormalization(a, g, s, m, v) \n q = BatchNormalization(a2, g, s, m, v) \n b = Concat<axis=1>(p, q)"
    checked = holds(between(body, constants=parameters(), branches=2), {"a": 4, "a2": 4, "b": 8})
    names = {tensor.name for tensor in checked.rewritten.proto.graph.initializer}
    assert {"g", "g_onnxnorm1", "s_onnxnorm1", "m_onnxnorm1"} <= names
    assert "v_onnxnorm1" not in names


def test_batch_normalization_whose_four_parameters_are_two_constants() -> None:
    """Deduplicated ones and zeros: the variance stays, the scale does not."""
    constants = {"one": np.ones(4, np.float32), "zero": np.zeros(4, np.float32)}
    holds(between("b = BatchNormalization(a, one, zero, zero, one)", constants=constants), {"a": 4, "b": 4})


def test_batch_normalization_after_a_spatial_join_ties_it() -> None:
    body = "r = Concat<axis=3>(a, a2) \n b = BatchNormalization(r, g, s, m, v)"
    holds(between(body, constants=parameters(), branches=2), {"a": 4, "b": 4})


@pytest.mark.parametrize("attributes", ["training_mode=1"])
def test_batch_normalization_in_training_pins(attributes: str) -> None:
    body = f"b, m2, v2 = BatchNormalization<{attributes}>(a, g, s, m, v)"
    # The batch is what it normalizes by, so the walk sees all of it.
    refused(between(body, constants=parameters(), opset=15), "it normalizes by the batch", whole=True)


def test_batch_normalization_with_computed_parameters_pins() -> None:
    body = "g2 = Sigmoid(k) \n b = BatchNormalization(a, g2, s, m, v)"
    proto = between(body, constants=parameters(), inputs={"k": (4,)})
    refused(proto, "its parameters are not constants", whole=True)


@pytest.mark.parametrize("opset", [7, 21, 22])
def test_instance_normalization(opset: int) -> None:
    checked = holds(
        between("b = InstanceNormalization(a, g, s)", constants=parameters(), opset=opset), {"a": 0, "b": 4}
    )
    assert any(STATISTIC in reason for reason in checked.reasons("a"))


@pytest.mark.parametrize(("opset", "size"), [(18, 2), (20, 2), (21, 4), (22, 4)])
def test_group_normalization(opset: int, size: int) -> None:
    """Its parameters are per group before opset 21, so that the channels of a group share a scale."""
    body = "b = GroupNormalization<num_groups=2>(a, g, s)"
    proto = between(body, constants={"g": rand(size), "s": rand(size)}, tail="none", opset=opset)
    holds(proto, {"a": 0, "b": size})


@pytest.mark.parametrize(
    ("axis", "scale", "shift", "free"),
    [
        (-1, (5,), (5,), 5),
        (-1, (5,), None, 5),
        (1, (4, 5, 5), (4, 5, 5), 100),
        (2, (5, 5), (5, 5), 25),
        (3, (5,), None, 5),
    ],
)
def test_layer_normalization(axis: int, scale: tuple[int, ...], shift: tuple[int, ...] | None, free: int) -> None:
    constants = {"g": rand(*scale)} | ({} if shift is None else {"s": rand(*shift)})
    body = f"b = LayerNormalization<axis={axis}>(a, g{'' if shift is None else ', s'})"
    holds(between(body, (2, 4, 5, 5), constants, tail="none"), {"a": 0, "b": free})


def test_layer_normalization_of_tokens() -> None:
    body = "t = Transpose<perm=[0,2,1]>(a) \n b = LayerNormalization(t, g, s)"
    holds(between(body, (2, 4, 6), parameters(), tail="none"), {"a": 0, "b": 4})


def test_layer_normalization_with_its_statistics() -> None:
    proto = between("b, mean, inv = LayerNormalization(a, g, s)", (2, 4), parameters(), outputs=["mean", "inv"])
    holds(proto, {"a": 0, "b": 4, "mean": 0, "inv": 0})


def test_rms_normalization() -> None:
    holds(between("b = RMSNormalization(a, g)", (2, 4), parameters(), opset=23), {"a": 0, "b": 4})


@pytest.mark.parametrize("op", ["InstanceNormalization", "LayerNormalization"])
def test_computed_parameters_pin(op: str) -> None:
    """The output has the scale of what is computed, and a Sigmoid has none."""
    body = f"g2 = Sigmoid(k) \n b = {op}(a, g2, s)"
    checked = refused(between(body, (2, 4, 4), parameters(), inputs={"k": (4,)}), STATISTIC, whole=True)
    assert checked.pinned("b")


STYLE = """
    p = GlobalAveragePool(a2) \n f = Reshape(p, four) \n c = GlobalAveragePool(a3) \n h = Reshape(c, four)
"""


@pytest.mark.parametrize("op", ["InstanceNormalization", "GroupNormalization<num_groups=2>"])
def test_computed_parameters_pass_their_scales_on(op: str) -> None:
    """The scale and the shift of another picture's style, which meet."""
    proto = between(f"{STYLE} \n b = {op}(a, f, h)", (1, 4, 6, 6), {"four": [4]}, branches=3, tail="none")
    free = {"a": 0, "a2": 4, "a3": 4, "b": 4}
    checked = holds(proto, free)
    groups = [set(checked.trace.groups.of[checked.trace.ids[name]].reshape(-1).tolist()) for name in ("a2", "a3", "b")]
    assert groups[0] == groups[1] == groups[2]
    holds(proto, free | {"a": 1}, level="attributes")
    holds(proto, free | {"a": 1}, level="attributes", power_of_two=False, rtol=64 * EPS)


def test_a_constant_scale_and_a_computed_shift() -> None:
    body = f"{STYLE} \n b = InstanceNormalization(a, g, h)"
    holds(between(body, (1, 4, 6, 6), {"four": [4], "g": rand(4)}, branches=3, tail="none"), {"a": 0, "a3": 4, "b": 4})


@pytest.mark.parametrize("axis", [1, -3, -1, 2])
@pytest.mark.parametrize("p", [1, 2])
def test_lp_normalization(p: int, axis: int) -> None:
    """What it divides by has the input's scale, if that is one along the axis; the output has scale 1."""
    proto = between(f"b = LpNormalization<axis={axis}, p={p}>(a)", (2, 4, 5, 5))
    checked = holds(proto, {"a": 1 if axis in (1, -3) else 4, "b": 0})
    assert checked.reasons("b") == ["it does not depend on the scale of its input"]


@pytest.mark.parametrize(
    ("op", "reason"),
    [("LRN<size=3>", "alpha, which is an attribute"), ("MeanVarianceNormalization", "it adds 1e-9 to the standard")],
)
def test_barriers(op: str, reason: str) -> None:
    checked = refused(between(f"b = {op}(a)", tail="none"), reason)
    assert checked.pinned("b")


def test_float16() -> None:
    """Small float16 numbers are subnormal, and a power of two not exact for them: 4 units in the last place."""
    proto = between("b = BatchNormalization(a, g, s, m, v)", constants=parameters(dtype=np.float16), dtype=np.float16)
    holds(proto, {"a": 4, "b": 4}, rtol=4 * float(np.finfo(np.float16).eps))


def test_scales_that_are_no_powers_of_two() -> None:
    from tests.helpers.graphs import feeds
    from tests.helpers.scales_check import check_scales

    proto = between("r = BatchNormalization(a, g, s, m, v) \n b = Relu(r)", constants=parameters())
    check_scales(proto, feeds(proto), power_of_two=False, rtol=16 * EPS)


def test_layer_normalization_whose_shape_is_not_known_has_all_axes() -> None:
    """Before opset 17, shape inference does not know it, and runtimes do. Axis 1 behind is that of the channels."""
    body = "n = LayerNormalization<axis=1>(a, g) \n b = BatchNormalization(n, s, t, t, s)"
    constants = {"g": rand(4, 6, 6), "s": np.abs(rand(4, seed=1)), "t": rand(4, seed=2)}
    holds(between(body, constants=constants, opset=14, tail="none"), {"b": 4}, whole=True)
