"""Editing a graph prints nothing on standard output, which holds results only."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

import onnxnorm
from onnxnorm.model.files import Model


def test_nothing_is_printed_while_a_probe_is_built(capfd: pytest.CaptureFixture[str]) -> None:
    """onnx-graphsurgeon prints warnings about types that NumPy lacks on standard output."""
    values = np.ones((4, 3, 1, 1), ml_dtypes.bfloat16)
    nodes = [
        helper.make_node("Cast", ["w"], ["v"], to=TensorProto.FLOAT),
        helper.make_node("Conv", ["x", "v"], ["c"]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("GlobalAveragePool", ["r"], ["y"]),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 4, 4])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "g", [x], [y], [numpy_helper.from_array(values, "w")])
    model = Model.open(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9))
    onnxnorm.calibrate(model.to_proto(), np.ones((2, 3, 4, 4), np.float32), provider="cpu")
    assert capfd.readouterr().out == ""
