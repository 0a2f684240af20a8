"""Many files in little memory: a sequence of `DataFile` that makes each of them when it is asked for.

All names lie one after another in one string of bytes; offsets, sizes and kinds are arrays. What the names have in
common, the folder or the URI that was given, is kept once. So a file costs its relative name and 17 bytes. Some of the
files are again such a table, which takes along their names only, so that it can be sent to another process.

Names are kept in UTF-8; what is not UTF-8 in the name of a local file passes through as Python's surrogates do.
"""

from __future__ import annotations

import os
import sys
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from onnxnorm.data.remote import RemoteFile
from onnxnorm.data.selection import Indices
from onnxnorm.data.sources import source_number, sources

__all__ = ["DataFile", "Entry", "FileTable", "FileTableBuilder", "Place", "parts_of"]

_BLOCK = 1 << 12
_UTF8 = sys.getfilesystemencoding() == "utf-8"


@dataclass(frozen=True)
class DataFile:
    """A file to calibrate on; `name` is relative to the folder that was given, so it is the same on all machines.

    `size` is what it was when it was listed, in bytes.
    """

    path: Path | RemoteFile
    name: str
    kind: str
    size: int


@dataclass(frozen=True)
class Place:
    """Where files lie: what stands before their names in a path or a URI, the last separator included.

    `tidy`: what follows it is the name. Stores may have empty parts in theirs, which do not count.
    """

    prefix: str
    remote: bool = False
    tidy: bool = True

    @classmethod
    def folder(cls, path: str | os.PathLike[str]) -> Place:
        """A local folder."""
        return cls("" if os.fspath(path) == os.curdir else os.path.join(path, ""))


class Entry(NamedTuple):
    """A file as a table keeps it: `raw` is what follows the prefix."""

    place: Place
    raw: str
    kind: int
    size: int

    @property
    def name(self) -> str:
        """The name relative to what was given."""
        return self.raw if self.place.tidy else "/".join(parts_of(self.raw)) or "."

    @property
    def where(self) -> str:
        """The path or the URI."""
        return self.place.prefix + (self.raw if self.place.remote else self.raw.replace("/", os.sep))

    def file(self) -> DataFile:
        """As it is worked with."""
        path = RemoteFile(self.where) if self.place.remote else Path(self.where)
        return DataFile(path, self.name, sources()[self.kind].kind, self.size)


