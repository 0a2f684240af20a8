"""Rows of arrays on disk, a few at a time.

How an array is read depends on how it is stored:

1. A `.npy` file, or an uncompressed member of a `.npz`, is read in place. Rows that are each spread over the whole file
   (Fortran order, or samples on another axis than the first) are copied from a memory map.
2. A compressed member of a `.npz` is decompressed from start to end, one block of rows after the other.
3. A compressed member with such rows is decompressed to a temporary file, which is memory-mapped.

Reading is faster than copying from a map, whose pages have to be entered one by one, and a file that becomes shorter
meanwhile is an error, where a map would end the process.
"""

from __future__ import annotations

import math
import tempfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from io import BufferedReader
from pathlib import Path
from typing import IO, Any, Literal, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from onnxnorm.data.local import open_regular
from onnxnorm.data.selection import Indices
from onnxnorm.errors import DataError

__all__ = ["Header", "Rows", "StoredRows", "StreamedRows"]

_Own = TypeVar("_Own", bound="_OnDisk")


class Rows(Protocol):
    """An array on disk, read with the samples first."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the whole array, `(N, *sample)`."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype as stored: with the byte order of the file, and with bfloat16 as 2 void bytes."""

    def blocks(self, row_blocks: Iterable[Indices], dtype: np.dtype[Any]) -> Iterator[npt.NDArray[Any]]:
        """Yield a copy `(n, *sample)` in `dtype` for each block of n row numbers; all numbers must be ascending."""

    def along(self, axis: int) -> Rows:
        """Return the same array with its samples on another axis than the first."""

    def whole(self, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
        """Return a copy of the whole array in `dtype`, as it is stored."""


@dataclass(frozen=True)
class Header:
    """The header of an array in NumPy's format; `length` is the number of bytes before the data."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    order: Literal["C", "F"]
    length: int

    @property
    def nbytes(self) -> int:
        """Size of the data in bytes."""
        return math.prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True)
class _OnDisk:
    """An array in a file, with its samples on an axis."""

    path: Path
    header: Header
    axis: int = field(default=0, kw_only=True)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the whole array, the samples first."""
        return _moved_shape(self.header.shape, self.axis)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype as stored."""
        return self.header.dtype

    def along(self: _Own, axis: int) -> _Own:
        """Return the same array with its samples on another axis."""
        return replace(self, axis=axis)


@dataclass(frozen=True)
class StoredRows(_OnDisk):
    """Rows that are stored uncompressed in a file, from byte `offset` on."""

    offset: int

    def blocks(self, row_blocks: Iterable[Indices], dtype: np.dtype[Any]) -> Iterator[npt.NDArray[Any]]:
        """Yield copies of the rows."""
        if self.axis or self.header.order == "F":
            for rows in row_blocks:  # mapped anew for each: mapped pages count as memory of this process
                yield _native(_select_rows(np.moveaxis(self.mapped(), self.axis, 0), rows), dtype)
            return
        with self._opened() as file:
            for rows in row_blocks:
                yield _in_dtype(self._read(file, rows), dtype)

    def whole(self, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
        """Return a copy of the whole array, as it is stored."""
        return _native(self.mapped(), dtype)

    def mapped(self) -> np.memmap[Any, np.dtype[Any]]:
        """Return the memory map of the whole array, read-only. Raises DataError if the file is not there any more."""
        header = self.header
        with self._opened() as file:
            return np.memmap(file, header.dtype, "r", self.offset, header.shape, header.order)

    @contextmanager
    def _opened(self) -> Iterator[BufferedReader]:
        """The file. Raises DataError where it is not what it was."""
        try:
            with open_regular(self.path) as file:
                yield file
        except (OSError, ValueError) as error:
            raise DataError(f"{self.path} was changed or removed while it was read ({error}); run it again") from error

    def _read(self, file: BufferedReader, rows: Indices) -> npt.NDArray[Any]:
        """Read rows in C order. Raises ValueError if the file ends before they do."""
        block = np.empty((len(rows), *self.shape[1:]), self.dtype)
        row, end = block.nbytes // len(rows), 0
        data = block.view(np.uint8).reshape(-1).data
        for start, stop in _runs(rows):
            file.seek(self.offset + start * row)
            piece = data[end : (end := end + (stop - start) * row)]
            if file.readinto(piece) < len(piece):
                raise ValueError("it has become shorter")
        return block


@dataclass(frozen=True)
class StreamedRows(_OnDisk):
    """Rows in a compressed member of a zip file."""

    member: str

    def blocks(self, row_blocks: Iterable[Indices], dtype: np.dtype[Any]) -> Iterator[npt.NDArray[Any]]:
        """Yield copies of the rows."""
        try:
            with (
                open_regular(self.path) as file,
                zipfile.ZipFile(file) as archive,
                archive.open(self.member) as stream,
            ):
                stream.read(self.header.length)
                in_order = self.header.order == "C" and not self.axis
                read = self._read_rows if in_order else self._read_spilled
                for block in read(stream, row_blocks):
                    yield _native(block, dtype)
        except (OSError, EOFError, zipfile.BadZipFile, ValueError) as error:
            raise DataError(f"{self.path}: array {self.member!r} is damaged ({error}); write it again") from error
        except zlib.error as error:
            raise DataError(f"{self.path}: array {self.member!r} cannot be decompressed ({error})") from error

    def whole(self, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
        """Return a copy of the whole array, as it is stored."""
        header = self.header
        as_row = replace(self, header=Header((1, header.nbytes), np.dtype(np.uint8), "C", header.length), axis=0)
        (data,) = as_row.blocks([np.zeros(1, np.int64)], np.dtype(np.uint8))
        return _native(np.ndarray(header.shape, header.dtype, data.tobytes(), order=header.order), dtype)

    def _read_rows(self, stream: IO[bytes], row_blocks: Iterable[Indices]) -> Iterator[npt.NDArray[Any]]:
        sample = self.header.shape[1:]
        row = math.prod(sample) * self.header.dtype.itemsize
        at = 0
        for rows in row_blocks:
            pieces = []
            for start, stop in _runs(rows):
                _skip(stream, (start - at) * row)
                pieces.append(stream.read((stop - start) * row))
                at = stop
            yield np.frombuffer(b"".join(pieces), self.header.dtype).reshape(len(rows), *sample)

    def _read_spilled(self, stream: IO[bytes], row_blocks: Iterable[Indices]) -> Iterator[npt.NDArray[Any]]:
        with tempfile.TemporaryFile() as file:
            left = self.header.nbytes
            while left > 0 and (data := stream.read(min(left, 2**20))):
                left -= file.write(data)
            file.flush()
            array = np.memmap(file, self.header.dtype, "r", 0, self.header.shape, self.header.order)
            for rows in row_blocks:
                yield _select_rows(np.moveaxis(array, self.axis, 0), rows)


def _native(rows: npt.NDArray[Any], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """Return a contiguous copy in the native dtype. NumPy stores bfloat16 and similar types as void bytes."""
    if rows.dtype.kind == "V":
        return np.array(rows, order="C", subok=False).view(dtype)
    return np.array(rows, dtype, order="C", subok=False)


def _in_dtype(block: npt.NDArray[Any], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """An array of our own in the native dtype, as `_native` has it, itself if it is that already."""
    return block if block.dtype == dtype else _native(block, dtype)


def _moved_shape(shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
    return (*shape[axis : axis + 1], *shape[:axis], *shape[axis + 1 :])


def _select_rows(array: npt.NDArray[Any], rows: Indices) -> npt.NDArray[Any]:
    """Select rows of an array, as a view if they are consecutive."""
    start, stop = int(rows[0]), int(rows[-1]) + 1
    return array[start:stop] if stop - start == len(rows) else array[rows]


def _runs(rows: Indices) -> Iterator[tuple[int, int]]:
    """Yield the stretches `(start, stop)` of consecutive numbers."""
    edges = np.flatnonzero(np.diff(rows) != 1) + 1
    for run in np.split(rows, edges):
        yield int(run[0]), int(run[-1]) + 1


def _skip(stream: IO[bytes], count: int) -> None:
    while count > 0 and (data := stream.read(min(count, 2**20))):
        count -= len(data)
