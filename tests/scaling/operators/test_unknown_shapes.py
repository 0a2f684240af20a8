"""Values whose shape is not known: what has one scale passes, and what varies is refused where its axes matter."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from tests.helpers.graphs import floats, model, rand
from tests.helpers.law_checks import holds, refused
from tests.helpers.scales_check import traced

FEED = {"x": floats([1, 1]), "y": rand(1, 3, 6, 6)}
CONSTANTS = {
    "one": [1],
    "n": [1, 1],
    "zero": np.float32(0),
    "hw": floats([1, 1, 2, 2]),
    "roi": floats([]),
    "pads": [0, 0, 1, 1, 0, 0, 1, 1],
    "grid": rand(2, 5, 5, 2),
    "two": [2],
    "image": [3, 3],
    "block": [2, 2],
    "square": [2, 2],
    "unit": [1, 1],
    "mixed": rand(6, 3, seed=2),
    "fourfold": rand(4, 4, 1, 1, seed=4),
    "spatial": [2, 3],
}


def behind(body: str, spatial: tuple[int, ...] = (6, 6)) -> onnx.ModelProto:
    """`body` reads `varied`, with 4 scales on axis 1, or `even`, with one scale; both of unknown shapes."""
    front = (
        "n_ = ReduceSum(x) \n g = Cast<to=7>(n_) \n c = Concat<axis=0>(g, rest) \n r = Expand(y, c) \n"
        "varied = Conv(r, w) \n even = Conv(r, v) \n"
    )
    ones = (1,) * len(spatial)
    constants = CONSTANTS | {"rest": [3, *spatial], "w": rand(4, 3, *ones), "v": rand(1, 3, *ones, seed=1)}
    constants["thin"] = rand(1, 5 if "ConvTranspose" in body else 1, *ones, seed=3)
    used = {name: value for name, value in constants.items() if name in front + body}
    return model(front + body, {"x": (2,), "y": (1, 3, *spatial)}, used)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("z = Flatten({})", "the shape of what it moves is not known"),
        ("s = Shape({0}) \n z = Expand({0}, s)", "the shape of its output is not known"),
        ("z = ReverseSequence<batch_axis=0, time_axis=1>({}, n)", "the shape of what it moves is not known"),
        ("z = Resize({}, roi, hw)", "the shape of its input or output is not known"),
        ("z = Gather({}, one)", "the shape of what it moves is not known"),
        ("z = Pad({}, pads)", "the shape of what it moves is not known"),
        ("z = GridSample({}, grid)", "the shape of its input is not known"),
        ("z = ReduceMean({}, spatial)", "the shape of its input is not known"),
        ("z = CumSum({}, two)", "its axis or the shape of its input is not known"),
    ],
)
def test_one_scale_passes_and_several_are_refused(body: str, reason: str) -> None:
    holds(behind(body.format("even")), {"even": 1, "z": 1}, whole=True, feed=FEED)
    refused(behind(body.format("varied")), reason, "varied", whole=True, feed=FEED)


@pytest.mark.parametrize("body", ["z = Add(varied, even)", "m = Greater(even, zero) \n z = Where(m, varied, even)"])
def test_joins_are_refused(body: str) -> None:
    refused(behind(body), "the shapes of what it joins are not known", "varied", whole=True, feed=FEED)


def test_a_condition_may_have_more_axes_than_what_it_chooses_from() -> None:
    proto = behind("k = Conv(y, w) \n m = Greater(even, zero) \n z = Where(m, k, k)")
    refused(proto, "the shapes of what it joins are not known", "k", whole=True, feed=FEED)


@pytest.mark.parametrize("op", ["MaxPool<kernel_shape=[2,2]>", "GlobalAveragePool", "GlobalMaxPool"])
def test_pools_keep_the_channels(op: str) -> None:
    holds(behind(f"z = {op}(varied)"), {"varied": 4, "z": 4}, whole=True, feed=FEED)
    holds(behind(f"z = {op}(even)"), {"even": 1, "z": 1}, whole=True, feed=FEED)


def test_pools_of_three_axes_and_of_fewer() -> None:
    feed = {"x": FEED["x"], "y": rand(1, 3, 4)}
    holds(behind("z = MaxPool<kernel_shape=[2]>(varied)", (4,)), {"varied": 4, "z": 4}, whole=True, feed=feed)
    proto = behind("q = MatMul(even, mixed) \n z = MaxPool<kernel_shape=[2,2]>(q)")
    refused(proto, "the shape of its input is not known", "q", whole=True, feed=FEED)


def test_columns() -> None:
    feed = {"x": FEED["x"], "y": rand(1, 3, 4)}
    proto = behind("z = Col2Im(varied, image, block)", (4,))
    refused(proto, "the shape of its input or output is not known", "varied", whole=True, feed=feed)
    proto = behind("k = Conv(y, w) \n im = Concat<axis=0>(g, g) \n z = Col2Im(k, im, unit)", (4,))
    refused(proto, "the shape of its input or output is not known", "k", whole=True, feed=feed)
    holds(behind("z = Col2Im(even, square, unit)", (4,)), {"even": 1, "z": 1}, whole=True, feed=feed)


def test_products_with_matrices() -> None:
    refused(behind("z = MatMul(varied, mixed)"), "the shape of its input is not known", "varied", whole=True, feed=FEED)
    holds(behind("z = MatMul(even, mixed)"), {"even": 1, "z": 3}, whole=True, feed=FEED, rtol=1e-6)


@pytest.mark.parametrize("op", ["Conv", "ConvTranspose"])
def test_convolutions_of_what_varies_along_another_axis(op: str) -> None:
    proto = behind(f"q = MatMul(even, mixed) \n z = {op}(q, thin)")
    refused(proto, "the shape of its input is not known", "q", whole=True, feed=FEED, rtol=1e-6)
    holds(behind(f"z = {op}(even, thin)"), {"even": 1, "z": 5 if op == "ConvTranspose" else 1}, whole=True, feed=FEED)


@pytest.mark.parametrize("op", ["Conv", "ConvTranspose"])
@pytest.mark.parametrize("group", [-4, -1, 0, 3, 8])
def test_groups_that_do_not_divide_the_weight(op: str, group: int) -> None:
    found = traced(behind(f"z = {op}<group={group}>(varied, fourfold)"))
    reasons = [barrier.reason for barrier in found.groups.reasons(found.ids["varied"])]
    assert any(f"cannot be divided into {group} groups" in reason for reason in reasons), reasons
