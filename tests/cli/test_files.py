"""The rewritten file, field by field: nothing but constants' values and the provenance differs from the original."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.helpers.commands import DEMO, SOME, succeeded
from tests.helpers.graphs import model, rand

VALUES = {"raw_data", "float_data", "double_data", "int32_data"}


def differences(one: Any, two: Any, where: str = "") -> Iterator[str]:
    """Paths of all fields in which two protobuf messages differ; knows nothing of ONNX."""
    names = {field.name: field for message in (one, two) for field, _ in message.ListFields()}
    for name, descriptor in names.items():
        path = f"{where}.{name}".lstrip(".")
        if (
            descriptor.is_repeated
            if hasattr(descriptor, "is_repeated")
            else descriptor.label == descriptor.LABEL_REPEATED
        ):
            left, right = list(getattr(one, name)), list(getattr(two, name))
            if len(left) != len(right):
                yield f"{path}: {len(left)} and {len(right)}"
            elif descriptor.message_type is None:
                if left != right:
                    yield path
            else:
                for index, (a, b) in enumerate(zip(left, right, strict=True)):
                    yield from differences(a, b, f"{path}[{index}]")
        elif descriptor.message_type is not None:
            if one.HasField(name) != two.HasField(name):
                yield path
            else:
                yield from differences(getattr(one, name), getattr(two, name), path)
        elif one.HasField(name) != two.HasField(name) or getattr(one, name) != getattr(two, name):
            yield path


def without_provenance(proto: onnx.ModelProto) -> onnx.ModelProto:
    bare = onnx.ModelProto()
    bare.CopyFrom(proto)
    kept = [(entry.key, entry.value) for entry in proto.metadata_props if not entry.key.startswith("onnxnorm.")]
    del bare.metadata_props[:]
    for key, value in kept:
        bare.metadata_props.add(key=key, value=value)
    return bare


def provenance(proto: onnx.ModelProto) -> dict[str, str]:
    return {entry.key: entry.value for entry in proto.metadata_props if entry.key.startswith("onnxnorm.")}


def rich() -> onnx.ModelProto:
    """A model that uses everything that a careless tool would lose."""
    proto = model(
        """
        a = Conv<pads=[1,1,1,1]>(x, w1, b1)
        n = BatchNormalization(a, g, o, m, v)
        r = Relu(n)
        k = Constant()
        t = Mul(r, k)
        c = Conv<group=2, pads=[1,1,1,1]>(t, w2)
        q = LeakyRelu(c)
        f = Flatten(q)
        h = Gemm(f, w3, b3)
        unused = Identity(h)
        z = Softmax(h)
        """,
        {"x": ("n", 3, 8, 8)},
        {
            "w1": rand(40, 3, 3, 3),
            "w2": rand(20, 20, 3, 3, seed=1),
            "w3": rand(20 * 64, 7, seed=2),
            "unread": rand(5),
            "table": np.arange(9),
        },
        ("z", "h"),
        opset=17,
    )
    graph = proto.graph
    for name, array in {
        "b1": rand(40, seed=3),
        "b3": rand(7, seed=4),
        "g": rand(40, seed=5) + 2,
        "o": rand(40, seed=6),
        "m": rand(40, seed=7),
        "v": rand(40, seed=8) ** 2 + 1,
    }.items():
        graph.initializer.append(helper.make_tensor(name, TensorProto.FLOAT, array.shape, array.tolist()))
    value = helper.make_tensor("k", TensorProto.FLOAT, (40, 1, 1), rand(40, seed=9).tolist())
    graph.node[3].attribute.append(helper.make_attribute("value", value))
    graph.input.append(helper.make_tensor_value_info("b3", TensorProto.FLOAT, (7,)))  # may be overridden: not ours
    graph.value_info.append(helper.make_tensor_value_info("r", TensorProto.FLOAT, ("n", 40, 8, 8)))
    graph.quantization_annotation.add(tensor_name="r").quant_parameter_tensor_names.add(key="SCALE_TENSOR", value="s")
    graph.doc_string = "the graph"
    graph.metadata_props.add(key="graph", value="kept")
    graph.node[0].doc_string = "a node"
    graph.node[0].metadata_props.add(key="node", value="kept")
    graph.initializer[0].doc_string = "a weight"
    graph.initializer[0].metadata_props.add(key="weight", value="kept")
    proto.producer_name, proto.producer_version, proto.domain = "someone", "1.2", "some.where"
    proto.model_version, proto.doc_string = 7, "the model"
    proto.metadata_props.add(key="author", value="someone")
    proto.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    proto.opset_import.append(helper.make_opsetid("mine", 1))
    node = helper.make_node("Relu", ["u"], ["y"])
    proto.functions.append(helper.make_function("mine", "F", ["u"], ["y"], [node], [helper.make_opsetid("", 17)]))
    return proto


def checked(original: onnx.ModelProto, rewritten: onnx.ModelProto) -> set[str]:
    """Assert that only constants' values and the provenance differ; returns the names of those constants."""
    found = set()
    for path in differences(without_provenance(original), without_provenance(rewritten)):
        owner, _, leaf = path.rpartition(".")
        assert leaf in VALUES, path
        kind = owner.partition("[")[0]
        assert kind in {"graph.initializer", "graph.node"}, path
        index = int(owner.partition("[")[2].partition("]")[0])
        if kind == "graph.node":
            assert original.graph.node[index].op_type == "Constant"
            found.add(original.graph.node[index].output[0])
        else:
            found.add(original.graph.initializer[index].name)
    return found


