"""Fingerprints of files: two hashes of 64 bits, one of name and size, the other of size and three pieces of content.

Hashing a whole file would read it twice; hashing its name only would confuse files of the same name. The three pieces
are 4 KiB each, from the start, the middle and the end. The second hash is 0 for a file that can no longer be read and
for a remote file, whose name is its whole URI.
"""

from __future__ import annotations

import heapq
import os
from collections.abc import Iterable, Iterator
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from onnxnorm.data.files.table import DataFile, Entry, FileTable
from onnxnorm.data.local import open_regular

__all__ = ["fingerprints"]

_PIECE = 4096


def fingerprints(files: Iterable[DataFile], most: int) -> NDArray[np.uint64]:
    """Return the fingerprints of at most `most` files, those with the smallest first hashes, shape `(n, 2)`.

    Rows are ascending: the hash of name and size, then the hash of the content.
    """
    table = FileTable.of(files)
    smallest = heapq.nsmallest(most, _named(table))
    rows = sorted({(name, _content(table.entry(row), size)) for name, row, size in smallest})
    return np.array(rows, np.uint64).reshape(-1, 2)


def _named(table: FileTable) -> Iterator[tuple[int, int, int]]:
    """Yield the hash of name and size, the row, and the size in bytes of every file."""
    for row, entry in enumerate(table.entries()):
        name = entry.where if entry.place.remote else entry.raw.rsplit("/", 1)[-1]
        yield _hash(os.fsencode(name), entry.size), row, entry.size


def _content(entry: Entry, size: int) -> int:
    if entry.place.remote:
        return 0
    try:
        with open_regular(entry.where) as stream:
            pieces = []
            for start in (0, size // 2, max(0, size - _PIECE)):
                stream.seek(start)
                pieces.append(stream.read(_PIECE))
    except OSError:
        return 0
    return _hash(b"".join(pieces), size)


def _hash(data: bytes, size: int) -> int:
    return int.from_bytes(blake2b(b"%d:" % size + data, digest_size=8).digest(), "little")
