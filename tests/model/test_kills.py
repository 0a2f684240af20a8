"""Writing at the same time, and writing that is killed: the old model is there or the new one, never a mixture."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

import onnx
import pytest

from onnxnorm import atomic
from onnxnorm.errors import ModelError, StatisticsError
from onnxnorm.model.external import referenced
from onnxnorm.model.files import Model
from tests.helpers.kills import states_after_kills
from tests.helpers.model_files import WEIGHTS, contents, doubled, external, network

SPREAD = {"w1": "weights.bin", "b1": "data/more.bin", "w2": "weights.bin"}


def other() -> onnx.ModelProto:
    """The network with other weights."""
    return doubled(Model.open(network())).to_proto()


def unreferenced(folder: Path) -> set[str]:
    """Files that are neither models nor data of a model in the folder."""
    models = {path.name for path in folder.glob("*.onnx")}
    data = {os.path.normpath(location) for name in models for location in referenced(folder / name)}
    return {os.path.normpath(name) for name in contents(folder)} - models - data


# --- at the same time ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("links", [True, False])
def test_two_at_the_same_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool) -> None:
    """Both began when the folder was empty, so both would have taken the same names for their data."""
    if not links:
        monkeypatch.setattr(os, "link", no_links)
    path = external(tmp_path / "in", SPREAD)
    out = tmp_path / "out"
    out.mkdir()
    first, second = Model.open(path), doubled(Model.open(path))
    with first.staged(out / "a.onnx"):
        second.write(out / "b.onnx")
    assert Model.open(out / "a.onnx").digest() == first.digest()
    assert Model.open(out / "b.onnx").digest() == second.digest()
    assert referenced(out / "b.onnx") == {"weights.bin", "data/more.bin"}
    assert referenced(out / "a.onnx") == {"a.onnx.weights.bin", "a.onnx.more.bin"}
    assert unreferenced(out) == set()


def no_links(*_: object) -> None:
    raise PermissionError(1, "Operation not permitted")


def test_two_at_the_same_time_to_one_place(tmp_path: Path) -> None:
    path = external(tmp_path / "in", SPREAD)
    out = tmp_path / "out"
    out.mkdir()
    first, second = Model.open(path), doubled(Model.open(path))
    with first.staged(out / "a.onnx"):
        second.write(out / "a.onnx")
    assert Model.open(out / "a.onnx").digest() == first.digest()
    assert unreferenced(out) == set()


def test_without_second_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some file systems have no hard links: names of data files alternate there, and nothing is left behind."""
    monkeypatch.setattr(os, "link", no_links)
    path = external(tmp_path / "in", SPREAD)
    out = tmp_path / "out"
    out.mkdir()
    for model in 2 * (Model.open(path), doubled(Model.open(path))):
        model.write(out / "a.onnx")
        assert Model.open(out / "a.onnx").digest() == model.digest()
        assert len(contents(out)) == 3
        assert unreferenced(out) == set()


# --- killed ----------------------------------------------------------------------------------------------------------

