"""Many files in little memory: a sequence of `DataFile` that makes each file when it is accessed.

All names are concatenated in one byte string; offsets, sizes and kinds are arrays. What names have in common, the
folder or the URI that was given, is stored once. So a file costs its relative name and 17 bytes. A selection of files
is a table too, which holds no names but its own, so that it is small enough to send to another process.

Names are stored in UTF-8. Bytes of a local file name that are not UTF-8 are stored as Python's surrogates.
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
    """A file to calibrate on.

    Attributes:
        path: where it is.
        name: its name relative to the folder that was given, so that it is the same on all machines.
        kind: the kind of its source.
        size: its size in bytes at the time of listing.
    """

    path: Path | RemoteFile
    name: str
    kind: str
    size: int


@dataclass(frozen=True)
class Place:
    """The location of files: what precedes their names in a path or a URI, including the last separator.

    `tidy` is true if exactly the name follows. In stores, what follows may have empty parts, which are not in the name.
    """

    prefix: str
    remote: bool = False
    tidy: bool = True

    @classmethod
    def folder(cls, path: str | os.PathLike[str]) -> Place:
        """Return the place of the files in a local folder."""
        return cls("" if os.fspath(path) == os.curdir else os.path.join(path, ""))


class Entry(NamedTuple):
    """A file as a table stores it: `raw` follows the prefix of its place, `kind` is the number of its source."""

    place: Place
    raw: str
    kind: int
    size: int

    @property
    def name(self) -> str:
        """The name relative to the folder or the URI that was given."""
        return self.raw if self.place.tidy else "/".join(parts_of(self.raw)) or "."

    @property
    def where(self) -> str:
        """The whole path or URI."""
        return self.place.prefix + (self.raw if self.place.remote else self.raw.replace("/", os.sep))

    def file(self) -> DataFile:
        """Return the file as a `DataFile`."""
        path = RemoteFile(self.where) if self.place.remote else Path(self.where)
        return DataFile(path, self.name, sources()[self.kind].kind, self.size)


@dataclass(frozen=True, eq=False, repr=False)
class FileTable(Sequence[DataFile]):
    """Files in order.

    Attributes:
        text: all names, concatenated.
        offsets: where each name starts in `text`, and where the last one ends, shape `(files + 1,)`.
        sizes: sizes in bytes, shape `(files,)`.
        kinds: numbers of the sources, shape `(files,)`.
        places: the places of the files, one for each stretch of rows.
        starts: the first row of each place, shape `(places,)`.
    """

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
        """Pickle the columns as bytes: arrays received through shared memory would keep that memory in use."""
        columns = (self.offsets.tobytes(), self.sizes.tobytes(), self.kinds.tobytes())
        return _received, (self.text, *columns, self.places, self.starts.tobytes())

    @classmethod
    def of(cls, files: Iterable[DataFile]) -> FileTable:
        """Return the table of these files, whose paths must end with their names; a table is returned as it is."""
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
        """Return the files of all tables as one table, in order."""
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
        """Return one row, counted from 0."""
        place = self.places[0 if len(self.places) == 1 else int(np.searchsorted(self.starts, row, "right")) - 1]
        raw = self.text[int(self.offsets[row]) : int(self.offsets[row + 1])]
        return Entry(place, raw.decode("utf-8", "surrogatepass"), int(self.kinds[row]), int(self.sizes[row]))

    def entries(self) -> Iterator[Entry]:
        """Iterate over all rows."""
        for place, rows in self._blocks():
            columns = zip(self._raw(rows), self.kinds[rows].tolist(), self.sizes[rows].tolist(), strict=True)
            for raw, kind, size in columns:
                yield Entry(place, raw.decode("utf-8", "surrogatepass"), kind, size)

    def names(self) -> Iterator[bytes]:
        """Iterate over all names, in the encoding of the file system."""
        for place, rows in self._blocks():
            plain = b"\xed" not in self.text[self.offsets[rows.start] : self.offsets[rows.stop]]  # no surrogates then
            if place.tidy and plain and _UTF8:
                yield from self._raw(rows)
            else:
                decoded = (raw.decode("utf-8", "surrogatepass") for raw in self._raw(rows))
                yield from (os.fsencode(Entry(place, raw, 0, 0).name) for raw in decoded)

    def _blocks(self) -> Iterator[tuple[Place, slice]]:
        """Yield stretches of rows, each at one place and of at most `_BLOCK` rows."""
        for place, (first, last) in zip(self.places, pairwise([*self.starts.tolist(), len(self)]), strict=True):
            for low in range(first, last, _BLOCK):
                yield place, slice(low, min(low + _BLOCK, last))

    def _raw(self, rows: slice) -> Iterator[bytes]:
        spans = pairwise(self.offsets[rows.start : rows.stop + 1].tolist())
        return (self.text[start:stop] for start, stop in spans)

    def select(self, rows: ArrayLike) -> FileTable:
        """Return the table of these rows, in this order."""
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
        """Return all files with `inside` put before their names, and with each place replaced by one of `places`."""
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
        """Yield the concatenated names of some rows in pieces; consecutive rows are copied at once."""
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
        """Return the table of the files that were added."""
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
    """Return the parts of a path in a store, without empty parts and dots, as pathlib does."""
    parts = raw.split("/")
    return parts if "" not in parts and "." not in parts else [part for part in parts if part not in {"", "."}]
