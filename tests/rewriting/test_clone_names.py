"""The name of a clone is new to the whole graph, its subgraphs included."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from onnxnorm.errors import ModelError
from onnxnorm.model.graph import all_names
from onnxnorm.rewriting.constants import _Names
from onnxnorm.scaling.slots import Slots


def graph_with_a_branch() -> onnx.GraphProto:
    value = helper.make_tensor_value_info
    inner = helper.make_node("Identity", ["w_onnxnorm1"], ["inside"])
    branch = helper.make_graph([inner], "branch", [], [value("inside", TensorProto.FLOAT, [1])])
    choice = helper.make_node("If", ["flag"], ["y"], then_branch=branch, else_branch=branch)
    return helper.make_graph(
        [choice], "main", [value("flag", TensorProto.BOOL, [])], [value("y", TensorProto.FLOAT, [1])]
    )


def test_names_of_subgraphs_are_taken() -> None:
    proto = helper.make_model(graph_with_a_branch())
    assert {"flag", "y", "inside", "w_onnxnorm1"} <= all_names(proto.graph)
    names = _Names(proto)
    assert names.fresh("w") == "w_onnxnorm2"
    assert names.fresh("w") == "w_onnxnorm3"
    assert names.fresh("v") == "v_onnxnorm1"


def test_slots_that_do_not_broadcast_are_a_model_error() -> None:
    slots = Slots()
    with pytest.raises(ModelError, match="do not fit"):
        slots.tie(slots.fresh(2), slots.fresh(3))
    slots.tie(slots.fresh(1), slots.fresh(3))
    assert np.concatenate(slots.ties, axis=1).shape == (2, 3)
