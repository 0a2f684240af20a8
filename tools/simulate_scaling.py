"""How long a calibration takes on N workers: a simulation of the Ray engine, its driver, stragglers and lost workers.

    python tools/simulate_scaling.py --images 100e6 --rate 7 --workers 10 100 1000 10000

Assumptions, all of them options: a worker measures `--rate` images a second; how long a chunk takes varies by
`--spread` (log-normal); a share `--slow` of the workers is `--slowness` times slower throughout; a worker is lost every
`--mtbf` hours on average, its chunk starts over, and a new one is ready after `--restart` seconds. The driver takes in
one result at a time: how long unpickling one and adding it up takes is measured here, on moments as large as VGG-16's
(4,224 channels), and `--call` is added for Ray's own work on a call. Storage and network are taken to keep up.
"""

from __future__ import annotations

import argparse
import heapq
import math
import pickle
import time
from dataclasses import dataclass

import numpy as np

from onnxnorm.calibration.jobs import State
from onnxnorm.calibration.shards import Selection
from onnxnorm.calibration.steps import Measured
from onnxnorm.statistics import Moments, Value

CHANNELS = (64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512)


@dataclass(frozen=True)
class Outcome:
    """What one simulated run came to."""

    workers: int
    hours: float
    efficiency: float
    driver: float
    lost: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=float, default=100e6)
    parser.add_argument("--rate", type=float, default=7.0, help="images a second and worker")
    parser.add_argument("--workers", type=int, nargs="+", default=[10, 100, 1000, 10000])
    parser.add_argument("--chunk", type=int, default=64, help="images a call; 8 batches of 8 by default")
    parser.add_argument("--spread", type=float, default=0.2)
    parser.add_argument("--slow", type=float, default=0.01)
    parser.add_argument("--slowness", type=float, default=3.0)
    parser.add_argument("--mtbf", type=float, default=24.0, help="hours")
    parser.add_argument("--restart", type=float, default=60.0, help="seconds")
    parser.add_argument("--call", type=float, default=1e-3, help="seconds of the driver for a call, beside the sums")
    given = parser.parse_args()
    size, seconds = result_cost(given.chunk)
    print(
        f"one result: {size / 1e3:.0f} kB, {seconds * 1e3:.2f} ms to unpickle and add up; {given.chunk} images a call\n"
    )
    print("| workers | hours | of the ideal speed | driver busy | workers lost |")
    print("|---:|---:|---:|---:|---:|")
    for workers in given.workers:
        found = simulated(given, workers, seconds + given.call)
        print(
            f"| {found.workers:,} | {found.hours:,.1f} | {found.efficiency:.0%} | {found.driver:.1%} | {found.lost:,} |"
        )


def result_cost(chunk: int, rounds: int = 50) -> tuple[int, float]:
    """Bytes of one result, and seconds that the driver needs for it."""
    rng = np.random.default_rng(0)
    totals = {}
    for index, channels in enumerate(CHANNELS):
        means = rng.random((8, channels))
        totals[Value(str(index), "mean")] = Moments.of(means, means, np.ones(8))
    results = [
        pickle.dumps(Measured(totals, chunk, tuple(range(start, start + chunk))), 5)
        for start in range(0, rounds * chunk, chunk)
    ]
    state, selection = State(), Selection()
    start_time = time.perf_counter()
    for result in results:
        state = state.after(pickle.loads(result), selection)
    return len(results[0]), (time.perf_counter() - start_time) / rounds


def simulated(given: argparse.Namespace, workers: int, cost: float) -> Outcome:
    """One run. A worker has its next chunk at hand, so it waits for the driver only when that falls behind."""
    rng = np.random.default_rng(0)
    chunks = math.ceil(given.images / given.chunk)
    speed = np.where(rng.random(workers) < given.slow, 1 / given.slowness, 1.0) * given.rate
    base = given.chunk / speed
    sigma = math.sqrt(math.log1p(given.spread**2))
    noise = np.exp(rng.standard_normal(1 << 16) * sigma - sigma**2 / 2)
    fails = rng.exponential(given.mtbf * 3600, 1 << 16)
    out = done = lost = 0
    free = finish = 0.0
    dies = [float(fails[worker % len(fails)]) for worker in range(workers)]
    events: list[tuple[float, int]] = []
    returned = [0.0] * workers  # when the result before the last one was taken in: the next but one can start then

    def start(worker: int, now: float) -> None:
        nonlocal out, lost
        seconds = float(base[worker] * noise[out % len(noise)])
        out += 1
        while now + seconds > dies[worker]:
            lost += 1
            now = dies[worker] + given.restart
            dies[worker] = now + float(fails[(lost + worker) % len(fails)])
        heapq.heappush(events, (now + seconds, worker))

    for worker in range(min(workers, chunks)):
        start(worker, 0.0)
    while done < chunks:
        now, worker = heapq.heappop(events)
        free = max(free, now) + cost
        done += 1
        finish = max(finish, free)
        if out < chunks:
            start(worker, max(now, returned[worker]))
        returned[worker] = free
    ideal = given.images / (given.rate * workers)
    return Outcome(workers, finish / 3600, ideal / finish, done * cost / finish, lost)


if __name__ == "__main__":
    main()
