"""Weights that do not fit, behind an operator of which no shapes are known: a message, or a barrier."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import onnxnorm
from onnxnorm.errors import ModelError


def model(*nodes: onnx.NodeProto, tensors: tuple[TensorProto, ...] = ()) -> onnx.ModelProto:
    """A model from `x` (1, 3) to `y`."""
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, s) for name, s in (("x", [1, 3]), ("y", None)))
    graph = helper.make_graph(list(nodes), "g", [x], [y], list(tensors))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18), helper.make_opsetid("own", 1)])


@pytest.mark.parametrize("shape", [(), (3,), (4, 3, 3), (5, 3, 3, 3), (4, 0, 3, 3)])
@pytest.mark.parametrize(
    ("op", "group"),
    [
        *((op, group) for op in ("Conv", "ConvTranspose", "DeformConv") for group in (-1, 2, 10**6)),
        *((op, 1) for op in ("Gemm", "MatMul", "BatchNormalization")),
    ],
)
def test_weights_that_do_not_fit_behind_an_unknown_operator(op: str, shape: tuple[int, ...], group: int) -> None:
    """What ONNX's own checks cannot tell, as they know no shape there, is refused, or a barrier."""
    attributes: dict[str, Any] = {"group": group} if "Conv" in op else {}
    more = {"Conv": ["b"], "DeformConv": ["b", "b"], "Gemm": ["b"], "BatchNormalization": ["b"] * 3}.get(op, [])
    tensors = tuple(
        numpy_helper.from_array(np.ones(size, np.float32), name) for name, size in (("w", shape), ("b", (7,)))
    )
    for front in ([], [helper.make_node("Conv", ["h", "v"], ["h2"])]):
        unknown = helper.make_node("Unknown", ["x"], ["h"], domain="own")
        node = helper.make_node(op, ["h2" if front else "h", "w", *more], ["y"], name="n", **attributes)
        front_weight = numpy_helper.from_array(np.ones((5, 3, 1, 1), np.float32), "v")
        with suppress(ModelError):
            onnxnorm.plan(model(unknown, *front, node, tensors=(*tensors, front_weight)))


def test_the_message_names_the_node_and_the_value_without_a_shape() -> None:
    unknown = helper.make_node("Unknown", ["x"], ["h"], domain="own")
    weight = numpy_helper.from_array(np.ones(3, np.float32), "w")
    with pytest.raises(ModelError, match=r"^Conv node 'n' has .* do not fit .* because the shape of 'h' is not known"):
        onnxnorm.plan(model(unknown, helper.make_node("Conv", ["h", "w"], ["y"], name="n"), tensors=(weight,)))
