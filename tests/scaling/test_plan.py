"""The plan adds up, names its groups, and says which barriers cost most."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest

from onnxnorm.model.files import Model
from onnxnorm.model.shapes import read_graph
from onnxnorm.scaling import Plan, Trace, find_layers, make_plan, trace
from onnxnorm.scaling.filters import FilterKind
from onnxnorm.scaling.plan import PlannedGroup, tied_filters
from tests.corpus import CASES, Net, feeds


def walked(proto: onnx.ModelProto) -> Trace:
    return trace(read_graph(Model.open(proto), {name: array.shape for name, array in feeds(proto).items()}))


def planned(proto: onnx.ModelProto, kind: FilterKind = "conv", dead: int = 0) -> Plan:
    found = walked(proto)
    return make_plan(found, find_layers(found, kind), dead)


@pytest.mark.parametrize("name", list(CASES))
@pytest.mark.parametrize("kind", ["conv", "all"])
def test_it_adds_up(name: str, kind: FilterKind) -> None:
    plan = planned(CASES[name].build(), kind)
    assert plan.free + plan.pinned + plan.tied == plan.filters == sum(layer.filters for layer in plan.layers)
    for layer in plan.layers:
        assert layer.free + layer.pinned + layer.tied == layer.filters
        assert bool(layer.reasons) == bool(layer.pinned or layer.tied)
        assert any(reason.startswith("tied by ") for reason in layer.reasons) == bool(layer.tied), layer.reasons
    assert sum(group.channels for group in plan.groups) == plan.filters
    assert sum(group.channels for group in plan.groups if group.pinned) == plan.pinned
    costs = [barrier.channels for barrier in plan.barriers]
    assert costs == sorted(costs, reverse=True)
    assert min(costs, default=1) > 0
    assert bool(costs) == bool(plan.pinned)
    again = json.loads(json.dumps(plan.to_json()))
    assert {"filters", "free", "pinned", "tied", "dead", "barriers", "groups", "layers"} == set(again)
    assert set(again["groups"][0]) == {"values", "channels", "tied", "pinned"} if plan.groups else True
    assert all(set(b) == {"node", "op", "value", "channels", "reason"} for b in again["barriers"])


def test_groups_are_named_by_their_values() -> None:
    plan = planned(CASES["plain_chain"].build())
    first, second = plan.groups
    assert first == PlannedGroup(values=("v3", "a"), channels=4, tied=False, pinned=False)
    assert second.values[:2] == ("v6", "b")
    assert (second.channels, second.tied) == (5, False)


def test_tied_groups() -> None:
    plan = planned(CASES["add_with_a_third_reader"].build())
    assert [(group.channels, group.tied) for group in plan.groups] == [(8, True), (4, False)]
    assert "s" in plan.groups[0].values
    assert [(layer.free, layer.tied) for layer in plan.layers] == [(0, 4), (0, 4), (4, 0)]


def test_channels_of_one_layer_may_have_different_fates() -> None:
    plan = planned(CASES["slice_of_one_added"].build())
    (layer,) = plan.layers
    assert (layer.free, layer.tied, layer.pinned) == (2, 2, 0)
    assert sorted((group.channels, group.tied) for group in plan.groups) == [(2, False), (2, True)]


def test_barriers_cost_what_they_pin() -> None:
    net = Net()
    x = net.input()
    wide, narrow = net.block(x, 3, 6, "wide"), net.block(x, 3, 2, "narrow")
    net.op("Sigmoid", wide, out="s", name="squash")
    plan = planned(net.model("s", narrow))
    assert [(b.node, b.op, b.value, b.channels) for b in plan.barriers[:1]] == [("squash", "Sigmoid", "wide", 6)]
    assert ("narrow", "output", "narrow", 2) in [(b.node, b.op, b.value, b.channels) for b in plan.barriers]
    assert plan.barriers[0].reason == "scaling its input does not just scale its output"


def test_dead_filters_are_told_by_statistics() -> None:
    proto = CASES["plain_chain"].build()
    assert (planned(proto).dead, planned(proto, dead=3).dead) == (0, 3)
    assert str(planned(proto)) == "9 filters in 2 layers: 9 free, 0 tied, 0 pinned"
    assert str(planned(proto, dead=1)).endswith("0 pinned, 1 dead")


def test_no_layers() -> None:
    net = Net()
    net.relu(net.input(), "y")
    plan = planned(net.model("y"))
    assert (plan.filters, plan.groups, plan.barriers, plan.layers) == (0, (), (), ())
    assert tied_filters(walked(net.model("y")), []) == []


def test_a_name_that_is_used_twice_or_not_at_all() -> None:
    for case in ("nodes_with_one_name", "nodes_without_names"):
        plan = planned(CASES[case].build())
        assert len(plan.layers) == 2
        assert all(layer.node for layer in plan.layers)


def test_tied_is_not_pinned() -> None:
    found = walked(CASES["residual_on_input"].build())
    layers = find_layers(found)
    assert not np.concatenate(tied_filters(found, layers)).any()
