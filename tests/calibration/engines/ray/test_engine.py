"""The Ray engine gives what the local one gives, on two nodes, also when workers and nodes die; reading URIs."""

from __future__ import annotations

import os
import signal
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from PIL import Image

import onnxnorm
from onnxnorm.calibration.engines.ray import pool
from onnxnorm.calibration.engines.ray.executor import RayExecutor
from onnxnorm.data.files.discovery import discover, identity
from onnxnorm.data.files.stores import LocalFolders
from onnxnorm.data.files.table import Place
from onnxnorm.data.sources import kind_of
from onnxnorm.errors import DataError, OptionError
from onnxnorm.model.files import Model
from onnxnorm.model.inputs import fixed_batch
from tests.helpers.calibrations import close, net
from tests.helpers.graphs import rand
from tests.helpers.odd_tree import odd_tree
from tests.helpers.open_batches import fixed_at_one


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, and 60 images of three sizes, some unusable, with arrays between them."""
    folder = tmp_path_factory.mktemp("ray")
    onnx.save(net(), folder / "net.onnx")
    (folder / "data").mkdir()
    for number in range(60):
        shape = [(12, 10, 3), (16, 16, 3), (9, 14, 3)][number % 3]
        pixels = np.random.default_rng(number).integers(0, 256, shape, np.uint8)
        Image.fromarray(pixels).save(folder / "data" / f"{number:02}.png")
    for number in (3, 40, 59):
        (folder / "data" / f"{number:02}.png").write_bytes(b"junk")
    np.save(folder / "data" / "20a.npy", rand(70, 3, 16, 16))
    np.savez_compressed(folder / "data" / "30a.npz", x=rand(11, 3, 8, 8, seed=1))
    return folder


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A cluster of two nodes with one core each, on this machine; its workers start in another folder."""
    ray = pytest.importorskip("ray", reason="Ray is not installed (extra ray)")
    os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"
    path = str(Path(__file__).parents[4])
    here = Path.cwd()
    os.chdir("/")
    try:
        found = import_module("ray.cluster_utils").Cluster(
            initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False}
        )
        found.add_node(num_cpus=1)
    finally:
        os.chdir(here)
    ray.init(
        address=found.address,
        log_to_driver=False,
        configure_logging=False,
        runtime_env={"env_vars": {"PYTHONPATH": path}},
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pool, "PATIENCE", 600.0)  # a busy machine takes long to start a worker
        yield found
    ray.shutdown()
    found.shutdown()


def run(work: Path, **words: Any) -> onnxnorm.Statistics:
    data = words.pop("data", work / "data")
    given: dict[str, Any] = {"preset": "unit", "resize": "none", "provider": "cpu", "batch_size": 2} | words
    return onnxnorm.calibrate(given.pop("model", work / "net.onnx"), data, **given)


pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.mark.parametrize(
    "words",
    [{"measure": ("p99.9",)}, {"limit": 50, "weighting": "image"}, {"limit": 4, "shard": "1/3"}],
)
def test_the_same_as_the_local_engine(cluster: Any, work: Path, words: dict[str, Any]) -> None:
    local, ray = run(work, **words), run(work, engine="ray", workers=2, **words)
    close(ray, local)
    assert sorted(ray.skipped) == sorted(local.skipped)[: len(ray.skipped)]
    assert ray.inputs["sources"] == local.inputs["sources"]
    for digest, prints in local.files.items():
        np.testing.assert_array_equal(ray.files[digest], prints)


def test_arrays_in_memory(cluster: Any, work: Path) -> None:
    arrays = [rand(9, 3, 8, 8), rand(30, 3, 8, 8, seed=1)]
    close(run(work, data=arrays, engine="ray", workers=2), run(work, data=arrays))
    single: dict[str, Any] = {"model": fixed_at_one(net()), "data": arrays, "batch_size": None}
    close(run(work, engine="ray", workers=2, **single), run(work, **single), rtol=1e-6)
    with pytest.raises(OptionError, match="can be counted"):
        run(work, data=iter(arrays), engine="ray")


