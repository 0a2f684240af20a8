"""What counts as the same graph: everything but constants' values and the provenance."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import onnxnorm
from onnxnorm.model.files import Model
from onnxnorm.verification import same_graph
from tests.helpers.graphs import model, rand


def network() -> onnx.ModelProto:
    proto = model(
        "a = Conv(x, w, b) r = Relu(a) k = Constant<value = float[1] {2.0}>() q = Mul(r, k) z = Reshape(q, s)",
        {"x": ("n", 3, 8, 8)},
        {"w": rand(40, 3, 3, 3), "b": rand(40), "s": [0, -1], "table": np.arange(4000)},
    )
    for node in proto.graph.node:
        node.name = f"n_{node.output[0]}"
    proto.metadata_props.add(key="author", value="someone")
    proto.graph.doc_string = "what it is for"
    return proto


def verdict(change: Callable[[onnx.ModelProto], object]) -> bool:
    changed = network()
    change(changed)
    return same_graph(Model.open(network()), Model.open(changed))


def tensor(proto: onnx.ModelProto, name: str) -> onnx.TensorProto:
    return next(item for item in proto.graph.initializer if item.name == name)


def put(name: str, array: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> Callable[[onnx.ModelProto], object]:
    return lambda proto: tensor(proto, name).CopyFrom(numpy_helper.from_array(array, name))


def renamed(proto: onnx.ModelProto, old: str, new: str) -> None:
    tensor(proto, old).name = new
    for node in proto.graph.node:
        node.input[:] = [new if name == old else name for name in node.input]


SAME: dict[str, Callable[[onnx.ModelProto], object]] = {
    "nothing": lambda _: None,
    "a bulky weight": put("w", rand(40, 3, 3, 3, seed=9)),
    "a small bias": put("b", rand(40, seed=9)),
    "the value of a Constant node": lambda proto: proto.graph.node[2].attribute[0].t.float_data.__setitem__(0, 3.0),
    "provenance": lambda proto: proto.metadata_props.add(key="onnxnorm.version", value="1"),
}

OTHER: dict[str, Callable[[onnx.ModelProto], object]] = {
    "a node's name": lambda proto: setattr(proto.graph.node[0], "name", "other"),
    "an operator": lambda proto: setattr(proto.graph.node[1], "op_type", "Abs"),
    "an attribute": lambda proto: proto.graph.node[0].attribute.append(helper.make_attribute("group", 1)),
    "the order of nodes": lambda proto: proto.graph.node.insert(0, proto.graph.node.pop(2)),
    "a node more": lambda proto: proto.graph.node.append(helper.make_node("Relu", ["r"], ["unused"])),
    "a node's doc string": lambda proto: setattr(proto.graph.node[0], "doc_string", "new"),
    "an initializer's name": lambda proto: renamed(proto, "b", "b2"),
    "an initializer's shape": put("b", rand(40, 1)),
    "an initializer's dtype": put("b", rand(40).astype(np.float16)),
    "the order of initializers": lambda proto: proto.graph.initializer.insert(0, proto.graph.initializer.pop(1)),
    "an initializer more": lambda proto: proto.graph.initializer.append(numpy_helper.from_array(rand(2), "more")),
    "small whole numbers": put("s", np.array([0, 1])),
    "bulky whole numbers": put("table", np.arange(4000) + 1),
    "metadata lost": lambda proto: proto.metadata_props.pop(),
    "metadata changed": lambda proto: setattr(proto.metadata_props[0], "value", "someone else"),
    "the doc string": lambda proto: setattr(proto.graph, "doc_string", ""),
    "the opset": lambda proto: setattr(proto.opset_import[0], "version", 18),
    "the IR version": lambda proto: setattr(proto, "ir_version", 9),
    "the producer": lambda proto: setattr(proto, "producer_name", "onnxnorm"),
    "an input's shape": lambda proto: setattr(proto.graph.input[0].type.tensor_type.shape.dim[2], "dim_value", 9),
    "an output": lambda proto: proto.graph.output.add(name="r"),
    "value information": lambda proto: proto.graph.value_info.append(
        helper.make_tensor_value_info("r", TensorProto.FLOAT, None)
    ),
}


@pytest.mark.parametrize("name", SAME)
def test_values_and_provenance_do_not_count(name: str) -> None:
    assert verdict(SAME[name])


@pytest.mark.parametrize("name", OTHER)
def test_everything_else_counts(name: str) -> None:
    assert not verdict(OTHER[name])


def test_external_data_may_have_another_name_but_not_another_place(tmp_path: Path) -> None:
    for name in ("one", "two"):
        onnx.save(
            network(), tmp_path / f"{name}.onnx", save_as_external_data=True, location=f"{name}.data", size_threshold=0
        )
    one, two = (Model.open(tmp_path / f"{name}.onnx") for name in ("one", "two"))
    assert same_graph(one, two)
    assert not same_graph(one, Model.open(network()))
    moved = onnx.ModelProto()
    moved.CopyFrom(two.proto)
    next(entry for entry in moved.graph.initializer[1].external_data if entry.key == "offset").value = "0"
    assert not same_graph(one, Model(moved, two.tensor_data, two.path))


def shared_bound() -> onnx.ModelProto:
    """Two Clips that read one bound, behind filters of different magnitude."""
    return model(
        "a = Conv(x, w) r = Clip(a, , six) c = Conv(r, v) s = Clip(c, , six) z = Conv(s, u)",
        {"x": ("n", 3, 8, 8)},
        {"w": rand(4, 3, 1, 1), "v": 9 * rand(5, 4, 1, 1), "u": rand(2, 5, 1, 1), "six": np.float32(6)},
    )


def test_copied_constants_are_counted() -> None:
    """The graph has a constant more, which the verdict says; it is not the same byte for byte."""
    done = onnxnorm.normalize(shared_bound(), rand(4, 3, 8, 8), provider="cpu")
    assert [clone.constant for clone in done.rewriting.clones] == ["six"]
    verdict = onnxnorm.verify(shared_bound(), done.model, provider="cpu")
    assert verdict.graph == "the same but for constants' values and 1 copied constant"
    assert not verdict.graph_identical
    assert verdict.to_json()["constants_copied"] == 1
    other = done.model
    other.graph.node[0].doc_string = "new"
    assert onnxnorm.verify(shared_bound(), other, provider="cpu").graph == "not the same"


def test_no_copies_are_not_mentioned() -> None:
    verdict = onnxnorm.verify(network(), network(), provider="cpu")
    assert verdict.graph == "the same but for constants' values"
    assert "constants_copied" not in verdict.to_json()
