"""Putting scales into constants: into the field that holds them, rounded once, cloned where readers differ."""

from __future__ import annotations

import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from onnxnorm.errors import ModelError
from onnxnorm.model import mapped_data
from onnxnorm.model.files import Model
from onnxnorm.model.protobuf import join_weights
from onnxnorm.model.shapes import read_graph
from onnxnorm.rewriting import constants
from onnxnorm.rewriting.constants import Applied, apply_edits
from onnxnorm.scaling import Trace, trace
from tests.corpus import BFLOAT16, DOUBLE, FLOAT, FLOAT16, Net, feeds

Floats = NDArray[np.float64]


def walked(source: onnx.ModelProto | Path, proto: onnx.ModelProto) -> tuple[Model, Trace]:
    model = Model.open(source)
    return model, trace(read_graph(model, {name: array.shape for name, array in feeds(proto).items()}), "scale")


def edited(source: onnx.ModelProto | Path, proto: onnx.ModelProto, seed: int = 0) -> tuple[Applied, Trace, Floats]:
    """Every group gets a random scale."""
    model, found = walked(source, proto)
    of_group = np.random.default_rng(seed).uniform(0.1, 10, found.groups.count)
    of_group[found.groups.pinned >= 0] = 1
    of_slot = of_group[found.groups.of]
    return apply_edits(model, found.edits, of_slot), found, of_slot


def dense(dtype: int, how: str, size: int = 5) -> onnx.ModelProto:
    """y = relu(x) * W + b."""
    net = Net(dtype=dtype, how=how)
    net.op("Gemm", net.relu(net.input(shape=("N", 6))), net.weight(6, size, name="w"), net.bias(size, "b"), out="y")
    return net.model("y")


def field_of(tensor: TensorProto) -> str:
    return next(f.name for f, _ in tensor.ListFields() if f.name.endswith("_data"))


@pytest.mark.parametrize("how", ["raw", "typed", "node"])
@pytest.mark.parametrize("dtype", [FLOAT, FLOAT16, BFLOAT16, DOUBLE])
@pytest.mark.parametrize("size", [5, 1000])
def test_fields_and_rounding(how: str, dtype: int, size: int) -> None:
    """Computed in float64, rounded once to the type, and put where the values were."""
    proto = dense(dtype, how, size)
    applied, found, of_slot = edited(proto, proto)
    scale = of_slot[found.ids["y"]].reshape(-1)
    assert len(set(scale.tolist())) == size
    result = applied.model.to_proto()
    assert applied.changed == ("w", "b")
    assert not applied.clones

    def tensors(model: onnx.ModelProto) -> dict[str, TensorProto]:
        nodes = [node for node in model.graph.node if node.op_type == "Constant"]
        return {t.name: t for t in model.graph.initializer} | {node.output[0]: node.attribute[0].t for node in nodes}

    before, after = tensors(proto), tensors(result)
    assert list(before) == list(after)
    for name, times in (("w", scale[np.newaxis]), ("b", scale)):
        old, new = numpy_helper.to_array(before[name]), numpy_helper.to_array(after[name])
        assert (old.astype(np.float64) * times).astype(old.dtype).tobytes() == new.tobytes()
        assert field_of(before[name]) == field_of(after[name])
    blanked = result
    for name, tensor in tensors(blanked).items():
        tensor.CopyFrom(before[name])
    assert blanked == proto


def shared(size: int, *, same: bool, how: str = "raw", home: str = "") -> onnx.ModelProto:
    """Two convolutions with one weight; their outputs meet in an Add if they are to have the same scale."""
    net = Net(how=how)
    w = net.weight(size, size, 3, 3, name="w")
    x = net.relu(net.input(shape=("N", size, 5, 5)))
    a, b = (net.op("Conv", x, w, out=f"c{k}", name=home) for k in (1, 2))
    net.op("Add", a, b, out="y") if same else net.op("Concat", a, b, out="y", axis=1)
    return net.model("y")


