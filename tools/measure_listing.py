"""What listing a store and describing the files cost the driver: bytes and CPU time a file.

    python tools/measure_listing.py --files 1000000 --folders 1000 --latency 0.05

The store is made up. It answers as those for object stores do, with a dict a file, and waits `--latency` seconds for
each thousand files. The time to make the answers is measured alone and not counted; what the package of a real store
takes to read its answers comes on top.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import fsspec  # type: ignore[import-untyped]

from onnxnorm.calibration.discovery import discover, identity, order_digest
from onnxnorm.calibration.fingerprints import fingerprints

T = TypeVar("T")
PAGE = 1000


class MadeUp(fsspec.AbstractFileSystem):  # type: ignore[misc]
    """A bucket of folders, all alike."""

    protocol = "madeup"
    files: ClassVar[int] = 0
    folders: ClassVar[int] = 0
    latency: ClassVar[float] = 0.0

    def isdir(self, *_: Any) -> bool:
        """All paths are folders."""
        return True

    def ls(self, *_: Any, **__: Any) -> list[dict[str, Any]]:
        """The folders of the bucket."""
        time.sleep(self.latency)
        return [{"name": f"bucket/photos/n{n:08}", "size": 0, "type": "directory"} for n in range(self.folders)]

    def find(self, path: str, *_: Any, **__: Any) -> dict[str, dict[str, Any]]:
        """The files in a folder, or in all of them."""
        first = path.removeprefix("bucket/photos").strip("/")
        found = {}
        for folder in [int(first[1:])] if first else range(self.folders):
            for number in range(self.files // self.folders):
                name = f"bucket/photos/n{folder:08}/n{folder:08}_{number:08}.JPEG"
                if self.latency and number % PAGE == 0:
                    time.sleep(self.latency)
                found[name] = {
                    "Key": name,
                    "name": name,
                    "type": "file",
                    "size": 100000 + number,
                    "Size": 100000 + number,
                    "ETag": f'"{number:032x}"',
                    "LastModified": f"2024-01-01T00:00:00.{number:06}Z",
                    "StorageClass": "STANDARD",
                }
        return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=1_000_000)
    parser.add_argument("--folders", type=int, default=1000)
    parser.add_argument("--latency", type=float, default=0.0, help="seconds for a thousand files")
    given = parser.parse_args()
    MadeUp.files, MadeUp.folders, MadeUp.latency = given.files, given.folders, 0.0
    fsspec.register_implementation("madeup", MadeUp)
    own = answering(given.folders)
    MadeUp.latency = given.latency
    before, peak = resident(), highest()
    started = time.perf_counter()
    found, seconds = timed(lambda: discover(["madeup://bucket/photos"]))
    wall, files = time.perf_counter() - started, len(found.files)
    print(f"{files:,} files; {len(found.files[0].name)} bytes a name")
    print(
        f"listing: {wall:.1f} s, CPU {(seconds - own) / files * 1e6:.1f} us a file (answers: {own / files * 1e6:.1f})"
    )
    print(f"memory: {(resident() - before) / files:.0f} bytes a file, at most {(highest() - peak) / files:.0f}")
    for what in (identity, order_digest, fingerprints):
        print(f"{what.__name__}: {timed(lambda what=what: what(found.files))[1] / files * 1e6:.1f} us a file")  # type: ignore[misc]
    print(f"memory: at most {(highest() - peak) / files:.0f} bytes a file")


def answering(folders: int) -> float:
    """CPU time that the made-up store takes for its answers."""
    store = MadeUp()
    return timed(lambda: [len(store.find(f"bucket/photos/n{folder:08}")) for folder in range(folders)])[1]


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