def worker_processes() -> list[int]:
    """Processes of Ray actors that descend from this one: this -> raylet -> worker."""
    return [int(folder.name) for folder in Path("/proc").iterdir() if folder.name.isdigit() and is_worker(folder)]


def is_worker(folder: Path) -> bool:
    try:
        named = b"ray::Worker" in (folder / "cmdline").read_bytes()
        return named and parent(parent(int(folder.name))) == os.getpid()
    except OSError:  # it has just ended
        return False


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds the processes in /proc")
def test_workers_that_are_killed_cost_time_only(cluster: Any, work: Path) -> None:
    """Two processes of actors are killed while their chunks are out."""
    killed: list[int] = []

    def kill(progress: Any) -> None:
        alive = [pid for pid in worker_processes() if pid not in killed]
        if len(killed) < 2 and alive:
            os.kill(alive[0], signal.SIGKILL)
            killed.append(alive[0])

    found = run(work, engine="ray", workers=2, progress=kill)
    assert len(killed) == 2
    close(found, run(work))


def test_a_node_that_is_lost_costs_time_only(cluster: Any, work: Path, tmp_path: Path) -> None:
    """With results so large that they lie in the node's memory until they are fetched, and are lost with it."""
    onnx.save(net(channels=5000), tmp_path / "wide.onnx")
    words: dict[str, Any] = {"model": tmp_path / "wide.onnx", "size": 8, "resize": "squash", "batch_size": 1}
    words["data"] = sorted((work / "data").glob("*.png"))
    node = cluster.add_node(num_cpus=1)
    gone: list[int] = []

    def lose(progress: Any) -> None:
        if progress.done >= 10 and not gone:
            cluster.remove_node(node, allow_graceful=False)
            gone.append(progress.done)

    found = run(work, engine="ray", workers=3, progress=lose, **words)
    assert gone
    assert gone[0] < found.images
    close(found, run(work, **words))


def test_more_workers_than_the_cluster_has_room_for(cluster: Any, work: Path) -> None:
    """Those that never start hold nothing up."""
    close(run(work, engine="ray", workers=9), run(work))