@pytest.mark.parametrize("size", [3, 20])
@pytest.mark.parametrize("how", ["raw", "typed", "node"])
@pytest.mark.parametrize("external", [False, True])
def test_readers_that_differ_get_clones(tmp_path: Path, size: int, how: str, external: bool) -> None:
    proto = shared(size, same=False, how=how)
    source: onnx.ModelProto | Path = proto
    if external:
        if how != "raw":
            pytest.skip("external data is raw")
        source = tmp_path / "m.onnx"
        copy = onnx.ModelProto.FromString(proto.SerializeToString())
        onnx.save_model(copy, source, save_as_external_data=True, location="w.bin", size_threshold=0)
    applied, found, of_slot = edited(source, proto)
    (clone,) = applied.clones
    assert (clone.constant, clone.clone, clone.node) == ("w", "w_onnxnorm1", "c2")
    result = applied.model.to_proto()
    readers = {node.output[0]: node.input[1] for node in result.graph.node if node.op_type == "Conv"}
    assert set(readers.values()) == {"w", "w_onnxnorm1"}
    held = {t.name: numpy_helper.to_array(t) for t in result.graph.initializer}
    held |= {n.output[0]: numpy_helper.to_array(n.attribute[0].t) for n in result.graph.node if n.op_type == "Constant"}
    old = found.graph.constants["w"].values()
    for output, name in readers.items():
        scale = of_slot[found.ids[output]].reshape(-1, 1, 1, 1)
        np.testing.assert_array_equal(held[name], (old.astype(np.float64) * scale).astype(np.float32))
    assert [t.name for t in result.graph.initializer][: len(proto.graph.initializer)] == [
        t.name for t in proto.graph.initializer
    ]


@pytest.mark.parametrize("size", [3, 20])
def test_readers_that_agree_share(size: int) -> None:
    applied, _, _ = edited(shared(size, same=True), shared(size, same=True))
    assert applied.changed == ("w",)
    assert not applied.clones


def test_scales_of_one_change_nothing() -> None:
    proto = shared(3, same=False)
    model, found = walked(proto, proto)
    applied = apply_edits(model, found.edits, np.ones(len(found.groups.of)))
    assert applied.changed == ()
    assert not applied.clones
    assert applied.model.to_proto() == proto


def test_a_constant_that_is_read_twice_by_one_node() -> None:
    """Scale and shift of a BatchNormalization in one constant; only one of the two is divided by the input's scale."""
    net = Net()
    p = net.const([1.0, 2.0, 3.0], "p")
    mean, var = net.const([0.0, 0.5, 1.0]), net.const([1.0, 1.0, 2.0])
    c = net.op("Conv", net.input(), net.weight(3, 3, 1, 1))
    net.op("BatchNormalization", c, p, p, mean, var, out="y")
    proto = net.model("y")
    applied, _, _ = edited(proto, proto)
    assert [(clone.constant, clone.clone) for clone in applied.clones] == [("p", "p_onnxnorm1")]
    node = applied.model.to_proto().graph.node[1]
    assert sorted(node.input[1:3]) == ["p", "p_onnxnorm1"]


def test_clones_take_free_names_and_are_listed_in_old_files() -> None:
    net = Net(8, ir=3)
    b, select = net.bias(3, "b"), net.bias(3, "b_onnxnorm1")
    x = net.op("Add", net.input(shape=("N", 3)), select, out="b_onnxnorm2")
    c = net.op("Gemm", x, net.weight(3, 3), b)
    net.op("Gemm", c, net.weight(3, 3), b, out="y")
    proto = net.model("y")
    for tensor in proto.graph.initializer:
        proto.graph.input.add().CopyFrom(onnx.helper.make_tensor_value_info(tensor.name, FLOAT, tensor.dims))
    applied, _, _ = edited(proto, proto)
    assert [clone.clone for clone in applied.clones] == ["b_onnxnorm3"]
    assert applied.model.proto.graph.input[-1].name == "b_onnxnorm3"


