"""Memory that is short is named as such, and smaller batches are run instead, with the same results."""

from __future__ import annotations

import subprocess
import sys
import time
import tracemalloc
from threading import Barrier, Event, Lock, Thread
from typing import Any

import numpy as np
import pytest

import onnxnorm
from onnxnorm.calibration import probe_session, ranges, step
from onnxnorm.calibration.options import CalibrationOptions
from onnxnorm.calibration.ranges import ranges_of
from onnxnorm.data.batches import Batch
from onnxnorm.errors import MemoryShortageError, MemoryWarning
from onnxnorm.model.boundary import lacks_memory
from onnxnorm.model.files import Model
from onnxnorm.runtime import Runtime, Session
from tests.helpers.calibrations import close, net
from tests.helpers.commands import DEMO, IMAGES, run
from tests.helpers.graphs import rand

# As little memory as runs one sample at a time, but not a batch. Numbers are bytes beyond what a first run has taken.
LITTLE = """
import resource, warnings
from pathlib import Path
import numpy as np
import onnxnorm
from onnxnorm.calibration import pace
from tests.helpers.graphs import model, rand
pace._SMALL_CACHE = 1 << 40  # so that whole batches are tried
weights = {"w": rand(64, 3, 3, 3), "v": rand(2, 64, 1, 1)}
proto = model("a = Conv(x, w) r = Relu(a) z = Conv(r, v)", {"x": ("n", 3, 512, 512)}, weights)
onnxnorm.calibrate(proto, rand(1, 3, 512, 512), provider="cpu", threads=1)
data = np.ones((16, 3, 512, 512), np.float32)
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 700 * 2**20,) * 2)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    statistics = onnxnorm.calibrate(proto, data, provider="cpu", threads=1, batch_size=16)
print(statistics.images, {warning.category.__name__ for warning in caught})
"""


def short(monkeypatch: pytest.MonkeyPatch, most: int, error: type[Exception]) -> list[int]:
    """Let runs of more than `most` samples fail, and return the list of the sizes that were tried."""
    usual, tried = Session.run, list[int]()

    def run_some(self: Session, feeds: Any) -> Any:
        tried.append(len(next(iter(feeds.values()))))
        if tried[-1] > most:
            raise error("no memory")
        return usual(self, feeds)

    monkeypatch.setattr(Session, "run", run_some)
    return tried


