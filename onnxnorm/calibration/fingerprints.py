"""Fingerprints of files: two hashes of 64 bits, of name and size, and of size and three pieces of the content.

Hashing all of a file would read it twice; hashing its name alone would take two files of one name for the same. The
three pieces are 4 KiB each: the first, the middle and the last. A file that cannot be read any more, and one that lies
elsewhere, has 0 for the second; the name of the latter is its whole URI.
"""

from __future__ import annotations

import heapq
import os
from collections.abc import Iterable, Iterator
from hashlib import blake2b
from pathlib import Path, PurePath

import numpy as np

from onnxnorm.calibration.discovery import DataFile
from onnxnorm.provenance import KEPT, Prints

__all__ = ["fingerprints"]

_PIECE = 4096


def fingerprints(files: Iterable[DataFile]) -> Prints:
    """The fingerprints of these files, or of the `KEPT` with the smallest hashes of name and size."""
    smallest = heapq.nsmallest(KEPT, _named(files), key=lambda entry: entry[0])
    rows = sorted({(name, _content(file, size)) for name, file, size in smallest})
    return np.array(rows, np.uint64).reshape(-1, 2)


def _named(files: Iterable[DataFile]) -> Iterator[tuple[int, DataFile, int]]:
    for file in files:
        size = _size(file) if file.size is None else file.size
        name = PurePath(file.name).name if isinstance(file.path, Path) else file.path.uri
        yield _hash(os.fsencode(name), size), file, size


def _size(file: DataFile) -> int:
    try:
        return os.stat(file.path).st_size
    except OSError:
        return -1


def _content(file: DataFile, size: int) -> int:
    try:
        if not isinstance(file.path, Path):
            return 0
        with file.path.open("rb") as stream:
            pieces = []
            for start in (0, size // 2, max(0, size - _PIECE)):
                stream.seek(start)
                pieces.append(stream.read(_PIECE))
    except OSError:
        return 0
    return _hash(b"".join(pieces), size)


def _hash(data: bytes, size: int) -> int:
    return int.from_bytes(blake2b(b"%d:" % size + data, digest_size=8).digest(), "little")