PREPARE = """
from pathlib import Path
from onnxnorm.model.files import Model
folder_of = Path(folder)
model = Model.open(folder_of.parent / "in" / "model.onnx")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes cannot be forked here")
@pytest.mark.parametrize("old", ["none", "inline", "external", "twin", "itself"])
def test_a_kill_leaves_the_old_model_or_the_new_one(tmp_path: Path, old: str) -> None:
    """Over an older model with data of the same names, before each rename, link and removal."""
    path = external(tmp_path / "in", SPREAD)
    doubled(Model.open(path)).write(path)
    new = Model.open(path).digest()
    out = tmp_path / "out"
    out.mkdir()
    if old == "inline":
        onnx.save_model(network(), out / "out.onnx")
    elif old != "none":
        external(out, SPREAD, "out.onnx", gap=8)
    if old == "twin":
        shutil.copy(out / "out.onnx", out / "twin.onnx")
    before = Model.open(network()).digest()
    prepare = PREPARE if old != "itself" else PREPARE.replace('parent / "in" / "model.onnx"', 'joinpath("out.onnx")')
    expected = new if old != "itself" else before
    states = states_after_kills(out, tmp_path / "states", prepare, "model.write(folder_of / 'out.onnx')")
    assert len(states) > 3
    seen = []
    for state in states:
        if (state / "out.onnx").exists():
            seen.append(Model.open(state / "out.onnx").digest())
        else:
            assert old == "none"
        if old == "twin":
            assert Model.open(state / "twin.onnx").digest() == before
        Model.open(network()).write(state / "next.onnx")  # the next one cleans up
        assert not list(state.glob(".onnxnorm-*"))
        assert unreferenced(state) == set()
        if (state / "out.onnx").exists():
            assert Model.open(state / "out.onnx").digest() == seen[-1]
    assert set(seen) <= {before, expected}
    assert seen[-1] == expected
    assert seen == sorted(seen, key=[before, expected].index)  # and there is no way back
    if old in ("external", "itself"):
        assert referenced(states[-1] / "out.onnx") == {"weights.bin", "data/more.bin"}


def test_data_of_the_old_model_goes_with_it(tmp_path: Path) -> None:
    out = external(tmp_path / "out", SPREAD)
    Model.open(network()).write(out)
    assert contents(tmp_path / "out").keys() == {"model.onnx"}


@pytest.mark.parametrize("reader", ["neighbour", "link", "input"])
def test_data_that_others_need_stays(tmp_path: Path, reader: str) -> None:
    """Another model with the same data, in a tensor of a node's attribute; a link to the model; the input itself."""
    target = external(tmp_path / "out", SPREAD)
    model = Model.open(network())
    kept = {"weights.bin", "data/more.bin"}
    if reader == "neighbour":
        proto = onnx.load(target, load_external_data=False)
        node = proto.graph.node.add(op_type="Constant", output=["k"])
        node.attribute.append(onnx.helper.make_attribute("value", proto.graph.initializer[0]))
        del proto.graph.initializer[:]
        (tmp_path / "out" / "neighbour.pb").write_bytes(proto.SerializeToString())
        kept = {"weights.bin"}
    elif reader == "link":
        target = target.rename(target.with_name("real.onnx"))
        (tmp_path / "out" / "model.onnx").symlink_to("real.onnx")
        target = tmp_path / "out" / "model.onnx"
    else:
        proto = onnx.load(target, load_external_data=False)
        for tensor in proto.graph.initializer:
            for entry in tensor.external_data:
                entry.value = f"out/{entry.value}" if entry.key == "location" else entry.value
        onnx.save_model(proto, tmp_path / "input.onnx")
        model = Model.open(tmp_path / "input.onnx")
    before = contents(tmp_path / "out")
    model.write(target)
    after = contents(tmp_path / "out")
    assert {name: after[name] for name in kept} == {name: before[name] for name in kept}


# --- what lies about -------------------------------------------------------------------------------------------------


def gone() -> int:
    """The number of a process that has ended."""
    child = os.fork()
    if not child:
        os._exit(0)
    os.waitpid(child, 0)
    return child


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes cannot be forked here")
@pytest.mark.filterwarnings("ignore:.*fork")
def test_only_what_dead_processes_left_is_removed(tmp_path: Path) -> None:
    host, dead = atomic._host(), gone()
    names = [f".onnxnorm-{dead}-{host}-00000001", f".onnxnorm-{dead}-{host}-00000002"]
    kept = [
        f".onnxnorm-{os.getpid()}-{host}-00000003",  # alive
        f".onnxnorm-{dead}-{'0' * 8}-00000004",  # on another machine
        f".onnxnorm-{dead}-{host}-notes",
        ".onnxnorm-abc",
    ]
    for kind in ("model", "statistics"):
        (tmp_path / names[0] / "model").mkdir(parents=True)
        for name in (f"{names[0]}/model/weights.bin", names[1], *kept):
            (tmp_path / name).write_bytes(b"half")
        if kind == "model":
            Model.open(network()).write(tmp_path / "m.onnx")
        else:
            atomic.write_atomically(tmp_path / "s", b"", StatisticsError)
        left = {path.name for path in tmp_path.iterdir() if path.name.startswith(".")}
        assert left == set(kept)