def test_the_zeros_of_a_shared_bias_need_no_clone() -> None:
    net = Net()
    b, x = net.const(np.zeros(3), "b"), net.input(shape=("N", 3))
    c = net.op("Gemm", x, net.weight(3, 3), b)
    net.op("Gemm", c, net.weight(3, 3), b, out="y")
    proto = net.model("y")
    assert not edited(proto, proto)[0].clones


@pytest.mark.parametrize("shape", [(), (1,), (1, 1, 1)])
@pytest.mark.parametrize("external", [False, True])
def test_scalars(tmp_path: Path, shape: tuple[int, ...], external: bool) -> None:
    """A bound with no axis at all, inside the model and in a file."""
    net = Net()
    net.const(np.full(shape, 6.0), "high")
    net.op("Clip", net.op("Conv", net.input(), net.weight(3, 3, 1, 1)), "", "high", out="y")
    proto = net.model("y")
    source: onnx.ModelProto | Path = proto
    if external:
        source = tmp_path / "m.onnx"
        copy = onnx.ModelProto.FromString(proto.SerializeToString())
        onnx.save_model(copy, source, save_as_external_data=True, location="w.bin", size_threshold=0)
    applied, found, of_slot = edited(source, proto)
    scale = float(of_slot[found.ids["y"]].reshape(-1)[0])
    new = {t.name: numpy_helper.to_array(t) for t in applied.model.to_proto().graph.initializer}["high"]
    assert new.shape == shape
    np.testing.assert_array_equal(new, np.float32(6.0 * scale))


def test_what_leaves_the_range_is_refused() -> None:
    proto = dense(FLOAT16, "raw")
    model, found = walked(proto, proto)
    of_slot = np.where(found.groups.pinned[found.groups.of] >= 0, 1.0, 1e6)
    with pytest.raises(ModelError, match="'w' would overflow float16"):
        apply_edits(model, found.edits, of_slot)


def test_infinities_that_were_there_stay() -> None:
    net = Net()
    values: Any = np.asarray([[1.0, np.inf], [-np.inf, 2.0]])
    net.op("Gemm", net.input(shape=("N", 2)), net.const(values, "w"), out="y")
    proto = net.model("y")
    applied, _, _ = edited(proto, proto)
    new = numpy_helper.to_array(applied.model.to_proto().graph.initializer[0])
    np.testing.assert_array_equal(np.isinf(new), np.isinf(values))


def test_a_large_constant_is_scaled_beside_the_writing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mapped_data, "CHUNK", 4096)
    proto = dense(FLOAT, "raw", 2000)
    applied, *_ = edited(proto, proto)
    alone = [bytes(chunk) for data in applied.model.tensor_data.values() for chunk in data.chunks()]
    assert len(alone) > 6
    before = threading.active_count()
    monkeypatch.setattr(constants, "_LARGE", 0)
    assert [bytes(chunk) for data in applied.model.tensor_data.values() for chunk in data.chunks()] == alone
    with closing(join_weights(applied.model.proto.SerializeToString(), applied.model.tensor_data)) as chunks:
        while bytes(next(chunks)) != alone[0]:
            pass
        assert threading.active_count() == before + 1
    assert threading.active_count() == before


def test_a_large_constant_that_overflows_is_told_as_a_small_one_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "_LARGE", 0)
    proto = dense(FLOAT, "raw", 2000)
    model, found = walked(proto, proto)
    of_group = np.where(found.groups.pinned >= 0, 1, 1e300)
    applied = apply_edits(model, [e for e in found.edits if e.constant.name == "w"], of_group[found.groups.of])
    with pytest.raises(ModelError, match="constant 'w' would overflow float32"):
        applied.model.to_bytes()
