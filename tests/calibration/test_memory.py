"""Memory that is short is named as such, and smaller batches are run instead, with the same results."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest

import onnxnorm
from onnxnorm.calibration import step
from onnxnorm.data.batches import Batch
from onnxnorm.errors import MemoryShortageError, MemoryWarning
from onnxnorm.model.boundary import lacks_memory
from onnxnorm.runtime import Session
from tests.helpers.calibrations import close, net
from tests.helpers.commands import DEMO, IMAGES, run
from tests.helpers.graphs import rand

# As little memory as runs one sample at a time, but not a batch. Numbers are bytes beyond what a first run has taken.
LITTLE = """
import resource, warnings
from pathlib import Path
import numpy as np
import onnxnorm
from tests.helpers.graphs import model, rand
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
    whole, usual = step.ranges_of(batch)["x"], np.asarray

    def few(array: Any, dtype: Any) -> Any:
        if len(array) > 4:
            raise MemoryError
        return usual(array, dtype)

    monkeypatch.setattr(np, "asarray", few)
    halved = step.ranges_of(batch)["x"]
    assert (halved.low, halved.high) == (whole.low, whole.high)


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