def normalized(source: Path, data: Path, *options: str) -> Path:
    out = source.with_name("out.onnx")
    succeeded("normalize", source, data, "-o", out, *options)
    return out


@pytest.fixture
def data(tmp_path: Path) -> Path:
    np.save(tmp_path / "data.npy", rand(10, 3, 8, 8))
    return tmp_path / "data.npy"


def test_a_rich_model(tmp_path: Path, data: Path) -> None:
    onnx.save(rich(), tmp_path / "rich.onnx")
    before = (tmp_path / "rich.onnx").read_bytes()
    out = onnx.load(normalized(tmp_path / "rich.onnx", data))
    assert checked(rich(), out) == {"w1", "b1", "m", "g", "o", "k", "w2", "w3"} - {"w1", "b1", "m"}
    assert (tmp_path / "rich.onnx").read_bytes() == before
    assert len(out.metadata_props) > 1
    assert out.metadata_props[0].key == "author"


def test_the_demo(tmp_path: Path) -> None:
    out = tmp_path / "out.onnx"
    succeeded("normalize", DEMO, *SOME, "--preset", "unit", "-o", out)
    changed = checked(onnx.load(DEMO), onnx.load(out))
    layers = {name for node in onnx.load(DEMO).graph.node if node.op_type == "Conv" for name in node.input[1:]}
    assert layers <= changed
    record = provenance(onnx.load(out))
    assert {f"onnxnorm.{name}" for name in ("version", "statistic", "target", "original", "statistics")} <= set(record)
    assert record["onnxnorm.statistic"] == "mean"
    assert float(record["onnxnorm.target"]) == 1.0


def test_a_second_rewrite_replaces_the_provenance_of_the_first(tmp_path: Path, data: Path) -> None:
    onnx.save(rich(), tmp_path / "rich.onnx")
    once = normalized(tmp_path / "rich.onnx", data).rename(tmp_path / "once.onnx")
    twice = normalized(once, data, "--target", "2")
    assert checked(onnx.load(once), onnx.load(twice))
    record = provenance(onnx.load(twice))
    assert float(record["onnxnorm.target"]) == 2.0
    assert record["onnxnorm.original"] != provenance(onnx.load(once))["onnxnorm.original"]
    keys = [entry.key for entry in onnx.load(twice).metadata_props]
    assert len(keys) == len(set(keys))


def test_external_data_keeps_its_layout(tmp_path: Path, data: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    onnx.save(rich(), source / "rich.onnx", save_as_external_data=True, location="rich.bin", size_threshold=1000)
    out = tmp_path / "out.onnx"
    succeeded("normalize", source / "rich.onnx", data, "-o", out)
    one, two = (onnx.load(path, load_external_data=False) for path in (source / "rich.onnx", out))
    for a, b in zip(one.graph.initializer, two.graph.initializer, strict=True):
        assert a.external_data == b.external_data
        assert a.data_location == b.data_location
    checked(one, two)
    assert (source / "rich.bin").stat().st_size == (tmp_path / "rich.bin").stat().st_size
    assert checked(onnx.load(source / "rich.onnx"), onnx.load(out)) == {"g", "o", "k", "w2", "w3"}
    assert numpy_helper.to_array(onnx.load(out).graph.initializer[2]).shape == (1280, 7)


def test_the_original_may_be_overwritten(tmp_path: Path, data: Path) -> None:
    path = tmp_path / "rich.onnx"
    onnx.save(rich(), path)
    succeeded("normalize", path, data, "-o", path, "--in-place")
    assert checked(rich(), onnx.load(path))
    assert sorted(item.name for item in tmp_path.iterdir()) == ["data.npy", "rich.onnx"]


def test_the_comparison_can_fail() -> None:
    for change, path in (
        (lambda proto: setattr(proto.graph.node[0], "name", "x"), "graph.node[0].name"),
        (lambda proto: proto.functions.pop(), "functions: 1 and 0"),
        (lambda proto: setattr(proto.graph.initializer[0], "doc_string", ""), "graph.initializer[0].doc_string"),
        (lambda proto: proto.graph.quantization_annotation.pop(), "graph.quantization_annotation: 1 and 0"),
    ):
        other = rich()
        change(other)
        assert list(differences(rich(), other)) == [path]
    assert list(differences(rich(), rich())) == []
