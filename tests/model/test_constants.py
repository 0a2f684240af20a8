"""Where constants live, which of them may be changed, and why others may not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from onnxnorm.errors import ModelError
from onnxnorm.model.constants import Constant, stored_constants
from onnxnorm.model.files import Model
from tests.corpus import DOUBLE, FLOAT, FLOAT16, Net


def constants_of(proto: onnx.ModelProto) -> dict[str, Constant]:
    return stored_constants(Model.open(proto))


@pytest.mark.parametrize("how", ["raw", "typed", "node"])
@pytest.mark.parametrize("dtype", [FLOAT, FLOAT16, TensorProto.BFLOAT16, DOUBLE])
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3), (50, 30)])
def test_every_home_gives_the_same_values(how: str, dtype: int, shape: tuple[int, ...]) -> None:
    net = Net(dtype=dtype)
    values = np.arange(int(np.prod(shape))).reshape(shape) / 4
    net.const(values, "c", how=how)
    net.relu(net.input(), "y")
    constant = constants_of(net.model("y"))["c"]
    assert (constant.shape, constant.size, constant.fixed) == (shape, values.size, None)
    assert constant.home == ("node" if how == "node" else "initializer")
    assert constant.values().shape == shape
    expected = values.astype(constant.dtype).astype(np.float64)
    np.testing.assert_array_equal(constant.values().astype(np.float64), expected)


def test_what_is_fixed_and_why() -> None:
    net = Net()
    net.input("x")
    for name in ("plain", "input", "output"):
        net.const([1.0], name)
    net.const([1], "integers", dtype=TensorProto.INT64)
    net.const([1], "eighths", dtype=TensorProto.FLOAT8E4M3FN)
    net.const([2.0], "node output", how="node")
    net.const([2], "node integers", how="node", dtype=TensorProto.INT64)
    net.inputs.append(helper.make_tensor_value_info("input", FLOAT, [1]))
    net.relu("x", "y")
    reasons = {
        "plain": None,
        "input": "graph input",
        "output": None,
        "integers": "not floating point",
        "eighths": "not floating point",
        "node output": None,
        "node integers": "not floating point",
    }
    for ir in (8, 3):
        net.ir = ir
        found = constants_of(net.model("y", "output", "node output"))
        assert found.keys() == reasons.keys()
        assert {name for name, constant in found.items() if constant.kept} == {"output", "node output"}
        for name, reason in reasons.items():
            fixed = found[name].fixed
            if reason is None or (ir == 3 and name == "input"):
                assert fixed is None, name
            else:
                assert fixed is not None, name
                assert reason in fixed


def test_attributes_of_constant_nodes() -> None:
    net = Net()
    attributes: dict[str, Any] = {
        "value_float": 2.5,
        "value_floats": [1.5, 2.5],
        "value_int": 3,
        "value_ints": [4, 5],
        "value_string": "text",
    }
    for name, value in attributes.items():
        net.nodes.append(helper.make_node("Constant", [], [name], **{name: value}))
    sparse = helper.make_sparse_tensor(
        helper.make_tensor("v", FLOAT, [1], [1.0]), helper.make_tensor("i", TensorProto.INT64, [1], [1]), [4]
    )
    net.nodes.append(helper.make_node("Constant", [], ["sparse_value"], sparse_value=sparse))
    net.nodes.append(helper.make_node("Constant", [], ["other"], domain="elsewhere", value_float=1.0))
    net.relu(net.input(), "y")
    found = constants_of(net.model("y"))
    assert found.keys() == {"value_float", "value_floats", "value_int", "value_ints"}
    for name, constant in found.items():
        np.testing.assert_array_equal(constant.values(), attributes[name])
        assert constant.dtype == (np.float32 if "float" in name else np.int64)
        assert constant.fixed == "is a Constant node without a tensor"


def sparse_net(indices: list[int] | list[list[int]]) -> onnx.ModelProto:
    net = Net()
    values = helper.make_tensor("s", FLOAT, [2], [1.0, -2.0])
    flat = np.asarray(indices, np.int64)
    where = helper.make_tensor("i", TensorProto.INT64, flat.shape, flat.reshape(-1))
    net.sparse.append(helper.make_sparse_tensor(values, where, [3, 4]))
    net.op("MatMul", net.input(shape=("N", 3)), "s", out="y")
    return net.model("y")


def test_sparse_initializers() -> None:
    expected = np.zeros((3, 4), np.float32)
    expected[0, 1], expected[2, 3] = 1, -2
    for indices in ([1, 11], [[0, 1], [2, 3]]):
        found = constants_of(sparse_net(indices))["s"]
        np.testing.assert_array_equal(found.values(), expected)
        assert found.fixed == "is sparse"
    with pytest.raises(ModelError, match="outside of its shape"):
        constants_of(sparse_net([1, 12]))["s"].values()


def test_a_constant_node_with_its_value_in_a_file() -> None:
    tensor = TensorProto(name="c", data_type=FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="w.bin")
    net = Net()
    net.nodes.append(helper.make_node("Constant", [], ["c"], value=tensor, name="k"))
    net.op("Add", net.input(), "c", out="y")
    with pytest.raises(ModelError, match="Constant node 'k' keeps its value in another file"):
        constants_of(net.model("y"))


def test_a_constant_node_with_data_of_another_size() -> None:
    net = Net()
    tensor = TensorProto(name="c", data_type=FLOAT, dims=[4], float_data=[1, 2, 3])
    net.nodes.append(helper.make_node("Constant", [], ["c"], value=tensor))
    net.relu(net.input(), "y")
    with pytest.raises(ModelError, match="holds 3"):
        constants_of(net.model("y"))


@pytest.mark.parametrize(
    ("places", "shared"),
    [
        ([(0, 40), (40, 40)], set()),
        ([(0, 40), (0, 40)], {"w0", "w1"}),
        ([(0, 40), (36, 40)], {"w0", "w1"}),
        ([(80, 40), (0, 40), (60, 40)], {"w0", "w2"}),
        ([(0, 400), (40, 40), (400, 40), (200, 40)], {"w0", "w1", "w3"}),
        ([(0, 400), (40, 40), (120, 40)], {"w0", "w1", "w2"}),
    ],
)
def test_shared_bytes(tmp_path: Path, places: list[tuple[int, int]], shared: set[str]) -> None:
    """Initializers on the same bytes of a file cannot change apart, nor any that overlap: only copies of them may."""
    net = Net()
    (tmp_path / "w.bin").write_bytes(bytes(1000))
    for index, (offset, length) in enumerate(places):
        tensor = TensorProto(name=f"w{index}", data_type=FLOAT, dims=[length // 4], data_location="EXTERNAL")
        for key, value in {"location": "w.bin", "offset": offset, "length": length}.items():
            tensor.external_data.add(key=key, value=str(value))
        net.initializers.append(tensor)
    net.relu(net.input(), "y")
    (tmp_path / "m.onnx").write_bytes(net.model("y").SerializeToString())
    found = stored_constants(Model.open(tmp_path / "m.onnx"))
    assert {name for name, constant in found.items() if constant.kept} == shared
    assert not any(constant.fixed for constant in found.values())