@pytest.mark.parametrize("error", [MemoryShortageError, MemoryError])
def test_smaller_batches_give_the_same(error: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    data = rand(37, 3, 12, 12)
    words: dict[str, Any] = {"provider": "cpu", "threads": 1, "batch_size": 12}
    whole = onnxnorm.calibrate(net(), data, **words)
    tried = short(monkeypatch, 3, error)
    with pytest.warns(MemoryWarning) as caught:
        close(onnxnorm.calibrate(net(), data, **words), whole)
    assert [str(item.message) for item in caught] == [
        "a batch of 12 samples does not fit into memory; batches of at most 6 are tried",
        "a batch of 6 samples does not fit into memory; batches of at most 3 are tried",
    ]
    assert sum(size > 3 for size in tried) == 2  # what failed once is not tried again


def test_where_not_even_one_sample_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    short(monkeypatch, 0, MemoryShortageError)
    with pytest.warns(MemoryWarning), pytest.raises(MemoryShortageError):
        onnxnorm.calibrate(net(), rand(4, 3, 12, 12), provider="cpu", threads=1)


def test_ranges_of_inputs_need_less_memory_in_halves(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = Batch({"x": rand(9, 3, 4, 4)}, 9, tuple("abcdefghi"), tuple(range(9)))
    whole, usual = ranges_of(batch)["x"], np.asarray

    def few(array: Any, dtype: Any) -> Any:
        if len(array) > 4:
            raise MemoryError
        return usual(array, dtype)

    monkeypatch.setattr(np, "asarray", few)
    halved = ranges_of(batch)["x"]
    assert (halved.low, halved.high) == (whole.low, whole.high)


def test_only_the_limits_of_a_known_range_are_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def batch(array: Any) -> Batch:
        return Batch({"x": array}, len(array), tuple("abcd"[: len(array)]), tuple(range(len(array))))

    first, more = rand(4, 3, 4, 4), rand(2, 3, 4, 4) * np.float32(9)
    known = ranges_of(batch(first))
    monkeypatch.setattr(np, "asarray", no_memory)  # nothing is converted
    widened = ranges_of(batch(more), known)["x"]
    assert (widened.mean, widened.std) == (known["x"].mean, known["x"].std)
    assert (widened.low, widened.high) == (min(first.min(), more.min()), max(first.max(), more.max()))


def test_the_range_of_one_sample_is_found_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = Batch({"x": rand(1, 3, 200, 300)}, 1, ("a",), (0,))
    whole = ranges_of(batch)["x"]
    monkeypatch.setattr(np, "asarray", no_memory)
    parts = ranges_of(batch)["x"]
    assert (parts.low, parts.high) == (whole.low, whole.high)
    np.testing.assert_allclose((parts.mean, parts.std), (whole.mean, whole.std), rtol=1e-12)


def test_the_range_of_a_large_array_takes_little_memory() -> None:
    batch = Batch({"x": np.ones((1, 3, 2400, 2400), np.float32)}, 1, ("a",), (0,))
    tracemalloc.start()
    found = ranges_of(batch)["x"]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (found.mean, found.std, found.low, found.high) == (1, 0, 1, 1)
    assert peak < 1 << 23


def test_the_range_is_found_once_no_run_is_going_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory that a run takes beside it is free again after that run."""
    proto, data = net(), rand(3, 3, 12, 12)
    model = Model.open(proto)
    probe = step.prepare(model, {"x": (1, 3, 12, 12)}, CalibrationOptions(), Runtime("cpu", 1))
    batch, usual = Batch({"x": data}, 3, ("a", "b", "c"), (0, 1, 2)), ranges.ranges_of
    begun, ended = Event(), list[bool]()

    def run() -> None:
        with probe.room.run():
            begun.set()
            time.sleep(0.2)
            ended.append(True)

    def found(given: Batch, known: Any) -> Any:
        if not ended:
            raise MemoryError
        return usual(given, known)

    monkeypatch.setattr(probe_session, "ranges_of", found)
    thread = Thread(target=run)
    thread.start()
    begun.wait(30)
    assert probe.ranges(batch, {}) == usual(batch)
    thread.join()


def no_memory(*_: Any, **__: Any) -> Any:
    raise MemoryError


def test_once_memory_was_short_there_is_one_run_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two runs fail beside each other, and each of them passes alone."""
    usual, running, begun = Session.run, [0], [0]
    lock, both = Lock(), Barrier(2, timeout=30)

    def run_alone(self: Session, feeds: Any) -> Any:
        with lock:
            running[0] += 1
            begun[0] += 1
            first = begun[0] <= 2
        try:
            if first:
                both.wait()  # until the two of them run
                raise MemoryShortageError("no memory")
            time.sleep(0.005)
            if running[0] > 1:
                raise MemoryShortageError("no memory for two")
            return usual(self, feeds)
        finally:
            with lock:
                running[0] -= 1

    data, proto = rand(8, 3, 160, 160), net()
    words: dict[str, Any] = {"provider": "cpu", "threads": 2, "batch_size": 8}
    whole = onnxnorm.calibrate(proto, data, **{**words, "threads": 1})
    monkeypatch.setattr(Session, "run", run_alone)
    with pytest.warns(MemoryWarning):
        close(onnxnorm.calibrate(proto, data, **words), whole)
    assert begun[0] > 4


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits and their numbers are those of Linux")
def test_with_little_memory_indeed() -> None:
    done = subprocess.run([sys.executable, "-c", LITTLE], capture_output=True, text=True, check=False, timeout=120)
    assert done.stdout == "16 {'MemoryWarning'}\n", done.stderr


@pytest.mark.parametrize(
    ("message", "lacks"),
    [
        ("bfc_arena.cc:376 Failed to allocate memory for requested buffer of size 1", True),
        ("std::bad_alloc", True),
        ("CUDA failure 2: out of memory ; GPU=0", True),
        ("CUBLAS_STATUS_ALLOC_FAILED", True),
        ("Available memory of 12 is smaller than requested bytes of 14", True),
        ("Invalid rank for input: x", False),
    ],
)
def test_what_the_runtime_says(message: str, lacks: bool) -> None:
    assert lacks_memory(RuntimeError(message)) is lacks
    assert lacks_memory(MemoryError())


@pytest.mark.filterwarnings("always::UserWarning")
def test_the_command_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    short(monkeypatch, 0, MemoryError)
    ran = run("calibrate", DEMO, IMAGES, "--preset", "unit", "-q", "-o", tmp_path / "s.safetensors")
    assert ran.code == 1
    assert "note: a batch of 8 samples does not fit into memory; batches of at most 4 are tried\n" in ran.err
    assert "error: there is not enough memory" in ran.err
    assert "bug" not in ran.err