def test_relative_paths_begin_where_the_driver_is(cluster: Any, work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(work)
    found = onnxnorm.calibrate("net.onnx", "data", preset="unit", resize="none", engine="ray", workers=2)
    close(found, onnxnorm.calibrate("net.onnx", "data", preset="unit", resize="none"))
    assert sorted(name for name, _ in found.skipped) == ["data/03.png", "data/40.png", "data/59.png"]


def test_workers_list(cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The driver opens no folder, and the list is the one that it would have made."""
    pytest.importorskip("fsspec", reason="fsspec is not installed (extra ray)")
    odd_tree(tmp_path / "odd")
    for number in range(200):
        path = tmp_path / "many" / f"{number % 37}" / f"{number % 3}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * number)
    given: list[Path | str] = [tmp_path, f"file://{tmp_path}/many", tmp_path / "many" / "1"]
    mine = [discover([data]) for data in given]
    import ray

    def scandir(path: str) -> Any:
        raise AssertionError(f"the driver opens {path}")

    monkeypatch.setattr(os, "scandir", scandir)
    theirs = [discover([data], RayExecutor(ray, 2)) for data in given]
    for one, other in zip(mine, theirs, strict=True):
        assert list(one.files) == list(other.files)
        assert one.ignored == other.ignored
        assert identity(one.files) == identity(other.files)


def test_a_folder_that_workers_do_not_reach_is_named(cluster: Any, tmp_path: Path) -> None:
    import ray

    (tmp_path / "a").mkdir()
    executor = RayExecutor(ray, 2)
    with pytest.raises(DataError, match=r"gone cannot be read: No such file .*, says a worker of the cluster"):
        list(executor.map(LocalFolders(Place.folder(tmp_path), kind_of).opened, [str(tmp_path / "gone")], 1))


def test_a_crash_of_the_driver_is_resumed_by_either_engine(cluster: Any, work: Path, tmp_path: Path) -> None:
    def stop(progress: Any) -> None:
        if progress.done >= 30:
            raise KeyboardInterrupt

    words: dict[str, Any] = {"checkpoint": tmp_path / "point", "resume": True}
    with pytest.raises(KeyboardInterrupt):
        run(work, engine="ray", workers=2, progress=stop, **words)
    with pytest.raises(KeyboardInterrupt):
        run(work, progress=lambda now: stop(now) if now.done > 60 else None, **words)
    close(run(work, engine="ray", **words), run(work))


def test_errors_of_workers_are_those_of_the_local_engine(cluster: Any, work: Path) -> None:
    (work / "bad").mkdir(exist_ok=True)
    np.save(work / "bad" / "a.npy", np.full((4, 3, 8, 8), np.nan, np.float32))
    for engine in ("local", "ray"):
        with pytest.raises(DataError, match="infinite or not a number"):
            run(work, data=work / "bad", engine=engine)
    with pytest.raises(OptionError, match="--workers"):
        run(work, workers=2)


def test_an_array_that_becomes_shorter_while_workers_read_it(cluster: Any, work: Path) -> None:
    folder = work / "changing"
    folder.mkdir()
    np.save(folder / "z.npy", rand(3000, 3, 8, 8))

    def change(_: object) -> None:
        os.truncate(folder / "z.npy", 4000)

    with pytest.raises(DataError, match=r"z\.npy|became shorter while they were read"):
        run(work, data=folder, engine="ray", workers=2, progress=change)


def test_file_uris_are_read_by_workers(cluster: Any, work: Path) -> None:
    pytest.importorskip("fsspec", reason="fsspec is not installed (extra ray)")
    only = sorted(path for path in (work / "data").iterdir() if path.suffix == ".png")
    uris = [f"file://{path}" for path in only]
    close(run(work, data=uris, engine="ray", workers=2), run(work, data=only))


def test_uris_are_listed_like_folders(work: Path) -> None:
    fsspec = pytest.importorskip("fsspec", reason="fsspec is not installed (extra ray)")
    system = fsspec.filesystem("memory")
    for path in sorted((work / "data").glob("*.png")):
        with system.open(f"/bucket/photos/sub/{path.name}", "wb") as stream:
            stream.write(path.read_bytes())
    system.pipe("/bucket/photos/.hidden/a.png", b"")
    system.pipe("/bucket/photos/notes.txt", b"")
    found = discover(["memory://bucket/photos"])
    assert [file.name for file in found.files] == [f"sub/{number:02}.png" for number in range(60)]
    assert found.ignored == 1
    assert identity(found.files)["bytes"] == sum(path.stat().st_size for path in (work / "data").glob("*.png"))
    only = sorted((work / "data").glob("*.png"))
    remote = run(work, data="memory://bucket/photos")
    close(remote, run(work, data=only))
    assert str(remote.skipped[0][0]) == "memory:///bucket/photos/sub/03.png"
    with pytest.raises(DataError, match="holds no images"):
        discover(["memory://bucket/photos/notes.txt"])
    with pytest.raises(DataError, match="cannot be listed"):
        discover(["memory://bucket/nothing.png"])
    with pytest.raises(DataError, match="cannot be listed"):
        discover(["nosuchprotocol://bucket"])


def test_a_worker_waits_for_nobody(work: Path) -> None:
    """What runs in an actor, here: it is plain Python, and thread names tell that nothing is left behind."""
    from onnxnorm.calibration.engines.ray.worker import Chunk, Setup, Worker
    from onnxnorm.calibration.options import CalibrationOptions
    from onnxnorm.data.opening import open_data
    from onnxnorm.model.graph import input_specs
    from onnxnorm.runtime import Runtime

    setup = Setup(CalibrationOptions(), Runtime("cpu", 1), 3, os.getcwd())
    worker = Worker(net().SerializeToString(), setup)
    dataset = open_data(work / "data" / "20a.npy", input_specs(worker.model))
    indices = np.arange(5, 12)
    found = worker.measure(Chunk(indices, tuple(dataset.select(indices))))
    assert found.images == 7
    assert found.indices == tuple(range(5, 12))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("onnxnorm-data")]


@pytest.mark.parametrize("opens", [True, False])
def test_a_worker_opens_the_batch_as_the_driver_does(work: Path, tmp_path: Path, opens: bool) -> None:
    """It may have the model from its file, whose batch is fixed."""
    from onnxnorm.calibration.engines.ray.worker import Chunk, Setup, Worker
    from onnxnorm.calibration.options import CalibrationOptions
    from onnxnorm.data.opening import open_data
    from onnxnorm.model.graph import input_specs
    from onnxnorm.runtime import Runtime

    path = tmp_path / "fixed.onnx"
    onnx.save(fixed_at_one(net()), path)
    worker = Worker(str(path), Setup(CalibrationOptions(), Runtime("cpu", 1), 3, os.getcwd(), opened=opens))
    assert fixed_batch(input_specs(worker.model)) == (None if opens else 1)
    assert worker.model.digest() == Model.open(path).digest()
    dataset = open_data([rand(9, 3, 8, 8)], input_specs(worker.model))
    indices = np.arange(9)
    assert worker.measure(Chunk(indices, tuple(dataset.select(indices)))).images == 9


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz", "a.zip"])
def test_archives_are_read_by_workers(cluster: Any, work: Path, tmp_path: Path, name: str) -> None:
    """Each image once, also with unusable ones among them, other archives, and a list of files."""
    only = sorted(path for path in (work / "data").iterdir() if path.suffix == ".png")
    archive = tmp_path / name
    if name.endswith(".zip"):
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as zipped:
            for path in only:
                zipped.write(path, path.name)
    else:
        with tarfile.open(archive, "w:gz" if name.endswith("gz") else "w") as tarred:
            for path in only:
                tarred.add(path, path.name)
    (tmp_path / "list.txt").write_text(f"{archive}\n{work / 'data' / '20a.npy'}\n{only[0]}\n")
    given = f"@{tmp_path / 'list.txt'}"
    local, far = run(work, data=given), run(work, data=given, engine="ray", workers=2)
    assert local.images == far.images == 57 + 70 + 1
    assert sorted(local.skipped) == sorted(far.skipped)
    close(far, local)
    parts = [run(work, data=given, engine="ray", workers=2, shard=f"{index}/2") for index in (0, 1)]
    close(onnxnorm.merge(parts), local)


def test_inputs_that_all_samples_share_and_transforms_reach_the_workers(
    cluster: Any, work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    onnx.save(net(inputs=2), tmp_path / "two.onnx")
    (tmp_path / "worker_transform.py").write_text(
        "import numpy as np\ndef sample(image):\n"
        "    return np.asarray(image.convert('RGB').resize((8, 8)), np.float32).transpose(2, 0, 1) / 255\n"
    )
    monkeypatch.chdir(tmp_path)
    shared = rand(3, 8, 8, seed=9)
    words: dict[str, Any] = {
        **{"data": work / "data", "model": tmp_path / "two.onnx", "input": {"y": shared}},
        **{"preset": None, "resize": None},
    }
    pictures = sorted(path for path in (work / "data").iterdir() if path.suffix == ".png")
    for more in ({"transform": "worker_transform:sample"}, {"transform": lambda image: rand(3, 8, 8)}, {"size": "8"}):
        given = {**words, **more, "data": pictures}
        close(run(work, engine="ray", workers=2, **given), run(work, **given))
