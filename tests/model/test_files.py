"""Opening and writing models: any storage layout is one model, and files are replaced whole or not at all.

Nothing outside of the model's folder is read.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

import onnxnorm
from onnxnorm.errors import ModelError
from onnxnorm.model.files import Model, ModelLike
from onnxnorm.model.shapes import read_graph
from onnxnorm.model.tensors import tensor_dtype
from onnxnorm.rewriting.constants import apply_edits
from onnxnorm.runtime import Runtime
from onnxnorm.scaling import trace
from onnxnorm.verification import verify_models
from tests.helpers.scales_check import random_scales

RANDOM = np.random.default_rng(0)
WEIGHTS = {
    "w1": RANDOM.normal(size=(40, 3, 3, 3)).astype(np.float32),  # bulky
    "b1": RANDOM.normal(size=40).astype(np.float32),
    "w2": RANDOM.normal(size=(2, 40, 3, 3)).astype(np.float32),  # on the border
}


def network() -> onnx.ModelProto:
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c1"], name="c1"),
        helper.make_node("Relu", ["c1"], ["r1"], name="r1"),
        helper.make_node("Conv", ["r1", "w2"], ["y"], name="c2"),
    ]
    tensors = [numpy_helper.from_array(array, name) for name, array in WEIGHTS.items()]
    shapes: dict[str, tuple[str | int, ...]] = {"x": ("N", 3, 8, 8), "y": ("N", 2, 4, 4)}
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]
    graph = helper.make_graph(nodes, "g", infos[:1], infos[1:], tensors, doc_string="a graph")
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8, doc_string="a model")
    model.metadata_props.add(key="author", value="somebody")
    return model


FEEDS = {"x": RANDOM.normal(size=(2, 3, 8, 8)).astype(np.float32)}


def external(folder: Path, locations: dict[str, str], name: str = "model.onnx", gap: int = 16) -> Path:
    """The network with these weights in other files, with unused bytes before and behind."""
    folder.mkdir(parents=True, exist_ok=True)
    proto = network()
    for tensor in proto.graph.initializer:
        if tensor.name not in locations:
            continue
        path = folder / locations[tensor.name]
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as stream:
            stream.write(b"\xab" * gap)
            place = {"location": locations[tensor.name], "offset": stream.tell(), "length": len(tensor.raw_data)}
            stream.write(tensor.raw_data + b"\xcd" * gap)
        _move_out(tensor, place)
    onnx.save_model(proto, folder / name)
    return folder / name


def _move_out(tensor: TensorProto, place: dict[str, object]) -> None:
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in place.items():
        tensor.external_data.add(key=key, value=str(value))


def doubled(model: Model) -> Model:
    """The model with its free channels scaled."""
    found = trace(read_graph(model, {"x": (1, 3, 8, 8)}))
    return apply_edits(model, found.edits, random_scales(found, 1)).model


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def run(path: Path) -> NDArray[np.float32]:
    return np.asarray(Runtime("cpu", threads=1).session(Model.open(path), optimize=False).run(FEEDS)["y"])


# --- one model, many layouts ---------------------------------------------------------------------------------------


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


# --- what cannot be opened -----------------------------------------------------------------------------------------


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


# --- external data -------------------------------------------------------------------------------------------------


def test_data_outside_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(10_000))
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "link").symlink_to(secret)
    (folder / "sub").symlink_to(tmp_path)
    for location in ("../secret", str(secret), "link", "sub/secret", "x/../../secret", "", ".", ".."):
        proto = network()
        _move_out(proto.graph.initializer[0], {"location": location})
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
    _move_out(proto.graph.initializer[0], place)
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


# --- writing -------------------------------------------------------------------------------------------------------


def test_the_layout_stays(tmp_path: Path) -> None:
    """The same places in data files of the same names, unused bytes included."""
    path = external(tmp_path / "in", {"w1": "weights.bin", "b1": "weights.bin", "w2": "data/more.bin"})
    (tmp_path / "out").mkdir()
    model = Model.open(path)
    model.write(tmp_path / "out" / "model.onnx")
    assert contents(tmp_path / "in") == contents(tmp_path / "out")
    doubled(model).write(tmp_path / "out" / "model.onnx")
    before, after = contents(tmp_path / "in"), contents(tmp_path / "out")
    assert before.keys() == after.keys()
    assert before["model.onnx"] == after["model.onnx"]
    for name in ("weights.bin", "data/more.bin"):
        assert before[name] != after[name]
        assert len(before[name]) == len(after[name])
        assert after[name][:16] == b"\xab" * 16
        assert after[name][-16:] == b"\xcd" * 16
    np.testing.assert_array_equal(run(tmp_path / "in" / "model.onnx"), run(tmp_path / "out" / "model.onnx"))


@pytest.mark.parametrize("spelled", ["plain", "dots", "link"])
def test_beside_the_original(tmp_path: Path, spelled: str) -> None:
    """The original's data files are not overwritten, however the folder is spelled."""
    folder = tmp_path / "in"
    path = external(folder, {"w1": "weights.bin", "b1": "a/w.bin", "w2": "b/w.bin"})
    before = contents(folder)
    (tmp_path / "linked").symlink_to(folder)
    target = {
        "plain": folder / "new.onnx",
        "dots": tmp_path / "linked" / ".." / "in" / "new.onnx",
        "link": tmp_path / "linked" / "new.onnx",
    }[spelled]
    for _ in range(2):  # and again, over what was just written
        model = Model.open(path)
        doubled(model).write(target)
        after = contents(folder)
        assert {name: after[name] for name in before} == before
        assert len(after) == 2 * len(before)
    np.testing.assert_array_equal(run(path), run(folder / "new.onnx"))
    assert Model.open(folder / "new.onnx").digest() == doubled(model).digest()


