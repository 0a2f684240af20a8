"""Members of an archive, each of which can be opened by itself, in any thread or process.

What a member is called is only shown, and never used as a path: nothing is written, and no other file is opened.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from gzip import GzipFile
from io import BytesIO
from pathlib import Path
from typing import IO, BinaryIO

import numpy as np
from numpy.typing import ArrayLike, NDArray

from onnxnorm.data.files.table import FileTable
from onnxnorm.data.local import open_regular, zip_data_start
from onnxnorm.data.selection import Indices

__all__ = ["LARGEST_MEMBER", "LoadedFile", "MemberFile", "MemberTable"]

LARGEST_MEMBER = 1 << 28
"""Bytes of the largest member that is read; each is held in memory as a whole."""

_TOO_LARGE = f"it has more than {LARGEST_MEMBER:,} bytes, the most that is read from an archive"


@dataclass(frozen=True)
class MemberFile:
    """A member that lies in an archive in one piece.

    Attributes:
        archive: the archive.
        name: its name in the archive.
        start: where its bytes start in the archive; for a zip file, where its local header starts.
        stored: number of bytes in the archive.
        size: number of bytes of its content.
        crc: the checksum of its content in a zip file; None in a tar file.
        deflated: whether its content is compressed.
    """

    archive: Path
    name: str
    start: int
    stored: int
    size: int
    crc: int | None = None
    deflated: bool = False

    def __str__(self) -> str:
        return f"{self.archive}/{self.name}"

    def __fspath__(self) -> str:
        return str(self)

    def open(self) -> IO[bytes]:
        """Read its content into memory. Raises OSError if it cannot be read, is too large, or is damaged."""
        if max(self.size, self.stored) > LARGEST_MEMBER:
            raise OSError(_TOO_LARGE)
        with open_regular(self.archive) as file:
            file.seek(self.start if self.crc is None else zip_data_start(file, self.start))
            data = file.read(self.stored)
        if self.deflated:
            try:
                data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, self.size + 1)
            except zlib.error as error:
                raise OSError(f"it is damaged in the archive ({error})") from error
        if len(data) != self.size or (self.crc is not None and zlib.crc32(data) != self.crc):
            raise OSError("it is damaged in the archive, or the archive was changed")
        return BytesIO(data)


@dataclass(frozen=True)
class LoadedFile:
    """A member that was read from a compressed archive already; without data if it is too large."""

    where: str
    data: bytes | None

    def __str__(self) -> str:
        return self.where

    def __fspath__(self) -> str:
        return self.where

    def open(self) -> IO[bytes]:
        """Open its content. Raises OSError if it was too large to be read."""
        if self.data is None:
            raise OSError(_TOO_LARGE)
        return BytesIO(self.data)


@dataclass(frozen=True, eq=False)
class MemberTable:
    """The images in an archive in order, in little memory: what `MemberFile` says of each, in columns."""

    names: FileTable
    starts: Indices
    stored: Indices
    crcs: NDArray[np.uint32] | None = None
    deflated: NDArray[np.bool_] | None = None

    def __len__(self) -> int:
        return len(self.starts)

    def member(self, row: int, archive: Path) -> MemberFile:
        """Return one member."""
        entry = self.names.entry(row)
        crc = None if self.crcs is None else int(self.crcs[row])
        deflated = self.deflated is not None and bool(self.deflated[row])
        return MemberFile(archive, entry.raw, int(self.starts[row]), int(self.stored[row]), entry.size, crc, deflated)

    def loaded(
        self, archive: Path, stream: BinaryIO | GzipFile, rows: Iterator[int]
    ) -> Iterator[tuple[int, LoadedFile]]:
        """Yield members with their rows, read from the unpacked stream of an archive; rows must be ascending."""
        for row in rows:
            entry = self.names.entry(row)
            if entry.size > LARGEST_MEMBER:
                yield row, LoadedFile(f"{archive}/{entry.raw}", None)
                continue
            stream.seek(int(self.starts[row]))
            yield row, LoadedFile(f"{archive}/{entry.raw}", stream.read(entry.size))

    def select(self, rows: ArrayLike) -> MemberTable:
        """Return the table of these rows."""
        at = np.asarray(rows, np.int64)
        crcs = None if self.crcs is None else self.crcs[at]
        deflated = None if self.deflated is None else self.deflated[at]
        return MemberTable(self.names.select(at), self.starts[at], self.stored[at], crcs, deflated)
