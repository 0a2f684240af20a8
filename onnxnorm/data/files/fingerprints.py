"""Fingerprints of files: two hashes of 64 bits, one of name and size, the other of size and three pieces of content.

Hashing a whole file would read it twice; hashing its name only would confuse files of the same name. The three pieces
are 4 KiB each, from the start, the middle and the end. The second hash is 0 for a file that can no longer be read and
for a remote file, whose name is its whole URI. An image in an archive has the fingerprint that it has as a file.
"""

from __future__ import annotations

import heapq
import os
from collections.abc import Callable, Iterable, Iterator
from hashlib import blake2b
from io import BytesIO
from operator import itemgetter
from typing import IO

import numpy as np
from numpy.typing import NDArray

from onnxnorm.data.files.table import DataFile, Entry, FileTable
from onnxnorm.data.local import open_regular

__all__ = ["fingerprints"]

_PIECE = 4096


def fingerprints(
    files: Iterable[DataFile], most: int, read: Callable[[list[int]], Iterable[bytes | None]] | None = None
) -> NDArray[np.uint64]:
    """Return the fingerprints of at most `most` files, those with the smallest first hashes, shape `(n, 2)`.

    Rows are ascending: the hash of name and size, then the hash of the content.

    Args:
        files: the files.
        most: how many fingerprints there are at most.
        read: returns the contents of files, given their numbers, ascending; None for one that cannot be read. By
            default the files are opened.
    """
    table = FileTable.of(files)
    smallest = sorted(heapq.nsmallest(most, _named(table)), key=itemgetter(1))
    if read is None:
        contents = (_content(table.entry(row), size) for _, row, size in smallest)
    else:
        contents = (
            0 if data is None else _of_pieces(BytesIO(data), len(data)) for data in read([r for _, r, _ in smallest])
        )
    rows = sorted({(name, content) for (name, _, _), content in zip(smallest, contents, strict=True)})
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
            return _of_pieces(stream, size)
    except OSError:
        return 0


def _of_pieces(stream: IO[bytes], size: int) -> int:
    pieces = []
    for start in (0, size // 2, max(0, size - _PIECE)):
        stream.seek(start)
        pieces.append(stream.read(_PIECE))
    return _hash(b"".join(pieces), size)


def _hash(data: bytes, size: int) -> int:
    return int.from_bytes(blake2b(b"%d:" % size + data, digest_size=8).digest(), "little")
