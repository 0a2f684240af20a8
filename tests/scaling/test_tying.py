"""Tied filters are told which nodes tie them: the next one behind their layer by name, the others by their number."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

import onnxnorm
from onnxnorm.model.files import Model
from onnxnorm.model.shapes import read_graph
from onnxnorm.scaling import Trace, find_layers, make_plan, trace
from onnxnorm.scaling.layerwise import one_scale_per_layer
from tests.corpus import CASES, Net, feeds


def walked(proto: onnx.ModelProto) -> Trace:
    return trace(read_graph(Model.open(proto), {name: array.shape for name, array in feeds(proto).items()}))


def reasons(net: Net, *outputs: str) -> dict[str, tuple[str, ...]]:
    """Why filters of each layer are not free, by the value where they are measured."""
    return {layer.value: layer.reasons for layer in onnxnorm.plan(net.model(*outputs)).layers}


def test_the_next_node_behind_a_layer_is_named_and_the_others_are_counted() -> None:
    """Three branches are added to one trunk, which all Adds of it share."""
    net = Net()
    trunk = net.block(net.input(), 3, 4, "a")
    for index in range(3):
        branch = net.block(trunk, 4, 4, f"b{index}")
        trunk = net.op("Add", trunk, branch, name=f"add{index}", out=f"s{index}")
    net.block(trunk, 4, 2, "z")
    why = reasons(net, "z")
    assert why["a"] == ("tied by Add add0 and 2 more",)
    assert why["b0"] == ("tied by Add add0 and 2 more",)
    assert why["b1"] == ("tied by Add add1 and 2 more",)
    assert why["b2"] == ("tied by Add add2 and 2 more",)
    assert why["z"] == ("it is a graph output",)


def test_a_node_of_another_group_is_not_counted() -> None:
    """Two pairs of layers, each with an Add of its own."""
    net = Net()
    x = net.input()
    for name in ("first", "second"):
        pair = net.block(x, 3, 4, f"{name}_a"), net.block(x, 3, 4, f"{name}_b")
        net.block(net.op("Add", *pair, name=name, out=f"{name}_s"), 4, 2, f"{name}_z")
    why = reasons(net, "first_z", "second_z")
    assert why["first_a"] == why["first_b"] == ("tied by Add first",)
    assert why["second_a"] == why["second_b"] == ("tied by Add second",)


def test_a_bound_of_all_channels_is_told_as_one() -> None:
    (first, second) = onnxnorm.plan(CASES["relu6_with_shared_bounds"].build()).layers
    assert first.reasons == ("tied by the bound 6 of Clip Clip_a",)
    assert second.reasons == ("tied by the bound 6 of Clip Clip_b",)


@pytest.mark.parametrize(
    ("bounds", "said"),
    [
        ({"min": -1.0, "max": 2.5}, "the bounds -1 and 2.5 of"),
        ({"min": -2.0}, "the bound -2 of"),
        ({"min": float(np.finfo(np.float32).min), "max": 4.0}, "the bound 4 of"),
        ({"min": 0.0, "max": 6.0}, "the bound 6 of"),
    ],
)
@pytest.mark.parametrize("opset", [10, 18])
def test_bounds_that_bound_something_are_named(bounds: dict[str, Any], said: str, opset: int) -> None:
    """They are attributes before opset 11."""
    net = Net(opset=opset)
    value = net.block(net.input(), 3, 4, "a")
    if opset < 11:
        net.op("Clip", value, name="clip", out="c", **bounds)
    else:
        held = [net.const(np.float32(bounds[name])) if name in bounds else "" for name in ("min", "max")]
        net.op("Clip", value, *held, name="clip", out="c")
    net.block("c", 4, 2, "z")
    first, _ = onnxnorm.plan(net.model("z"), allow="attributes").layers
    assert first.reasons == (f"tied by {said} Clip clip",)


def test_filters_of_which_some_are_pinned_and_some_are_tied_have_both_reasons() -> None:
    """Half of the channels is added to another layer's, the other half is given out."""
    net = Net()
    x = net.input()
    both, other = net.block(x, 3, 4, "both"), net.block(x, 3, 2, "other")
    half, rest = net.many("Split", both, outs=2, axis=1, num_outputs=2)
    net.block(net.op("Add", half, other, name="add", out="s"), 2, 2, "z")
    assert reasons(net, "z", rest)["both"] == ("it is a graph output", "tied by Add add")


def test_what_only_products_join_is_told_by_their_node() -> None:
    """The matrix product of two layers is tied to nothing, but its scales are those of both."""
    (first, second) = onnxnorm.plan(CASES["product_must_be_one"].build()).layers
    assert first.reasons == second.reasons == ("tied by Mul Mul_v8",)


def test_one_scale_per_layer_is_a_reason_of_its_own() -> None:
    found = walked(CASES["plain_chain"].build())
    layers = find_layers(found)
    plan = make_plan(one_scale_per_layer(found, layers), layers)
    assert {layer.reasons for layer in plan.layers} == {("all filters of the layer have one scale",)}
    assert {layer.reasons for layer in make_plan(found, layers).layers} == {()}


@pytest.mark.parametrize("name", ["inverted_residual", "residual_after_activation"])
def test_what_is_opened_is_not_tied(name: str) -> None:
    proto = CASES[name].build()
    assert any(layer.reasons for layer in onnxnorm.plan(proto).layers)
    assert all("tied" not in reason for layer in onnxnorm.plan(proto, allow="nodes").layers for reason in layer.reasons)


def test_every_tie_of_a_walk_has_its_node() -> None:
    for case in CASES.values():
        found = walked(case.build())
        assert len(found.tying) == len(found.slots.ties)
        assert list(found.tying) == sorted(found.tying)
        assert all(node < len(found.graph.nodes) for node in found.tying)
