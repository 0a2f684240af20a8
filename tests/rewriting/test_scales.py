"""Which scale: per group, from the statistics of its filters."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import onnxnorm
from onnxnorm.model.files import Model
from onnxnorm.model.shapes import read_graph
from onnxnorm.rewriting import LayerStatistic, Scales, choose_scales, count_dead
from onnxnorm.scaling import find_layers, trace
from tests.helpers.graphs import model as network
from tests.helpers.graphs import rand

CHAIN = "a = Conv(x, w1)   r = Relu(a)   b = Conv(r, w2)   s = Relu(b)   z = Conv(s, w3)"
RESIDUAL = "a = Conv(x, w1)   b = Conv(x, w2)   c = Add(a, b)   r = Relu(c)   z = Conv(r, w3)"
BRANCHES = "a = Conv(x, w1)   r = Relu(a)   b = Conv(x, w2)   s = Relu(b)   c = Add(r, s)   z = Conv(c, w3)"
NAN = float("nan")


def chosen(body: str, *statistics: list[float], **options: Any) -> Scales:
    """Scales for these statistics, one list per layer; the last layer, which is pinned, has ones."""
    count = len(statistics[0])
    fan_in = count if "Conv(r, w2)" in body else 3
    shapes = {"w1": (count, 3, 1, 1), "w2": (count, fan_in, 1, 1), "w3": (2, count, 1, 1)}
    model = Model.open(network(body, {"x": (1, 3, 4, 4)}, {name: rand(*shape) for name, shape in shapes.items()}))
    found = trace(read_graph(model, {"x": (1, 3, 4, 4)}))
    parts = [np.asarray(part, np.float64) for part in (*statistics, [1.0, 1.0])]
    layers = find_layers(found)
    assert [layer.channels for layer in layers] == [len(part) for part in parts]
    return choose_scales(found, layers, [LayerStatistic(part, 0.1 * part) for part in parts], **options)


def test_a_filter_by_itself_reaches_the_target_exactly() -> None:
    values = rand(8, dtype=np.float64) ** 2 + 1e-3
    scales = chosen(CHAIN, values.tolist(), (3 * values).tolist(), target=0.7)
    for layer, statistic in zip(scales.layers, (values, 3 * values), strict=False):
        assert (layer.scale == 0.7 / statistic).all()
        np.testing.assert_allclose(layer.after, 0.7, rtol=1e-15)
    assert (scales.layers[2].scale == 1).all()
    assert scales.layers[2].pinned.all()


def test_tied_filters_meet_the_target_in_the_geometric_mean() -> None:
    scales = chosen(BRANCHES, [1.0, 4.0], [4.0, 1.0])
    first, second, _ = scales.layers
    np.testing.assert_allclose(first.scale, [0.5, 0.5])
    np.testing.assert_allclose(second.scale, [0.5, 0.5])
    np.testing.assert_allclose(np.sqrt(first.after * second.after), 1.0)


def test_a_value_that_two_layers_share_counts_once() -> None:
    """Both are measured behind the Add, so both have the statistic of the sum."""
    scales = chosen(RESIDUAL, [2.0, 4.0], [2.0, 4.0])
    assert scales.layers[0].scale.tolist() == scales.layers[1].scale.tolist() == [0.5, 0.25]


@pytest.mark.parametrize("dead", [0.0, 1e-40, 1e-9])
def test_dead_filters_keep_scale_1(dead: float) -> None:
    """Dead is zero, below the smallest normal number, or lost in the rounding noise of the layer's largest."""
    scales = chosen(CHAIN, [dead, 100.0, 1.0], [1.0, 2.0, 4.0])
    assert scales.layers[0].dead.tolist() == [True, False, False]
    assert scales.layers[0].scale.tolist() == [1.0, 0.01, 1.0]
    assert scales.dead == 1
    assert scales.unknown == 0