def test_beside_other_models(tmp_path: Path) -> None:
    """Two models with data files of one name go into one folder; the second must not break the first."""
    for name in "ab":
        external(tmp_path / name, dict.fromkeys(WEIGHTS, "weights.bin"), gap=ord(name))
    out = tmp_path / "out"
    out.mkdir()
    for name in "abab":
        Model.open(tmp_path / name / "model.onnx").write(out / f"{name}.onnx")
    digests = {Model.open(out / f"{name}.onnx").digest() for name in "ab"}
    assert digests == {Model.open(network()).digest()}
    assert len(contents(out)) == 4
    assert (out / "weights.bin").read_bytes()[:97] == b"\xab" * 97
    assert (out / "weights.bin").read_bytes()[97:98] != b"\xab"


def test_over_another_model_that_shares_the_data(tmp_path: Path) -> None:
    path = external(tmp_path, dict.fromkeys(WEIGHTS, "weights.bin"))
    shutil.copy(path, tmp_path / "twin.onnx")
    model = Model.open(path)
    expected = run(path)
    before = (tmp_path / "weights.bin").read_bytes()
    doubled(model).write(tmp_path / "twin.onnx")
    assert (tmp_path / "weights.bin").read_bytes() == before
    np.testing.assert_array_equal(run(path), expected)
    np.testing.assert_array_equal(run(tmp_path / "twin.onnx"), expected)


@pytest.mark.parametrize("layout", ["inline", "external"])
def test_in_place(tmp_path: Path, layout: str) -> None:
    """A model may be replaced by its own rewriting, while it lies mapped in memory."""
    if layout == "inline":
        path = tmp_path / "model.onnx"
        onnx.save_model(network(), path)
    else:
        path = external(tmp_path, dict.fromkeys(WEIGHTS, "weights.bin"))
    names = contents(tmp_path).keys()
    expected = run(path)
    model = Model.open(path)
    digest, changed = model.digest(), doubled(model).digest()
    doubled(model).write(path)
    assert contents(tmp_path).keys() == names
    assert Model.open(path).digest() == changed != digest
    np.testing.assert_array_equal(run(path), expected)
    assert model.digest() == digest  # the old file is still mapped


def test_failure_leaves_nothing(tmp_path: Path) -> None:
    path = external(tmp_path / "in", dict.fromkeys(WEIGHTS, "weights.bin"))
    out = tmp_path / "out"
    out.mkdir()
    target = out / "model.onnx"
    target.write_bytes(b"what was here before")
    before = contents(out)

    def looked_at() -> None:
        with Model.open(path).staged(target) as staged:
            assert run(staged).shape == (2, 2, 4, 4)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        looked_at()
    assert contents(out) == before
    assert [entry.name for entry in out.iterdir()] == ["model.onnx"]


def test_a_disk_that_fills_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    onnx.save_model(network(), tmp_path / "m.onnx")
    model = Model.open(tmp_path / "m.onnx")
    before = contents(tmp_path)

    def full(*_: object) -> Iterator[bytes]:
        yield b"a few bytes"
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("onnxnorm.model.files.join_weights", full)
    with pytest.raises(ModelError, match="No space left"):
        model.write(tmp_path / "m.onnx")
    assert contents(tmp_path) == before


def test_where_nothing_can_be_written(tmp_path: Path) -> None:
    path = external(tmp_path / "in", dict.fromkeys(WEIGHTS, "weights.bin"))
    (tmp_path / "folder.onnx").mkdir()
    for target, message in (("none/m.onnx", "does not exist"), ("folder.onnx", "is a folder")):
        with pytest.raises(ModelError, match=message):
            Model.open(path).write(tmp_path / target)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["folder.onnx", "in"]
    assert not any((tmp_path / "folder.onnx").iterdir())


@contextmanager
def unwritable(folder: Path) -> Iterator[None]:
    folder.chmod(0o500)
    try:
        yield
    finally:
        folder.chmod(0o700)


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_folder_without_permission(tmp_path: Path) -> None:
    with unwritable(tmp_path), pytest.raises(ModelError, match="cannot write"):
        Model.open(network()).write(tmp_path / "m.onnx")


def test_the_rest_of_the_model_stays(tmp_path: Path) -> None:
    """Documentation, metadata, names and fields that this version of ONNX does not know."""
    serialized = network().SerializeToString() + b"\xa2\x7d\x05later"
    (tmp_path / "m.onnx").write_bytes(serialized)
    Model.open(tmp_path / "m.onnx").write(tmp_path / "n.onnx")
    written = onnx.load(tmp_path / "n.onnx")
    assert written == onnx.ModelProto.FromString(serialized)
    assert b"later" in (tmp_path / "n.onnx").read_bytes()
    assert (written.doc_string, written.graph.doc_string) == ("a model", "a graph")
