"""Crashes and Ctrl-C, with real processes: what was measured is kept, and a resumed run gives the same statistics."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import onnxnorm
from onnxnorm.calibration import checkpoint
from onnxnorm.calibration.calibrate import Interrupted
from onnxnorm.calibration.checkpoint import Checkpoint, read_checkpoint
from onnxnorm.data.selection import Ranges
from onnxnorm.errors import CheckpointWarning, OptionError, StatisticsError
from onnxnorm.statistics import Statistics
from tests.helpers.calibrations import close, net
from tests.helpers.graphs import rand

# The command line, with a pause after every batch.
SLOW = """
import sys, time
from onnxnorm.calibration.probe_session import ProbeSession
from onnxnorm.cli import main
measure = ProbeSession.measure
def slow(self, placed, indices):
    found = measure(self, placed, indices)
    time.sleep(pause)
    return found
pause = float(sys.argv.pop())
ProbeSession.measure = slow
main()
"""
ROWS = 240


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A model and an array file with different rows, and two more shapes behind it."""
    onnx.save(net(), tmp_path / "net.onnx")
    data = tmp_path / "data"
    data.mkdir()
    np.save(data / "a.npy", rand(ROWS, 3, 12, 12))
    np.save(data / "b.npy", rand(9, 3, 8, 14, seed=1))
    np.save(data / "c.npy", rand(9, 3, 14, 8, seed=2))
    return tmp_path


def command(work: Path, *more: str) -> list[str]:
    return ["calibrate", str(work / "net.onnx"), str(work / "data"), "--batch-size", "4", "--provider", "cpu",
            "-o", str(work / "s.safetensors"), *more]  # fmt: skip