@dataclass(frozen=True, eq=False, repr=False)
class FileTable(Sequence[DataFile]):
    """Files in order. `starts` are the rows from which on the `places` hold."""

    text: bytes
    offsets: Indices
    sizes: Indices
    kinds: NDArray[np.uint8]
    places: tuple[Place, ...]
    starts: Indices

    def __post_init__(self) -> None:
        for column in (self.offsets, self.sizes, self.kinds, self.starts):
            column.flags.writeable = False

    def __reduce__(self) -> tuple[Any, ...]:
        """Sent as bytes: arrays that come through shared memory would hold on to it."""
        columns = (self.offsets.tobytes(), self.sizes.tobytes(), self.kinds.tobytes())
        return _received, (self.text, *columns, self.places, self.starts.tobytes())

    @classmethod
    def of(cls, files: Iterable[DataFile]) -> FileTable:
        """The table of these files, whose paths end with their names; a table is its own."""
        if isinstance(files, FileTable):
            return files
        builder = FileTableBuilder()
        for file in files:
            where = str(file.path)
            if not where.endswith(file.name):
                raise ValueError(f"{where} does not end with {file.name}")
            place = Place(where[: len(where) - len(file.name)], isinstance(file.path, RemoteFile))
            builder.add(place, file.name, file.kind, file.size)
        return builder.table()

    @classmethod
    def joined(cls, tables: Sequence[FileTable]) -> FileTable:
        """The files of all tables, in order."""
        if len(tables) == 1:
            return tables[0]
        ends, rows = (np.cumsum([0, *some]) for some in ([len(t.text) for t in tables], [len(t) for t in tables]))
        places: list[Place] = []
        starts: list[int] = []
        for table, first in zip(tables, rows.tolist(), strict=False):
            for place, start in zip(table.places, table.starts.tolist(), strict=True):
                if not places or places[-1] != place:
                    places.append(place)
                    starts.append(first + start)
        offsets = [table.offsets[1:] + end for table, end in zip(tables, ends[:-1], strict=True)]
        return cls(
            b"".join(table.text for table in tables),
            np.concatenate([np.zeros(1, np.int64), *offsets]),
            np.concatenate([np.empty(0, np.int64), *(table.sizes for table in tables)]),
            np.concatenate([np.empty(0, np.uint8), *(table.kinds for table in tables)]),
            tuple(places),
            np.array(starts, np.int64),
        )

    def __len__(self) -> int:
        return len(self.kinds)

    def __repr__(self) -> str:
        return f"FileTable({len(self):,} files)"

    @overload
    def __getitem__(self, index: int) -> DataFile: ...
    @overload
    def __getitem__(self, index: slice) -> FileTable: ...
    def __getitem__(self, index: int | slice) -> DataFile | FileTable:
        if isinstance(index, slice):
            rows = range(len(self))[index]
            return self if rows == range(len(self)) else self.select(np.arange(rows.start, rows.stop, rows.step))
        return self.entry(range(len(self))[index]).file()

    def __iter__(self) -> Iterator[DataFile]:
        return (entry.file() for entry in self.entries())

    def entry(self, row: int) -> Entry:
        """One row, counted from 0."""
        place = self.places[0 if len(self.places) == 1 else int(np.searchsorted(self.starts, row, "right")) - 1]
        raw = self.text[int(self.offsets[row]) : int(self.offsets[row + 1])]
        return Entry(place, raw.decode("utf-8", "surrogatepass"), int(self.kinds[row]), int(self.sizes[row]))

    def entries(self) -> Iterator[Entry]:
        """All rows."""
        for place, rows in self._blocks():
            columns = zip(self._raw(rows), self.kinds[rows].tolist(), self.sizes[rows].tolist(), strict=True)
            for raw, kind, size in columns:
                yield Entry(place, raw.decode("utf-8", "surrogatepass"), kind, size)

    def names(self) -> Iterator[bytes]:
        """All names, encoded as those of files are."""
        for place, rows in self._blocks():
            plain = b"\xed" not in self.text[self.offsets[rows.start] : self.offsets[rows.stop]]  # so no surrogates
            if place.tidy and plain and _UTF8:
                yield from self._raw(rows)
            else:
                found = (raw.decode("utf-8", "surrogatepass") for raw in self._raw(rows))
                yield from (os.fsencode(Entry(place, raw, 0, 0).name) for raw in found)

    def _blocks(self) -> Iterator[tuple[Place, slice]]:
        """Stretches of rows at one place that are not too long."""
        for place, (first, last) in zip(self.places, pairwise([*self.starts.tolist(), len(self)]), strict=True):
            for low in range(first, last, _BLOCK):
                yield place, slice(low, min(low + _BLOCK, last))

    def _raw(self, rows: slice) -> Iterator[bytes]:
        spans = pairwise(self.offsets[rows.start : rows.stop + 1].tolist())
        return (self.text[start:stop] for start, stop in spans)

    def select(self, rows: ArrayLike) -> FileTable:
        """Only these rows, in this order."""
        rows = np.asarray(rows, np.int64)
        lengths = self.offsets[rows + 1] - self.offsets[rows]
        where = np.searchsorted(self.starts, rows, "right") - 1
        starts = np.flatnonzero(np.diff(where, prepend=-1))
        return FileTable(
            b"".join(self._texts(rows)),
            np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)]),
            self.sizes[rows],
            self.kinds[rows],
            tuple(self.places[place] for place in where[starts].tolist()),
            starts,
        )

    def moved(self, inside: str, places: Sequence[Place]) -> FileTable:
        """All files with names that begin with `inside`, at other `places`, one for each that there was."""
        if not len(self):
            return self
        before = inside.encode("utf-8", "surrogatepass")
        text = self.text
        if before:
            text = before + before.join(self._raw(slice(0, len(self))))
        return replace(
            self, text=text, offsets=self.offsets + len(before) * np.arange(len(self) + 1), places=tuple(places)
        )

    def _texts(self, rows: Indices) -> Iterator[bytes]:
        """The names of some rows, in pieces: at once where rows follow each other."""
        edge = np.diff(rows) != 1
        firsts, lasts = rows[np.r_[True, edge][: len(rows)]], rows[np.r_[edge, True][: len(rows)]]
        for low in range(0, len(firsts), _BLOCK):
            starts, stops = self.offsets[firsts[low : low + _BLOCK]], self.offsets[lasts[low : low + _BLOCK] + 1]
            yield b"".join(self.text[a:b] for a, b in zip(starts.tolist(), stops.tolist(), strict=True))


class FileTableBuilder:
    """Makes a table file by file."""

    def __init__(self) -> None:
        self._text = bytearray()
        self._offsets = array("q", [0])
        self._sizes = array("q")
        self._kinds = bytearray()
        self._place: Place | None = None
        self._places: list[Place] = []
        self._starts = array("q")

    def __len__(self) -> int:
        return len(self._kinds)

    def add(self, place: Place, raw: str, kind: str, size: int) -> None:
        """Append a file: its path or URI is the prefix of the place and `raw`."""
        if place is not self._place and place != self._place:
            self._place = place
            self._places.append(place)
            self._starts.append(len(self._kinds))
        self._text += raw.encode("utf-8", "surrogatepass")
        self._offsets.append(len(self._text))
        self._sizes.append(size)
        self._kinds.append(source_number(kind))

    def table(self) -> FileTable:
        """What was added."""
        return FileTable(
            bytes(self._text),
            np.array(self._offsets, np.int64),
            np.array(self._sizes, np.int64),
            np.array(self._kinds, np.uint8),
            tuple(self._places),
            np.array(self._starts, np.int64),
        )


def _received(text: bytes, offsets: bytes, sizes: bytes, kinds: bytes, places: tuple[Place, ...], starts: bytes) -> Any:
    columns = (np.frombuffer(offsets, np.int64), np.frombuffer(sizes, np.int64), np.frombuffer(kinds, np.uint8))
    return FileTable(text, *columns, places, np.frombuffer(starts, np.int64))


def parts_of(raw: str) -> list[str]:
    """The parts of a path in a store, as pathlib has them: without empty ones and dots."""
    parts = raw.split("/")
    return parts if "" not in parts and "." not in parts else [part for part in parts if part not in {"", "."}]
