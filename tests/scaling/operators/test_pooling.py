"""Pooling, resizing, padding and sampling."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.helpers.graphs import between, floats, rand
from tests.helpers.law_checks import holds, refused

EPS = float(np.finfo(np.float32).eps)

POOLS = [
    "MaxPool<kernel_shape=[2,2]>",
    "MaxPool<kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1]>",
    "MaxPool<kernel_shape=[2,2], dilations=[2,2]>",
    'MaxPool<kernel_shape=[3,3], auto_pad="SAME_UPPER">',
    "MaxPool<kernel_shape=[3,3], strides=[2,2], ceil_mode=1>",
    "AveragePool<kernel_shape=[2,2]>",
    "AveragePool<kernel_shape=[3,3], pads=[1,1,1,1], count_include_pad=1>",
    "AveragePool<kernel_shape=[3,3], pads=[1,1,1,1], strides=[2,2]>",
    'AveragePool<kernel_shape=[3,3], auto_pad="SAME_LOWER">',
    "GlobalAveragePool",
    "GlobalMaxPool",
]


@pytest.mark.parametrize("opset", [11, 21, 22])
@pytest.mark.parametrize("op", POOLS)
def test_pool(op: str, opset: int) -> None:
    holds(between(f"b = {op}(a)", opset=opset), {"a": 4, "b": 4})


@pytest.mark.parametrize("op", POOLS[:2] + POOLS[5:7] + POOLS[-2:])
def test_pool_in_opset_7(op: str) -> None:
    holds(between(f"b = {op}(a)", opset=7), {"a": 4, "b": 4})


@pytest.mark.parametrize("rank", [1, 3])
@pytest.mark.parametrize("op", ["MaxPool", "AveragePool", "LpPool"])
def test_pool_of_other_ranks(op: str, rank: int) -> None:
    proto = between(f"b = {op}<kernel_shape={[2] * rank}>(a)".replace(" ", ""), (2, 4, *[4] * rank))
    holds(proto, {"a": 4, "b": 4}, rtol=8 * EPS if op == "LpPool" else 0)


@pytest.mark.parametrize("p", [1, 2, 3])
@pytest.mark.parametrize("op", ["LpPool<kernel_shape=[2,2], p={}>", "GlobalLpPool<p={}>"])
def test_lp_pool(op: str, p: int) -> None:
    """A power and a root, computed by functions that round as they like: a few units in the last place."""
    holds(between(f"b = {op.format(p)}(a)"), {"a": 4, "b": 4}, rtol=8 * EPS)


def test_indices_of_maxima_have_no_scale() -> None:
    proto = between("b, where = MaxPool<kernel_shape=[2,2]>(a)", outputs=["where"])
    checked = holds(proto, {"a": 4, "b": 4, "where": 0})
    assert checked.reasons("where") == ["it counts or points at elements, so it has no scale"]


def test_a_pool_over_channels_ties_them() -> None:
    """Channels moved to a spatial axis."""
    body = "t = Transpose<perm=[0,2,1,3]>(a) \n b = MaxPool<kernel_shape=[2,1]>(t)"
    holds(between(body), {"a": 1, "b": 1})


@pytest.mark.parametrize("channels", [1, 2])
def test_max_unpool_ties(channels: int) -> None:
    body = """
        p, i = MaxPool<kernel_shape=[2,2], strides=[2,2]>(a) \n u = MaxUnpool<kernel_shape=[2,2], strides=[2,2]>(p, i)
        b = Relu(u)
    """
    holds(between(body, (2, channels, 4, 4)), {"a": 1, "b": 1})


ROIS = {"rois": floats([[0, 0, 3, 3], [1, 0, 5, 4], [2, 1, 3, 5]]), "of": [0, 1, 1]}


@pytest.mark.parametrize("mode", ["avg", "max"])
@pytest.mark.parametrize("opset", [10, 16])
def test_roi_align(opset: int, mode: str) -> None:
    body = f'b = RoiAlign<mode="{mode}", output_height=2, output_width=3, sampling_ratio=2>(a, rois, of)'
    holds(between(body, constants=ROIS, opset=opset), {"a": 4, "b": 4})


def test_max_roi_pool() -> None:
    rois = floats([[0, 0, 0, 3, 3], [1, 1, 0, 5, 4]])
    holds(between("b = MaxRoiPool<pooled_shape=[2,2]>(a, rois)", constants={"rois": rois}), {"a": 4, "b": 4})


@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
@pytest.mark.parametrize(("opset", "mode"), [(16, "bilinear"), (16, "nearest"), (16, "bicubic"), (20, "linear")])
def test_grid_sample(opset: int, mode: str, padding: str) -> None:
    body = f'b = GridSample<mode="{mode}", padding_mode="{padding}">(a, grid)'
    proto = between(body, constants={"grid": rand(2, 3, 3, 2)}, opset=opset)
    holds(proto, {"a": 4, "b": 4}, whole=True)


def test_where_a_grid_points_keeps_its_scale() -> None:
    body = "g = Transpose<perm=[0,2,3,1]>(a2) \n h = Slice(g, i, j, k) \n b = GridSample(a, h)"
    proto = between(body, constants={"i": [0], "j": [2], "k": [3]}, branches=2, opset=16)
    checked = holds(proto, {"a": 4, "h": 0, "a2": 2})
    assert checked.reasons("h") == ["it says where the operator reads"]


def test_columns_to_image() -> None:
    constants = {"size": [4, 4], "block": [2, 2]}
    holds(between("b = Col2Im(a, size, block)", (2, 12, 9), constants), {"a": 3, "b": 3})


@pytest.mark.parametrize("opset", [11, 13, 18, 19])
@pytest.mark.parametrize(
    "attributes",
    [
        'mode="nearest"',
        'mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor"',
        'mode="linear"',
        'mode="linear", coordinate_transformation_mode="align_corners"',
        'mode="linear", coordinate_transformation_mode="pytorch_half_pixel"',
        'mode="cubic", cubic_coeff_a=-0.75',
        'mode="cubic", exclude_outside=1',
    ],
)
def test_resize_by_scales(attributes: str, opset: int) -> None:
    constants = {"roi": np.empty(0, np.float32), "k": floats([1, 1, 2, 1.5])}
    holds(between(f"b = Resize<{attributes}>(a, roi, k)", constants=constants, opset=opset), {"a": 4, "b": 4})


@pytest.mark.parametrize(
    "attributes", ['mode="linear", antialias=1', 'mode="linear", coordinate_transformation_mode="half_pixel_symmetric"']
)
def test_resize_down(attributes: str) -> None:
    constants = {"roi": np.empty(0, np.float32), "k": floats([1, 1, 0.5, 0.5])}
    holds(between(f"b = Resize<{attributes}>(a, roi, k)", constants=constants, opset=19), {"a": 4, "b": 4})


@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
@pytest.mark.parametrize("opset", [11, 13, 19])
def test_resize_by_sizes(opset: int, mode: str) -> None:
    body = f"""
        s = Shape(a) \n n = Slice(s, i0, i2) \n t = Concat<axis=0>(n, hw) \n b = Resize<mode="{mode}">(a, roi, none, t)
    """
    constants = {"roi": np.empty(0, np.float32), "none": np.empty(0, np.float32), "i0": [0], "i2": [2], "hw": [9, 8]}
    tail = "none" if opset == 11 else None  # whose shape inference does not tell the channels
    holds(between(body, constants=constants, opset=opset, tail=tail), {"a": 4, "b": 4})


def test_resize_by_axes() -> None:
    body = 'b = Resize<mode="linear", axes=[3,2], keep_aspect_ratio_policy="not_larger">(a, roi, none, hw)'
    constants = {"roi": np.empty(0, np.float32), "none": np.empty(0, np.float32), "hw": [12, 9]}
    holds(between(body, constants=constants, opset=19), {"a": 4, "b": 4})


@pytest.mark.parametrize("mode", ["nearest", "linear"])
def test_resize_in_opset_10(mode: str) -> None:
    body = f'b = Resize<mode="{mode}">(a, k)'
    holds(between(body, constants={"k": floats([1, 1, 2, 2])}, opset=10), {"a": 4, "b": 4})


@pytest.mark.parametrize("factor", [2.0, 0.5, 1.2])
def test_resize_of_the_channel_axis_ties_it(factor: float) -> None:
    """4 channels times 1.2 are 4 channels again, which are not the same."""
    constants = {"roi": np.empty(0, np.float32), "k": floats([1, factor, 1, 1])}
    holds(between('b = Resize<mode="nearest">(a, roi, k)', constants=constants), {"a": 1, "b": 1})


def test_resize_that_crops() -> None:
    attributes = 'coordinate_transformation_mode="tf_crop_and_resize", mode="linear"'
    roi = floats([0, 0, -0.3, -0.3, 1, 1, 1.3, 1.2])
    constants = {"roi": roi, "none": np.empty(0, np.float32), "s": [2, 4, 5, 5]}
    proto = between(f"b = Resize<{attributes}>(a, roi, none, s)", constants=constants)
    holds(proto, {"a": 1, "b": 1}, whole=True)
    proto = between(f"b = Resize<{attributes}, extrapolation_value=1.5>(a, roi, none, s)", constants=constants)
    refused(proto, "it puts 1.5 outside of the input", whole=True)


def test_resize_by_computed_scales_pins_these() -> None:
    body = """
        m = GlobalAveragePool(a2) \n v = Sigmoid(m) \n u = Ceil(v) \n f = Reshape(u, to)
        b = Resize<mode="nearest">(a, roi, f)
    """
    constants = {"roi": np.empty(0, np.float32), "to": [4]}
    proto = between(body, (1, 4, 4, 4), constants, branches=2, tail="none")
    refused(proto, "the shape of its input or output is not known", whole=True)


@pytest.mark.parametrize("mode", ["nearest", "linear"])
def test_upsample(mode: str) -> None:
    holds(between(f'b = Upsample<mode="{mode}", scales=[1.0,1.0,2.0,3.0]>(a)', opset=7), {"a": 4, "b": 4})
    proto = between(f'b = Upsample<mode="{mode}">(a, k)', constants={"k": floats([1, 1, 2, 3])}, opset=9)
    holds(proto, {"a": 4, "b": 4})


@pytest.mark.parametrize("k", [[1.0, 2.0, 1.0, 1.0], [1.0, 1.2, 1.0, 1.0]])
def test_upsample_of_the_channel_axis_ties_it(k: list[float]) -> None:
    holds(between("b = Upsample(a, k)", constants={"k": floats(k)}, opset=9), {"a": 1, "b": 1})


@pytest.mark.parametrize("attributes", ["", "value=0.0", 'mode="edge"', 'mode="reflect"'])
@pytest.mark.parametrize("pads", ["[0,0,1,2,0,0,2,1]", "[0,0,0,0,0,0,0,0]"])
def test_pad_by_attributes(pads: str, attributes: str) -> None:
    proto = between(f"b = Pad<pads={pads}{', ' if attributes else ''}{attributes}>(a)", opset=10)
    holds(proto, {"a": 4, "b": 4})


@pytest.mark.parametrize(
    ("opset", "mode"), [(11, "constant"), (11, "edge"), (13, "reflect"), (18, "edge"), (19, "wrap")]
)
@pytest.mark.parametrize("pads", [[0, 0, 1, 2, 0, 0, 2, 1], [0, 0, -1, 0, 0, 0, 2, -2]], ids=str)
def test_pad(pads: list[int], opset: int, mode: str) -> None:
    if min(pads) < 0 and mode == "wrap":
        pytest.skip("ONNX Runtime has no such Pad")
    holds(between(f'b = Pad<mode="{mode}">(a, pads)', constants={"pads": pads}, opset=opset), {"a": 4, "b": 4})


@pytest.mark.parametrize("value", [np.zeros((), np.float32), np.float32(-0.0)])
def test_pad_with_a_zero(value: Any) -> None:
    proto = between("b = Pad(a, pads, v)", constants={"pads": [0, 0, 1, 2, 0, 0, 2, 1], "v": np.asarray(value)})
    holds(proto, {"a": 4, "b": 4})


@pytest.mark.parametrize("axes", [[2], [-1, 2], [-2, -1]], ids=str)
def test_pad_by_axes(axes: list[int]) -> None:
    pads = list(range(1, 2 * len(axes) + 1))
    constants = {"pads": pads, "axes": axes, "v": np.zeros((), np.float32)}
    holds(between("b = Pad(a, pads, v, axes)", constants=constants, opset=18), {"a": 4, "b": 4})


@pytest.mark.parametrize(
    ("pads", "axes", "free"),
    [
        ([1, 2], [1], 4),  # zeros around
        ([-1, 2], [-3], 3),  # one channel is cut off
        ([1, -1], [1], 3),  # as many channels as before, but not the same
        ([-2, 3, 0, 1], [1, 3], 2),
    ],
)
def test_pad_of_the_channel_axis(pads: list[int], axes: list[int], free: int) -> None:
    constants = {"pads": pads, "axes": axes, "v": np.zeros((), np.float32)}
    proto = between("b = Pad(a, pads, v, axes)", constants=constants, opset=18)
    holds(proto, {"b": free} if min(pads) >= 0 else None)


@pytest.mark.parametrize("mode", ["edge", "reflect", "wrap"])
def test_pad_of_the_channel_axis_with_channels(mode: str) -> None:
    constants = {"pads": [0, 1, 0, 0, 0, 2, 0, 0]}
    holds(between(f'b = Pad<mode="{mode}">(a, pads)', constants=constants, opset=19), {"a": 4, "b": 4})


def test_pad_with_a_computed_value_pins() -> None:
    body = "m = ReduceMax<keepdims=0>(a2) \n b = Pad(a, pads, m)"
    proto = between(body, (1, 4, 3, 3), {"pads": [0, 0, 1, 1, 0, 0, 1, 1]}, branches=2, opset=17)
    refused(proto, "the value that it puts around is not a constant")
    body = """
        s = Shape(a) \n f = Gather(s, zero) \n e = Sub(f, unit) \n v = Cast<to=1>(e) \n b = Pad(a, pads, v)
    """  # 0 for the one sample that the walk sees
    constants = {"pads": [0, 0, 1, 1, 0, 0, 1, 1], "zero": np.int64(0), "unit": np.int64(1)}
    refused(between(body, constants=constants), "the value that it puts around is not a constant")


def test_center_crop_pad() -> None:
    """It puts zeros around space, and cuts channels off."""
    proto = between("b = CenterCropPad<axes=[1,2]>(a, to)", constants={"to": [2, 9]}, opset=18)
    checked = holds(proto, {"b": 2})
    assert checked.free("a")
