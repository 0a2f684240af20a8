"""Models are written in the layout they came in, atomically, over nothing that another model needs."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
import pytest

from onnxnorm.errors import ModelError
from onnxnorm.model.files import Model
from tests.helpers.model_files import WEIGHTS, contents, doubled, external, network, run


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

    monkeypatch.setattr("onnxnorm.model.writing.join_weights", full)
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
