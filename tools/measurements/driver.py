"""What a result costs the driver of a Ray cluster, by how many calls are out: CPU time, in all threads of the driver.

    python -m tools.measurements.driver --out 20 2000 20000

Two actors answer at once with moments as large as VGG-16's (4,224 channels), as often as they are asked; each call
carries the names of 64 files. Counted are handing out the call, Ray's own work, unpickling the result and adding it up.
With 20,000 calls out, 10,000 workers are busy. Each figure comes from a process and a cluster of its own.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np

from onnxnorm.calibration.job import State
from onnxnorm.calibration.step import Increment
from onnxnorm.data.selection import Selection
from onnxnorm.statistics import Moments, Value

CHANNELS = (64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512)
CHUNK = 64


class Answering:
    """Knows the answer already."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        means = [rng.random((8, channels)) for channels in CHANNELS]
        self.totals = {Value(str(i), "mean"): Moments.of(m, m, np.ones(8)) for i, m in enumerate(means)}

    def measure(self, number: int, names: bytes) -> Increment:
        """What a chunk would come to."""
        del names
        return Increment(self.totals, CHUNK, tuple(range(number * CHUNK, (number + 1) * CHUNK)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=int, nargs="+", default=[20, 2000, 20000], help="calls that are out")
    parser.add_argument("--results", type=int, default=1000, help="how many are taken in and counted")
    given = parser.parse_args()
    if len(given.out) > 1:
        for out in given.out:
            subprocess.run(
                [sys.executable, "-m", "tools.measurements.driver", "--out", str(out), "--results", str(given.results)],
                check=True,
            )
        return
    print(f"{given.out[0]:,} calls out: {cost(given.out[0], given.results) * 1e3:.2f} ms a result", flush=True)


def cost(out: int, results: int) -> float:
    """Seconds of CPU for a result."""
    import ray

    there = {"env_vars": {"PYTHONPATH": str(Path(__file__).resolve().parents[2])}}
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False, runtime_env=there)
    kind: Any = ray.remote(num_cpus=1)(Answering)
    actors, ended, names, sent = [kind.remote(), kind.remote()], SimpleQueue[Any](), b"x" * 40 * CHUNK, 0
    state, selection = State(), Selection()

    def send() -> None:
        nonlocal sent
        reference = actors[sent % 2].measure.remote(sent, names)
        reference.future().add_done_callback(lambda future: ended.put(future.result()))
        sent += 1

    def take() -> None:
        nonlocal state
        state = state.after(ended.get(), selection)
        send()

    for _ in range(out):
        send()
    for _ in range(results // 10):
        take()
    begun = time.process_time()
    for _ in range(results):
        take()
    found = time.process_time() - begun
    for actor in actors:
        ray.kill(actor)
    ray.shutdown()
    return found / results


if __name__ == "__main__":
    main()