def test_a_small_filter_is_not_dead() -> None:
    scales = chosen(CHAIN, [1e-4, 100.0], [1e-9, 1e-9])
    assert scales.dead == 0
    np.testing.assert_allclose(scales.layers[0].scale, [1e4, 0.01])
    np.testing.assert_allclose(scales.layers[1].scale, 1e9)


def test_a_dead_filter_has_no_say_in_its_group() -> None:
    scales = chosen(BRANCHES, [0.0, 5.0, NAN], [4.0, 5.0, 2.0])
    assert scales.layers[0].scale.tolist() == scales.layers[1].scale.tolist() == [0.25, 0.2, 0.5]
    assert (scales.dead, scales.unknown) == (1, 1)


def test_unknown_filters_keep_scale_1_and_are_not_dead() -> None:
    scales = chosen(CHAIN, [NAN, 2.0], [NAN, NAN])
    assert scales.layers[0].scale.tolist() == [1.0, 0.5]
    assert scales.layers[1].scale.tolist() == [1.0, 1.0]
    assert (scales.dead, scales.unknown) == (0, 3)
    assert scales.layers[0].live.tolist() == [False, True]
    assert count_dead([LayerStatistic(np.asarray([NAN, 0.0, 1.0]), np.zeros(3))]) == 1


def test_negative_statistics_come_to_minus_the_target() -> None:
    scales = chosen(CHAIN, [-0.5, 2.0], [1.0, 1.0], target=3.0)
    assert scales.layers[0].scale.tolist() == [6.0, 1.5]
    assert scales.layers[0].after.tolist() == [-3.0, 3.0]


@pytest.mark.parametrize(
    ("strength", "expected"), [(1.0, [0.25, 4.0]), (0.5, [0.5, 2.0]), (0.0, [1.0, 1.0]), (2.0, [1 / 16, 16.0])]
)
def test_strength_is_a_power(strength: float, expected: list[float]) -> None:
    scales = chosen(CHAIN, [4.0, 0.25], [1.0, 1.0], strength=strength)
    assert scales.layers[0].scale.tolist() == expected


def test_the_span_is_of_what_could_be_scaled() -> None:
    scales = chosen(CHAIN, [0.0, 4.0], [NAN, 0.5])
    assert scales.span == (0.25, 2.0)
    assert chosen(CHAIN, [0.0, 0.0], [NAN, NAN]).span == (1.0, 1.0)


def test_slot_zero_is_zero_for_any_scale() -> None:
    assert chosen(CHAIN, [4.0, 4.0], [4.0, 4.0]).of_slot[0] == 1.0


def test_a_filter_that_is_added_to_the_input_keeps_scale_1() -> None:
    scales = chosen("a = Conv(x, w1)   r = Relu(a)   c = Add(r, x)   z = Conv(c, w3)", [2.0, 4.0, 8.0])
    assert scales.layers[0].scale.tolist() == [1.0, 1.0, 1.0]
    assert scales.layers[0].pinned.all()


def test_relative_errors_are_those_of_live_filters() -> None:
    scales = chosen(CHAIN, [4.0, NAN, 0.0, 0.5], [1.0, 2.0, 3.0, 4.0])
    np.testing.assert_allclose(scales.layers[0].relative_errors, [0.1, 0.1])


@pytest.mark.parametrize("target", [0.0, -1.0, NAN, float("inf")])
def test_a_target_that_is_not_positive_is_refused(target: float) -> None:
    with pytest.raises(onnxnorm.OptionError, match="the target must be a positive number"):
        chosen(CHAIN, [1.0], [1.0], target=target)


@pytest.mark.parametrize("strength", [NAN, float("inf")])
def test_a_strength_that_is_not_finite_is_refused(strength: float) -> None:
    with pytest.raises(onnxnorm.OptionError, match="the strength must be a finite number"):
        chosen(CHAIN, [1.0], [1.0], strength=strength)
