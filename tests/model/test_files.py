"""Opening and writing models: any storage layout is one model, and files are replaced whole or not at all.

Nothing outside of the model's folder is read.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

import onnxnorm
from onnxnorm.errors import ModelError
from onnxnorm.model.files import Model, ModelLike
from onnxnorm.model.tensors import tensor_dtype
from onnxnorm.runtime import Runtime
from onnxnorm.verification import verify_models
from tests.helpers.model_files import FEEDS, WEIGHTS, doubled, external, move_out, network, run


def typed(proto: onnx.ModelProto) -> onnx.ModelProto:
    for tensor in proto.graph.initializer:
        values = numpy_helper.to_array(tensor).reshape(-1)
        tensor.ClearField("raw_data")
        tensor.float_data.extend(values.tolist())
    return proto


def test_the_digest_is_that_of_the_model_not_of_its_layout(tmp_path: Path) -> None:
    proto = network()
    onnx.save_model(proto, tmp_path / "plain.onnx")
    paths = [
        tmp_path / "plain.onnx",
        external(tmp_path / "one", dict.fromkeys(WEIGHTS, "weights.bin")),
        external(tmp_path / "many", {name: f"data/{name}.bin" for name in WEIGHTS}, gap=0),
        external(tmp_path / "some", {"w1": "w"}),
    ]
    sources: list[ModelLike] = [proto, str(paths[0]), *paths, typed(network())]
    digests = {Model.open(source).digest() for source in sources}
    assert len(digests) == 1
    assert Model.open(Model.open(paths[1]).to_proto()).digest() in digests


@pytest.mark.parametrize("what", ["weight", "node", "attribute", "name", "shape", "order"])
def test_the_digest_sees_every_change(what: str) -> None:
    proto = network()
    if what == "weight":
        values = WEIGHTS["w1"].copy()
        values[-1, -1, -1, -1] = np.nextafter(values[-1, -1, -1, -1], np.float32(9))
        proto.graph.initializer[0].CopyFrom(numpy_helper.from_array(values, "w1"))
    elif what == "node":
        proto.graph.node[1].op_type = "Abs"
    elif what == "attribute":
        proto.graph.node[0].attribute.add(name="group", type=onnx.AttributeProto.INT, i=1)
    elif what == "name":
        proto.graph.name = "h"
    elif what == "shape":
        del proto.graph.initializer[1].dims[:]
        proto.graph.initializer[1].dims.extend([1, 40])
    else:
        first = proto.graph.initializer[0]
        proto.graph.initializer.add().CopyFrom(first)
        del proto.graph.initializer[0]
    assert Model.open(proto).digest() != Model.open(network()).digest()


def test_values(tmp_path: Path) -> None:
    for source in (network(), typed(network()), external(tmp_path, {"w1": "w", "b1": "w"})):
        model = Model.open(source)
        for index, array in enumerate(WEIGHTS.values()):
            np.testing.assert_array_equal(model.values(index), array)
            assert model.values(index).dtype == np.float32


def test_a_proto_in_memory_is_left_alone() -> None:
    proto = network()
    before = proto.SerializeToString(deterministic=True)
    model = doubled(Model.open(proto))
    assert model.to_proto() != proto
    assert proto.SerializeToString(deterministic=True) == before
    assert Model.open(model) is model


def test_opening_copies_no_weights(tmp_path: Path) -> None:
    onnx.save_model(network(), tmp_path / "m.onnx")
    model = Model.open(tmp_path / "m.onnx")
    assert model.proto.ByteSize() <= (tmp_path / "m.onnx").stat().st_size - WEIGHTS["w1"].nbytes
    assert not model.values(0).flags.writeable


def test_not_models(tmp_path: Path) -> None:
    (tmp_path / "empty.onnx").touch()
    (tmp_path / "text.onnx").write_text("Not a model, but a letter.\n" * 50)
    (tmp_path / "json.onnx").write_text('{"graph": {}}')
    (tmp_path / "zeros.onnx").write_bytes(bytes(5000))
    (tmp_path / "cut.onnx").write_bytes(network().SerializeToString()[:-100])
    (tmp_path / "folder.onnx").mkdir()
    for path in sorted(tmp_path.iterdir()):
        with pytest.raises(ModelError, match=path.name):
            Model.open(path)
    with pytest.raises(ModelError, match="does not exist"):
        Model.open(tmp_path / "missing.onnx")
    with pytest.raises(ModelError, match="no nodes"):
        Model.open(onnx.ModelProto())


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_no_permission(tmp_path: Path) -> None:
    onnx.save_model(network(), tmp_path / "m.onnx")
    (tmp_path / "m.onnx").chmod(0)
    with pytest.raises(ModelError, match="cannot be read"):
        Model.open(tmp_path / "m.onnx")


def test_two_initializers_of_one_name() -> None:
    proto = network()
    proto.graph.initializer.add().CopyFrom(proto.graph.initializer[1])
    with pytest.raises(ModelError, match="two initializers called 'b1'"):
        Model.open(proto)


@pytest.mark.parametrize("bulky", [False, True])
@pytest.mark.parametrize("wrong", ["shape", "data", "type", "negative", "nothing"])
def test_data_that_does_not_fit(wrong: str, bulky: bool) -> None:
    proto = network()
    tensor = proto.graph.initializer[0 if bulky else 1]
    if wrong == "shape":
        tensor.dims[0] = 41
    elif wrong == "data":
        tensor.raw_data = tensor.raw_data[:-1]
    elif wrong == "type":
        tensor.data_type = 99
    elif wrong == "negative":
        tensor.dims[0] = -40
    else:
        tensor.ClearField("raw_data")
    with pytest.raises(ModelError, match=tensor.name):
        Model.open(proto)


def test_every_element_type_can_be_held() -> None:
    for data_type in onnx.helper.get_all_tensor_dtypes():
        if data_type == TensorProto.STRING:
            tensor = TensorProto(name="t", data_type=data_type, dims=[3], string_data=[b"a", b"", b"c"])
        else:
            tensor = numpy_helper.from_array(np.ones(3).astype(tensor_dtype(data_type)), "t")
        proto = network()
        proto.graph.initializer.append(tensor)
        model = Model.open(proto)
        assert model.digest()
        assert model.values(3).shape == (3,)
    with pytest.raises(ModelError, match="unknown element type 99"):
        tensor_dtype(99)


def test_data_outside_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(10_000))
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "link").symlink_to(secret)
    (folder / "sub").symlink_to(tmp_path)
    for location in ("../secret", str(secret), "link", "sub/secret", "x/../../secret", "", ".", ".."):
        proto = network()
        move_out(proto.graph.initializer[0], {"location": location})
        onnx.save_model(proto, folder / "m.onnx")
        with pytest.raises(ModelError, match="outside"):
            Model.open(folder / "m.onnx")


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ({"location": "none.bin"}, "missing"),
        ({"location": "w.bin", "offset": 1}, "ends at byte"),
        ({"location": "w.bin", "offset": -4}, "ends at byte"),
        ({"location": "w.bin", "offset": "x"}, "not numbers"),
        ({"location": "w.bin", "length": "4e3"}, "not numbers"),
        ({"location": "w.bin", "length": 4}, "needs 4320 bytes"),
        ({"location": "w.bin", "length": 1 << 62}, "needs 4320 bytes"),
        ({"location": "short.bin"}, "ends at byte 4320 of short.bin, which has 9"),
        ({"location": "empty.bin"}, "which has 0"),
    ],
)
def test_wrong_external_data(tmp_path: Path, place: dict[str, object], message: str) -> None:
    (tmp_path / "w.bin").write_bytes(bytes(4320))
    (tmp_path / "short.bin").write_bytes(bytes(9))
    (tmp_path / "empty.bin").touch()
    proto = network()
    move_out(proto.graph.initializer[0], place)
    onnx.save_model(proto, tmp_path / "m.onnx")
    with pytest.raises(ModelError, match=message):
        Model.open(tmp_path / "m.onnx")
    with pytest.raises(ModelError, match="give a path"):
        Model.open(proto)


def test_a_changed_model_runs_with_its_changed_data(tmp_path: Path) -> None:
    """A session on a rewritten model in memory must not read the original's files."""
    path = external(tmp_path, dict.fromkeys(WEIGHTS, "weights.bin"))
    model = Model.open(path)
    assert model.in_place() is not None
    wrong = replace(
        doubled(model), tensor_data={**doubled(model).tensor_data, 1: model.tensor_data[1]}
    )  # a bias that was forgotten
    assert wrong.in_place() is None
    verdict = verify_models(model, wrong, [FEEDS], runtime=Runtime("cpu", threads=1))
    assert not verdict.same
    assert verify_models(model, doubled(model), [FEEDS], runtime=Runtime("cpu", threads=1)).bit_identical


@pytest.mark.parametrize("outside", [[], ["w2"], list(WEIGHTS)], ids=["inline", "mixed", "external"])
def test_a_link_to_a_model_runs(tmp_path: Path, outside: list[str]) -> None:
    """Caches of downloads hold links. Data files lie beside the link, the constants in the file where it points to."""
    path = external(tmp_path / "links", dict.fromkeys(outside, "weights.bin"))
    (tmp_path / "blobs").mkdir()
    blob = shutil.move(path, tmp_path / "blobs" / "0a1b2c")
    path.symlink_to(blob)
    assert (Model.open(path).in_place() is None) == (len(outside) == 1)
    np.testing.assert_array_equal(run(path), run(external(tmp_path / "plain", {})))
    found = onnxnorm.calibrate(path, FEEDS["x"], provider="cpu")
    done = onnxnorm.rewrite(path, found, tmp_path / "out.onnx", provider="cpu")
    assert done.verification is not None
    assert done.verification.same
    assert path.is_symlink()