# --- where it cannot be written --------------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no FIFOs here")
def test_what_is_no_regular_file_is_not_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    for name in ("pipe", "link"):
        with pytest.raises(ModelError, match=r"cannot write .*: it is not a regular file; give another name"):
            Model.open(network()).write(tmp_path / name)
        with pytest.raises(StatisticsError, match="is not a regular file"):
            atomic.write_atomically(tmp_path / name, b"", StatisticsError)
    assert (tmp_path / "pipe").is_fifo()
    assert (tmp_path / "link").is_symlink()


@pytest.mark.parametrize(
    ("location", "target"),
    [("out.onnx", "out.onnx"), ("sub/../out.onnx", "out.onnx"), ("out.onnx/w", "out.onnx"), ("file/w", "o.onnx")],
)
def test_data_where_the_model_must_be(tmp_path: Path, location: str, target: str) -> None:
    (tmp_path / "in" / "sub").mkdir(parents=True)
    path = external(tmp_path / "in", dict.fromkeys(WEIGHTS, location))
    out = tmp_path / "out"
    out.mkdir()
    (out / "file").write_bytes(b"")
    with pytest.raises(ModelError, match=r"keeps external data at .*; (give another name|write into another folder)"):
        Model.open(path).write(out / target)
    assert contents(out).keys() == {"file"}


def test_a_link_that_leads_outside_is_not_followed(tmp_path: Path) -> None:
    path = external(tmp_path / "in", SPREAD)
    outside, out = tmp_path / "outside", tmp_path / "out"
    for folder in (outside, out):
        folder.mkdir()
    (outside / "more.bin").write_bytes(b"mine")
    (out / "data").symlink_to(outside)
    with pytest.raises(ModelError, match=r"a link leads from there to .*outside, outside the folder"):
        Model.open(path).write(out / "model.onnx")
    assert contents(outside) == {"more.bin": b"mine"}
    assert [entry.name for entry in out.iterdir()] == ["data"]
    (out / "data").unlink()
    (out / "real").mkdir()
    (out / "data").symlink_to("real")
    Model.open(path).write(out / "model.onnx")
    assert (out / "real" / "more.bin").is_file()


def test_two_spellings_of_one_data_file(tmp_path: Path) -> None:
    path = external(tmp_path / "in", {"w1": "weights.bin", "b1": "./weights.bin", "w2": "weights.bin"})
    out = tmp_path / "out"
    out.mkdir()
    model = doubled(Model.open(path))
    model.write(out / "model.onnx")
    assert Model.open(out / "model.onnx").digest() == model.digest()
    assert contents(out).keys() == {"model.onnx", "weights.bin"}


# --- who may read it -------------------------------------------------------------------------------------------------


def test_permissions_stay(tmp_path: Path) -> None:
    path = external(tmp_path, SPREAD)
    private = {"model.onnx": 0o600, "weights.bin": 0o640, "data/more.bin": 0o600}
    for name, mode in private.items():
        (tmp_path / name).chmod(mode)
    doubled(Model.open(path)).write(path)
    assert {name: stat.S_IMODE((tmp_path / name).stat().st_mode) for name in private} == private
    Model.open(path).write(tmp_path / "new.onnx")
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE((tmp_path / "new.onnx").stat().st_mode) == 0o666 & ~umask
    (tmp_path / "s").write_bytes(b"old")
    (tmp_path / "s").chmod(0o440)
    atomic.write_atomically(tmp_path / "s", b"new", StatisticsError)
    assert ((tmp_path / "s").read_bytes(), stat.S_IMODE((tmp_path / "s").stat().st_mode)) == (b"new", 0o440)


# --- the lock --------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(os.name == "nt", reason="there are no locks here")
def test_a_lock_is_waited_for_but_not_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that holds the lock and was stopped must not stop the others."""
    monkeypatch.setattr(atomic, "_PATIENCE", 0.1)
    with atomic.locked(tmp_path):
        Model.open(network()).write(tmp_path / "m.onnx")
    assert contents(tmp_path).keys() == {"m.onnx"}
