"""How long a calibration takes on N workers: a simulation of the engine on a cluster, with stragglers and lost workers.

    python -m tools.measurements.scaling --images 100e6 --rate 7 --workers 10 100 1000 10000

Chunks are cut by the engine's own rule. Assumptions, all of them options: a worker measures `--rate` images a second;
how long a chunk takes varies by `--spread` (log-normal); a share `--slow` of the workers is `--slowness` times slower
throughout; a worker is lost every `--mtbf` hours on average, the chunk that it is at starts over, and a new worker is
ready after `--restart` seconds. The driver takes in one result at a time, `--result` seconds each
(`tools/measurements/driver.py`). Storage and network are taken to keep up.
"""

from __future__ import annotations

import argparse
import heapq
import math
from collections import deque
from dataclasses import dataclass

import numpy as np

from onnxnorm.calibration.engines.ray.chunks import OUTSTANDING, chunk_size


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
    parser.add_argument("--batch", type=int, default=8, help="images a batch")
    parser.add_argument("--spread", type=float, default=0.2)
    parser.add_argument("--slow", type=float, default=0.01)
    parser.add_argument("--slowness", type=float, default=3.0)
    parser.add_argument("--mtbf", type=float, default=24.0, help="hours")
    parser.add_argument("--restart", type=float, default=60.0, help="seconds")
    parser.add_argument("--result", type=float, default=1.5e-3, help="seconds of the driver for a result")
    given = parser.parse_args()
    print("| workers | hours | of the ideal speed | driver busy | workers lost |")
    print("|---:|---:|---:|---:|---:|")
    for workers in given.workers:
        found = Simulation(given, workers).run()
        print(
            f"| {found.workers:,} | {found.hours:,.2f} | {found.efficiency:.0%} | {found.driver:.1%} | {found.lost:,} |"
        )


class Simulation:
    """One run: workers with the chunks that they have, and a driver that takes in what they end with, in order."""

    def __init__(self, given: argparse.Namespace, workers: int) -> None:
        self.given, self.workers = given, workers
        rng = np.random.default_rng(0)
        self.speed = np.where(rng.random(workers) < given.slow, 1 / given.slowness, 1.0) * given.rate
        sigma = math.sqrt(math.log1p(given.spread**2))
        self.noise = np.exp(rng.standard_normal(1 << 16) * sigma - sigma**2 / 2)
        self.lives = rng.exponential(given.mtbf * 3600, 1 << 16)
        self.dies = [float(self.lives[worker % len(self.lives)]) for worker in range(workers)]
        self.left = int(given.images)
        self.waiting: list[deque[int]] = [deque() for _ in range(workers)]
        self.busy = [False] * workers
        self.events: list[tuple[float, int]] = []  # when a worker ends with a chunk
        self.cut = self.lost = 0

    def run(self) -> Outcome:
        """Until all is taken in."""
        for _ in range(OUTSTANDING):
            for worker in range(self.workers):
                self.give(worker, 0.0)
        free, results = 0.0, 0
        while self.events:
            now, worker = heapq.heappop(self.events)
            self.busy[worker] = False
            self.begin(worker, now)
            free = max(free, now) + self.given.result
            results += 1
            self.give(worker, free)
        ideal = self.given.images / (self.given.rate * self.workers)
        return Outcome(self.workers, free / 3600, ideal / free, results * self.given.result / free, self.lost)

    def give(self, worker: int, now: float) -> None:
        """Hand out the next chunk, if there is one."""
        if self.left:
            size = min(self.left, chunk_size(self.left, self.given.batch, self.workers))
            self.left -= size
            self.waiting[worker].append(size)
            self.begin(worker, now)

    def begin(self, worker: int, now: float) -> None:
        """Let a worker begin with its next chunk, if it has one and nothing to do."""
        if self.busy[worker] or not self.waiting[worker]:
            return
        self.busy[worker] = True
        size = self.waiting[worker].popleft()
        seconds = float(size / self.speed[worker] * self.noise[self.cut % len(self.noise)])
        self.cut += 1
        while now + seconds > self.dies[worker]:
            self.lost += 1
            now = self.dies[worker] + self.given.restart
            self.dies[worker] = now + float(self.lives[(self.lost + worker) % len(self.lives)])
        heapq.heappush(self.events, (now + seconds, worker))


if __name__ == "__main__":
    main()