def started(work: Path, *more: str, pause: float = 0.15) -> subprocess.Popen[str]:
    script = [sys.executable, "-c", SLOW, *command(work, *more), str(pause)]
    return subprocess.Popen(script, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait(process: subprocess.Popen[str], until: Callable[[], bool]) -> None:
    for _ in range(600):
        if until():
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    raise AssertionError("it did not get that far in time")


def measured(partial: Path) -> int:
    return Statistics.load(partial).images if partial.exists() else 0


def whole(work: Path, **words: Any) -> Statistics:
    return onnxnorm.calibrate(work / "net.onnx", work / "data", provider="cpu", **words)


def test_killed_and_resumed(work: Path) -> None:
    partial, output = work / "s.safetensors.partial", work / "s.safetensors"
    process = started(work)
    wait(process, lambda: measured(partial) > 4)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    process.communicate()
    statistics, _, done = read_checkpoint(partial)
    assert not output.exists()
    assert not statistics.complete
    assert 4 < statistics.images == len(done) < ROWS

    again = started(work, "--resume", pause=0.0)
    out, err = again.communicate(timeout=60)
    assert again.returncode == 0, err
    assert "interrupted" not in out
    found = Statistics.load(output)
    assert found.complete
    close(found, whole(work))
    assert not partial.exists()
    assert found.inputs.keys() == whole(work).inputs.keys()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_by_ctrl_c_and_as_by_ctrl_c(work: Path, number: signal.Signals) -> None:
    partial, output = work / "s.safetensors.partial", work / "s.safetensors"
    process = started(work, "--json", "--shard", "1/2")
    wait(process, partial.exists)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "interrupted: what was measured is in" in err
    assert "Traceback" not in err
    shown = json.loads(out)
    kept = Statistics.load(output)
    assert not kept.complete
    assert not shown["complete"]
    assert "incomplete" in str(kept)
    assert 0 < kept.images == shown["images"] < ROWS // 2
    assert sorted(path.name for path in work.iterdir()) == ["data", "net.onnx", output.name, partial.name]

    again = started(work, "--resume", "--shard", "1/2", pause=0.0)
    _, err = again.communicate(timeout=60)
    assert again.returncode == 0, err
    close(Statistics.load(output), whole(work, shard="1/2"))


def test_ctrl_c_in_python_carries_the_statistics(work: Path) -> None:
    def stop(progress: Any) -> None:
        if progress.done >= 16:
            raise KeyboardInterrupt

    with pytest.raises(Interrupted) as caught:
        whole(work, progress=stop, batch_size=4)
    assert caught.value.statistics.images == 16
    close(caught.value.statistics, whole(work, limit=16))
    with pytest.raises(KeyboardInterrupt, match="no image"):
        onnxnorm.calibrate(work / "net.onnx", interrupting(), provider="cpu")


def interrupting() -> Any:
    yield rand(1, 3, 8, 8)
    raise KeyboardInterrupt("no image")


def test_samples_of_several_shapes_that_still_wait_are_not_lost(work: Path) -> None:
    """Shapes alternate, so batches do not come in the order of the data, and a checkpoint has gaps."""
    for number in range(30):
        np.save(work / "data" / f"d{number:02}.npy", rand(1, 3, 8 + number % 3, 8, seed=number))
    point = work / "point"
    for stop_at in (4, 8, 100, 262, 270, 280, 288):

        def stop(progress: Any, stop_at: int = stop_at) -> None:
            if progress.done >= stop_at:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            whole(work, progress=stop, batch_size=4, checkpoint=point, resume=True)
    close(whole(work, batch_size=3, checkpoint=point, resume=True), whole(work))


def test_a_resumed_run_knows_its_limit_and_what_was_skipped(work: Path) -> None:
    (work / "data" / "0.png").write_bytes(b"junk")
    point = work / "point"

    def stop(progress: Any) -> None:
        if progress.done >= 8:
            raise KeyboardInterrupt

    words: dict[str, Any] = {"preset": "unit", "checkpoint": point}
    with pytest.raises(KeyboardInterrupt):
        whole(work, progress=stop, limit=100, batch_size=4, **words)
    found = whole(work, limit=30, resume=True, **words)
    assert (found.images, len(found.skipped)) == (30, 1)
    with pytest.raises(OptionError, match="more than --limit 5"):
        whole(work, limit=5, resume=True, **words)
    assert point.exists()  # the caller removes it, once the statistics are safe
    close(whole(work, limit=16, resume=True, **words), whole(work, limit=16, preset="unit"))


def test_a_checkpoint_of_another_run_is_refused(work: Path) -> None:
    point = work / "point"
    whole(work, limit=4, checkpoint=point)
    for words, what in (
        ({"filters": "all"}, "filters"),
        ({"weighting": "image"}, "weighting"),
        ({"shard": "0/2"}, "shard"),
    ):
        with pytest.raises(StatisticsError, match=f"another run: its {what} differs"):
            whole(work, checkpoint=point, resume=True, **words)
    other = net()
    other.graph.initializer[0].raw_data = rand(5, 3, 3, 3, seed=9).tobytes()
    with pytest.raises(StatisticsError, match="model differs"):
        onnxnorm.calibrate(other, work / "data", provider="cpu", checkpoint=point, resume=True)
    with pytest.raises(StatisticsError, match="data differs"):
        onnxnorm.calibrate(net(), work / "data" / "a.npy", provider="cpu", checkpoint=point, resume=True)
    paths = [work / "data" / name for name in ("b.npy", "a.npy", "c.npy")]
    with pytest.raises(StatisticsError, match="order of the data differs"):
        whole_of(work, paths, point)
    with pytest.raises(OptionError, match="arrays in memory"):
        onnxnorm.calibrate(net(), rand(2, 3, 8, 8), provider="cpu", checkpoint=point, resume=True)
    whole(work).save(point)
    with pytest.raises(StatisticsError, match="is not a checkpoint"):
        whole(work, checkpoint=point, resume=True)
    with pytest.raises(OptionError, match="--resume"):
        whole(work, resume=True)


def whole_of(work: Path, paths: list[Path], point: Path) -> Statistics:
    return onnxnorm.calibrate(work / "net.onnx", paths, provider="cpu", checkpoint=point, resume=True)


def test_an_unfinished_run_is_set_aside_and_not_overwritten(work: Path) -> None:
    point = work / "point"
    whole(work, limit=4, checkpoint=point)
    before = point.read_bytes()
    whole(work, limit=8, checkpoint=point)
    assert (work / "point.old").read_bytes() == before


def test_checkpoints_are_due_at_once_and_then_by_time(work: Path) -> None:
    point = Checkpoint(work / "point", {"shard": "0/1"}, every=0.05)
    assert point.due()
    point.write(whole(work, limit=4), Ranges(((0, 4),)))
    assert not point.due()
    time.sleep(0.06)
    assert point.due()
    found = point.read()
    assert found is not None
    assert found[1] == Ranges(((0, 4),))
    point.remove()
    assert point.read() is None


def test_a_checkpoint_that_cannot_be_written_is_a_warning(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run goes on, and says so once."""
    monkeypatch.setattr(checkpoint, "EVERY", 0.0)
    point = work / "gone" / "point"
    with pytest.warns(CheckpointWarning) as caught:
        close(whole(work, batch_size=4, checkpoint=point), whole(work, batch_size=4))
    assert [str(item.message) for item in caught] == [
        f"cannot write statistics {point}: the folder {point.parent} does not exist; make it first; "
        "the run goes on without checkpoints"
    ]


def test_ctrl_c_where_the_checkpoint_cannot_be_written(work: Path) -> None:
    def stop(progress: Any) -> None:
        raise KeyboardInterrupt

    with pytest.warns(CheckpointWarning), pytest.raises(Interrupted) as caught:
        whole(work, progress=stop, batch_size=4, checkpoint=work / "gone" / "point")
    assert caught.value.statistics.images == 4


def test_an_old_checkpoint_that_cannot_be_renamed(work: Path) -> None:
    point = work / ("x" * 253)
    point.write_bytes(b"an earlier run")
    with pytest.raises(StatisticsError, match=r"cannot be renamed to x+\.old \(File name too long\)"):
        whole(work, checkpoint=point)


def test_ctrl_c_twice_saves_all_the_same(work: Path) -> None:
    """The second one, in the midst of stopping and saving, changes nothing."""
    partial, output = work / "s.safetensors.partial", work / "s.safetensors"
    process = started(work, "--json")
    wait(process, partial.exists)
    for _ in range(40):
        process.send_signal(signal.SIGINT)
        time.sleep(0.01)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "interrupted: what was measured is in" in err
    assert "Traceback" not in err
    assert Statistics.load(output).images == json.loads(out)["images"]
