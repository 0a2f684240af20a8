"""What listing a store and describing the files cost the driver: bytes and CPU time a file.

    python -m tools.measurements.listing --files 1000000 --folders 1000 --latency 0.05 [--ray]

The store is made up. It answers as those for object stores do, with a dict a file, and waits `--latency` seconds for
each thousand files. The time to make the answers is measured alone and not counted; what the package of a real store
takes to read its answers comes on top. With `--ray` the workers of a local cluster list, one a core, and what their
answers take is theirs.
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import fsspec  # type: ignore[import-untyped]

from onnxnorm.calibration.engines.ray.executor import RayExecutor
from onnxnorm.data.files.discovery import discover, identity, order_digest
from onnxnorm.data.files.fingerprints import fingerprints
from onnxnorm.data.files.listing import LocalExecutor
from tools.measurements.made_up_store import MadeUp

T = TypeVar("T")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=1_000_000)
    parser.add_argument("--folders", type=int, default=1000)
    parser.add_argument("--latency", type=float, default=0.0, help="seconds for a thousand files")
    parser.add_argument("--ray", action="store_true", help="let the workers of a cluster list")
    given = parser.parse_args()
    fsspec.register_implementation("madeup", MadeUp)
    own = 0.0 if given.ray else answering(f"{given.files}-{given.folders}-0", given.folders)
    executor = workers() if given.ray else LocalExecutor()
    before, peak = resident(), highest()
    started = time.perf_counter()
    found, seconds = timed(
        lambda: discover([f"madeup://{given.files}-{given.folders}-{given.latency}/photos"], executor)
    )
    wall, files = time.perf_counter() - started, len(found.files)
    print(f"{files:,} files; {len(found.files[0].name)} bytes a name")
    print(
        f"listing: {wall:.1f} s, CPU {(seconds - own) / files * 1e6:.1f} us a file (answers: {own / files * 1e6:.1f})"
    )
    print(f"memory: {(resident() - before) / files:.0f} bytes a file, at most {(highest() - peak) / files:.0f}")
    for what in (identity, order_digest, fingerprints):
        print(f"{what.__name__}: {timed(lambda what=what: what(found.files))[1] / files * 1e6:.1f} us a file")  # type: ignore[misc]
    print(f"memory: at most {(highest() - peak) / files:.0f} bytes a file")


def answering(bucket: str, folders: int) -> float:
    """CPU time that the made-up store takes for its answers."""
    store = MadeUp()
    return timed(lambda: [len(store.find(f"{bucket}/photos/n{folder:08}")) for folder in range(folders)])[1]


def workers() -> RayExecutor:
    """Two of them, which are there."""
    import ray

    there = {"env_vars": {"PYTHONPATH": str(Path(__file__).resolve().parents[2])}}
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False, runtime_env=there)
    executor = RayExecutor(ray, 2)
    list(executor.map(os.path.isdir, ["."] * 8, 1))
    return executor


def timed(run: Callable[[], T]) -> tuple[T, float]:
    start = time.process_time()
    return run(), time.process_time() - start


def resident() -> int:
    """Bytes that this process has in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def highest() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


if __name__ == "__main__":
    main()
