"""Pooling, resizing and padding along axes that are named, counted from the end, or computed."""

from __future__ import annotations

import numpy as np
import pytest

from tests.helpers.graphs import between, floats
from tests.helpers.law_checks import holds, refused
from tests.helpers.runtimes import recent

COMPUTED = "g = GlobalAveragePool(a2) \n m = Greater(g, zero) \n c = Cast<to=7>(m) \n r = Reshape(c, flat) \n"


def test_pools_pass_scales_on_the_first_axis_too() -> None:
    body = "t = Transpose<perm=[1,0,2,3]>(a) \n p = MaxPool<kernel_shape=[2,2]>(t) \n b = Transpose<perm=[1,0,2,3]>(p)"
    holds(between(body), {"a": 4, "p": 4, "b": 4}, whole=True)


def test_columns_of_several_channels() -> None:
    proto = between("b = Col2Im(a, image, block)", (2, 8, 4), {"image": [3, 3], "block": [2, 2]}, tail="none")
    holds(proto, {"a": 2, "b": 2})


def test_what_is_computed_for_a_resize_keeps_its_scale() -> None:
    body = "g = GlobalAveragePool(a2) \n roi = Reshape(g, flat) \n" + (
        'b = Resize<coordinate_transformation_mode="tf_crop_and_resize">(a, roi, factors)'
    )
    constants = {"flat": [-1], "factors": floats([1, 1, 2, 2])}
    refused(
        between(body, (2, 4, 6, 6), constants, branches=2), "it says by how much to resize", "a2", whole=True, rtol=1e-6
    )


@recent
@pytest.mark.parametrize(("axes", "factors", "free"), [("[-3,-2]", [2, 1], 1), ("[-2,-1]", [2, 2], 4)])
def test_resized_axes_counted_from_the_end(axes: str, factors: list[float], free: int) -> None:
    proto = between(f"b = Resize<axes={axes}>(a, , factors)", constants={"factors": floats(factors)}, tail="none")
    holds(proto, {"a": free, "b": free}, whole=True)


def test_sizes_without_factors() -> None:
    holds(between("b = Resize(a, , , sizes)", constants={"sizes": [2, 4, 12, 3]}), {"a": 4, "b": 4}, whole=True)


def test_an_equal_size_may_be_another_position() -> None:
    """With one factor of 1.1 for both axes, 4 channels are 4 again, but interpolated."""
    body = 'b = Resize<axes=[1,2], keep_aspect_ratio_policy="not_larger">(a, , , sizes)'
    holds(between(body, (1, 4, 10, 6), {"sizes": [9, 11]}, tail="none"), {"a": 1, "b": 1}, whole=True)


@pytest.mark.parametrize(
    ("pads", "axes", "free"),
    [([0, 1], [1], 4), ([2, 0], [-3], 4), ([1, 0, 0, 1], [2, -1], 4), ([0, 0, 0, 0, 0, 2, 0, 0], None, 4)],
)
def test_padding_of_named_axes(pads: list[int], axes: list[int] | None, free: int) -> None:
    body = "b = Pad(a, pads)" if axes is None else "b = Pad(a, pads, , axes)"
    constants = {"pads": pads} | ({} if axes is None else {"axes": axes})
    holds(between(body, constants=constants), {"a": free, "b": free})


@pytest.mark.parametrize("end", ["b = Pad(a, r)", "b = Pad(a, pads, , r)"])
def test_padding_by_computed_amounts_or_along_computed_axes(end: str) -> None:
    reason = "where it moves things is computed from the graph's inputs ('r')"
    first = COMPUTED if "pads" not in end else COMPUTED + "half = Slice(r, start, end) \n"
    constants = {"zero": np.float32(0), "flat": [-1], "start": [0], "end": [1], "pads": [1, 1]}
    body = first + end.replace(", , r", ", , half")
    used = {name: value for name, value in constants.items() if f" {name})" in body or f"{name}," in body}
    proto = between(body, (2, 4, 6, 6), used, branches=2, tail="none")
    refused(proto, reason.replace("'r'", "'half'") if "half" in body else reason, whole=True)


PADS = [0, 0, 1, 1, 0, 0, 1, 1]


@pytest.mark.parametrize("value", [np.inf, -np.inf])
def test_pad_with_infinity_agrees_with_any_scale(value: float) -> None:
    body = "b = Pad(a, pads, v) \n c = MaxPool<kernel_shape=[3,3], strides=[3,3]>(b)"
    held = {"pads": PADS, "v": np.float32(value)}
    holds(between(f"{body} \n d = Relu(c)", constants=held, tail="none"), {"a": 4, "b": 4, "c": 4})
    proto = between("b = Pad<pads=[0,0,1,1,0,0,1,1], value=1.0>(a)", opset=10, tail="none")
    (attribute,) = (a for node in proto.graph.node for a in node.attribute if a.name == "value")
    attribute.f = value
    holds(proto, {"a": 4, "b": 4})


@pytest.mark.parametrize("value", [1.0, -0.5])
def test_pad_with_another_value_ties(value: float) -> None:
    """The number follows one scale of all channels; in an attribute it may not at this level."""
    held = {"pads": PADS, "v": np.float32(value)}
    holds(between("b = Pad(a, pads, v)", constants=held), {"a": 1, "b": 1})
    holds(between("b = Pad(a, pads, v)", constants=held | {"pads": [0, 1, 0, 0, 0, 0, 0, 0]}), {"a": 1, "b": 1})
    holds(between("b = Pad(a, pads, v)", constants=held | {"pads": [0] * 8}), {"a": 4, "b": 4})
    refused(between(f"b = Pad<pads=[0,0,1,1,0,0,1,1], value={value}>(a)", opset=10), f"it puts {value:g} around")


def test_a_padded_value_that_others_read_is_copied() -> None:
    """The same number for a Pad and a threshold elsewhere."""
    body = "b = Pad(a, pads, v) \n c = Sigmoid(a2) \n d = Max(c, v)"
    checked = holds(between(body, constants={"pads": PADS, "v": np.float32(0.5)}, branches=2, outputs=["d"]), {"a": 1})
    assert len(checked.rewritten.proto.graph.initializer) == 9


def test_pad_with_a_value_that_may_not_change_pins() -> None:
    body = "v = ReduceMax<keepdims=0>(w_a) \n b = Pad(a, pads, v)"
    refused(between(body, constants={"pads": PADS}, opset=17), "around, which would have to be scaled")
