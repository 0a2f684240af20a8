"""Pooling, resizing and padding along axes that are named, counted from the end, or computed."""

from __future__ import annotations

import numpy as np
import pytest

from tests.helpers.graphs import between, floats
from tests.helpers.law_checks import holds, refused

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
