"""Chosen activations as outputs: the same numbers as in the whole network, and nothing else left of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import onnxnorm
from onnxnorm.rewriting.record import read_entries
from tests.helpers.commands import DEMO, SOME, run, succeeded
from tests.helpers.graphs import model, rand
from tests.helpers.vggs import VGG16, photo, vgg, with_outputs
from tests.helpers.vggs import run as run_model

LAYERS = ["relu1_1", "conv2_2", "pool3", "r6"]
VALUES = ["r0_out", "n3_out", "p2_out", "r6_out"]


def properties(proto: onnx.ModelProto) -> dict[str, str]:
    return {entry.key: entry.value for entry in proto.metadata_props}


@pytest.mark.parametrize("channels_last", [False, True])
def test_the_same_numbers_as_in_the_whole_network(channels_last: bool) -> None:
    whole = vgg(VGG16, (9, 8, 7), channels_last=channels_last)
    done = onnxnorm.features(whole, LAYERS)
    assert done.layers == dict(zip(LAYERS, VALUES, strict=True))
    onnx.checker.check_model(done.model, full_check=True)
    images = photo().transpose(0, 2, 3, 1) if channels_last else photo()
    expected = run_model(with_outputs(whole, VALUES), images)
    found = run_model(done.model, images)
    assert list(found) == VALUES
    for name in VALUES:
        np.testing.assert_array_equal(found[name], expected[name])


def test_only_what_is_needed_stays_and_keeps_its_bytes() -> None:
    whole = vgg(VGG16, (9, 8, 7))
    cut = onnxnorm.features(whole, "relu2_1").model
    assert [node.SerializeToString() for node in cut.graph.node] == [
        node.SerializeToString() for node in whole.graph.node[: len(cut.graph.node)]
    ]
    assert [tensor.name for tensor in cut.graph.initializer] == ["w0", "b0", "w1", "b1", "w2", "b2"]
    assert list(cut.graph.initializer) == list(whole.graph.initializer)[:6]


def test_outputs_in_the_order_asked_each_once() -> None:
    done = onnxnorm.features(vgg(), "pool2, relu1_1,r0")
    assert [value.name for value in done.cut.proto.graph.output] == ["p1_out", "r0_out"]
    assert done.layers == {"pool2": "p1_out", "relu1_1": "r0_out", "r0": "r0_out"}
    assert done.outputs["r0_out"] == "float nx4x?x?"


def test_names_of_the_model_go_before_those_of_the_literature() -> None:
    proto = vgg()
    proto.graph.node[2].name = "relu5_1"
    assert onnxnorm.features(proto, "relu5_1").layers == {"relu5_1": "n1_out"}


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ("rel1_1", "the model has no layer 'rel1_1'; near names are relu1_1"),
        ("RELU4_2", "near names are relu4_2"),
        ("image", "'image' is an input of the model, no layer"),
        ("w3", "'w3' is a constant of the model, no layer"),
        ("", "--layers names no layer"),
        ("relu1_1,zzz", "no layer 'zzz'; it has, for example, conv1_1"),
    ],
)
def test_a_layer_that_is_not_there(layers: str, message: str) -> None:
    with pytest.raises(onnxnorm.OptionError) as caught:
        onnxnorm.features(vgg(), layers)
    assert message in str(caught.value)


def test_why_the_names_of_the_literature_do_not_apply() -> None:
    proto = model("a = Conv(x, w) z = Sigmoid(a)", constants={"w": rand(4, 3, 1, 1)})
    with pytest.raises(onnxnorm.OptionError, match=r"do not apply: convolution 'a' is not 3x3\); it has"):
        onnxnorm.features(proto, "relu1_1")
    assert onnxnorm.features(proto, "a").layers == {"a": "a"}


def test_a_name_with_a_comma_is_one_name() -> None:
    proto = model("a = Relu(x) z = Abs(a)")
    proto.graph.node[0].output[0] = proto.graph.node[1].input[0] = "a,b"
    assert onnxnorm.features(proto, "a,b").layers == {"a,b": "a,b"}


def test_inputs_functions_and_sparse_constants_that_nobody_needs_go() -> None:
    proto = model("a = Relu(x) s = Abs(y) t = own.F(s) z = Add(t, k)", {"x": (1, 2), "y": (1, 2)}, domains=["own"])
    dense = numpy_helper.from_array(np.ones(1, np.float32), "k")
    sparse = helper.make_sparse_tensor(dense, numpy_helper.from_array(np.array([0])), [2])
    proto.graph.sparse_initializer.append(sparse)
    body = [helper.make_node("Neg", ["i"], ["o"])]
    proto.functions.append(helper.make_function("own", "F", ["i"], ["o"], body, [helper.make_opsetid("", 21)]))
    cut = onnxnorm.features(proto, "a").model
    assert [value.name for value in cut.graph.input] == ["x"]
    assert not cut.functions
    assert not cut.graph.sparse_initializer
    kept = onnxnorm.features(proto, "t").model
    assert [value.name for value in kept.graph.input] == ["y"]
    assert [function.name for function in kept.functions] == ["F"]


def test_what_a_subgraph_captures_stays() -> None:
    proto = vgg((1,))
    branch = helper.make_graph(
        [helper.make_node("Mul", ["r0_out", "factor"], ["inner"])],
        "branch",
        [],
        [helper.make_tensor_value_info("inner", TensorProto.FLOAT, None)],
    )
    proto.graph.initializer.append(numpy_helper.from_array(np.array(True), "yes"))
    proto.graph.initializer.append(numpy_helper.from_array(np.array(3, np.float32), "factor"))
    proto.graph.node.append(helper.make_node("If", ["yes"], ["chosen"], then_branch=branch, else_branch=branch))
    cut = onnxnorm.features(proto, "chosen").model
    assert [node.op_type for node in cut.graph.node] == ["Conv", "Relu", "If"]
    assert {"factor", "yes"} <= {tensor.name for tensor in cut.graph.initializer}
    onnx.checker.check_model(cut)


def test_nodes_out_of_order_come_out_in_order() -> None:
    proto = vgg((2,))
    nodes = list(proto.graph.node)
    del proto.graph.node[:]
    proto.graph.node.extend(nodes[::-1])
    onnx.checker.check_model(onnxnorm.features(proto, "r1").model, full_check=True)


def test_external_data_moves_inside_and_what_is_cut_is_gone(tmp_path: Path) -> None:
    whole = vgg(VGG16, (2000, 8, 7))
    onnx.save(whole, tmp_path / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=0)
    (tmp_path / "out").mkdir()
    onnxnorm.features(tmp_path / "m.onnx", "relu5_1", tmp_path / "out" / "f.onnx")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["f.onnx"]
    assert (tmp_path / "out" / "f.onnx").stat().st_size < 40_000
    expected = run_model(with_outputs(onnx.load(tmp_path / "m.onnx"), ["r10_out"]), photo())
    found = run_model(onnx.load(tmp_path / "out" / "f.onnx"), photo())
    np.testing.assert_array_equal(found["r10_out"], expected["r10_out"])


def test_beyond_protobuf_external_data_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnxnorm.extraction.cutting._ONE_FILE", 0)
    whole = vgg(VGG16, (40, 8, 7))
    onnx.save(whole, tmp_path / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=0)
    (tmp_path / "out").mkdir()
    onnxnorm.features(tmp_path / "m.onnx", "fc6", tmp_path / "out" / "f.onnx")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["f.onnx", "m.data"]
    onnx.checker.check_model(tmp_path / "out" / "f.onnx", full_check=True)


def test_a_value_of_unknown_type_cannot_be_an_output() -> None:
    proto = model("a = own.F(x) z = Relu(a)", domains=["own"])
    with pytest.raises(onnxnorm.ModelError, match="the type of value 'a' is not known"):
        onnxnorm.features(proto, "a")


# --- what is recorded, and what comes after --------------------------------------------------------------------------


def test_the_metadata_says_what_was_done() -> None:
    proto = vgg()
    proto.metadata_props.add(key="author", value="somebody")
    proto.metadata_props.add(key="preset", value="caffe")
    done = onnxnorm.features(proto, "relu1_1,r2", pool="average", fold_preprocessing="caffe")
    found = properties(done.model)
    assert found["author"] == "somebody"
    assert found["preset"] == "unit"
    assert json.loads(found["onnxnorm.features.layers"]) == {"relu1_1": "r0_out", "r2": "r2_out"}
    assert found["onnxnorm.features.pool"] == "average"
    assert found["onnxnorm.features.fold_preprocessing"] == "caffe"
    assert len(found["onnxnorm.features.source"]) == 64
    again = properties(onnxnorm.features(done.model, "r0").model)
    assert again["onnxnorm.features.pool"] == "average"
    assert json.loads(again["onnxnorm.features.layers"]) == {"r0": "r0_out"}


def test_features_are_normalized_and_restored_like_any_model(tmp_path: Path) -> None:
    cut, out, back = (tmp_path / name for name in ("f.onnx", "n.onnx", "b.onnx"))
    onnxnorm.features(DEMO, "relu2_1,relu4_1", cut, pool="average", padding="reflect", fold_preprocessing="caffe")
    done = onnxnorm.normalize(cut, SOME, out, preset="unit", provider="cpu", outputs="scale", power_of_two=True)
    assert done.plan.pinned == 0
    assert done.plan.filters == 195
    assert done.verification is not None
    assert done.verification.bit_identical
    assert properties(onnx.load(out))["onnxnorm.features.padding"] == "reflect"
    assert properties(onnx.load(out))["onnxnorm.statistic"] == "mean"
    onnxnorm.restore(out, back)
    assert back.read_bytes() == cut.read_bytes()


def test_a_normalized_model_may_be_cut_but_not_changed(tmp_path: Path) -> None:
    normalized = onnxnorm.normalize(DEMO, SOME, tmp_path / "n.onnx", preset="unit", provider="cpu", power_of_two=True)
    changes: list[dict[str, Any]] = [{"pool": "average"}, {"padding": "reflect"}, {"fold_preprocessing": "raw"}]
    for change in changes:
        with pytest.raises(onnxnorm.OptionError, match="the model is normalized already"):
            onnxnorm.features(normalized.model, "relu2_1", **change)
    done = onnxnorm.features(normalized.model, "relu2_1")
    assert read_entries(done.cut) == {}
    assert json.loads(properties(done.model)["onnxnorm.features.normalized"])["statistic"] == "mean"
    images = photo(64)
    found = run_model(done.model, images)["relu2_1"]
    np.testing.assert_array_equal(found, run_model(with_outputs(normalized.model, ["relu2_1"]), images)["relu2_1"])
    with pytest.raises(onnxnorm.ModelError, match="there is nothing to undo"):
        onnxnorm.restore(done.model)


# --- the command -----------------------------------------------------------------------------------------------------


def test_the_command(tmp_path: Path) -> None:
    out = tmp_path / "a b.onnx"
    ran = succeeded("features", DEMO, "--layers", "relu1_1,relu3_1", "--fold-preprocessing", "tf", "-o", out)
    assert "relu3_1: float Nx32x16x16" in ran.out
    assert f"written to {out}" in ran.out
    assert "from now on the preset is unit" in ran.err
    normalizing = f"next: onnxnorm normalize '{out}' PHOTOS --preset unit --outputs scale -o 'a b-normalized.onnx'"
    assert normalizing in ran.err
    found = succeeded("features", DEMO, "--layers", "pool4", "-o", out, "--json").json
    assert found["layers"] == {"pool4": "pool4"}
    assert found["outputs"] == {"pool4": "float Nx48x4x4"}
    assert found["preset"] is None
    assert found["nodes"] == {"before": 24, "after": 20}


def test_help_has_examples() -> None:
    for command in ("features", "export"):
        assert f"onnxnorm {command} " in succeeded(command, "--help").out.partition("Examples:")[2]


def test_a_failing_command_leaves_what_was_there(tmp_path: Path) -> None:
    out = tmp_path / "o.onnx"
    out.write_bytes(b"old")
    assert "near names" in run("features", DEMO, "--layers", "rel1_1", "-o", out).error
    assert run("features", DEMO, "--layers", "relu1_1", "--pool", "average", "-o", out).code == 1
    assert run("features", DEMO, "-o", out).code == 2
    assert [path.name for path in tmp_path.iterdir()] == ["o.onnx"]
    assert out.read_bytes() == b"old"
