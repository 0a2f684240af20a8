"""Reads arrays on disk in NumPy's format, a few rows at a time.

How an array is read depends on how it is stored:

1. A `.npy` file, or an uncompressed member of a `.npz`, is memory-mapped in place.
2. A compressed member of a `.npz` is decompressed from start to end, one block of rows after the other.
3. A compressed member whose rows are each spread over the whole member (Fortran order, or samples on another axis than
   the first) is decompressed to a temporary file, which is memory-mapped.

Pickled objects are never loaded. Source: NumPy Enhancement Proposal 1, "A Simple File Format for NumPy Arrays".
"""

from __future__ import annotations

import math
import os
import struct
import tempfile
import warnings
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from onnxnorm.data.local import open_regular, zip_data_start
from onnxnorm.data.selection import Indices
from onnxnorm.errors import DataError

__all__ = ["Rows", "open_npy", "open_npz"]

_ENCRYPTED = 1
# What NumPy writes. With the other methods of the zip format a few bytes can become gigabytes in one step.
_METHODS = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})


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
class MappedRows:
    """Rows that are stored uncompressed in a file, from byte `offset` on."""

    path: Path
    header: Header
    offset: int
    axis: int = 0

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the whole array, the samples first."""
        return _moved_shape(self.header.shape, self.axis)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype as stored."""
        return self.header.dtype

    def blocks(self, row_blocks: Iterable[Indices], dtype: np.dtype[Any]) -> Iterator[npt.NDArray[Any]]:
        """Yield copies of the rows."""
        for rows in row_blocks:  # mapped again for each: pages count as memory of this process while they are mapped
            yield _native(_select_rows(np.moveaxis(self.mapped(), self.axis, 0), rows), dtype)

    def along(self, axis: int) -> MappedRows:
        """Return the same array with its samples on another axis."""
        return replace(self, axis=axis)

    def whole(self, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
        """Return a copy of the whole array, as it is stored."""
        return _native(self.mapped(), dtype)

    def mapped(self) -> np.memmap[Any, np.dtype[Any]]:
        """Return the memory map of the whole array, read-only. Raises DataError if the file is not there any more."""
        header = self.header
        try:
            with open_regular(self.path) as file:
                return np.memmap(file, header.dtype, "r", self.offset, header.shape, header.order)
        except (OSError, ValueError) as error:
            raise DataError(f"{self.path} was changed or removed while it was read ({error}); run it again") from error


@dataclass(frozen=True)
class StreamedRows:
    """Rows in a compressed member of a zip file."""

    path: Path
    member: str
    header: Header
    axis: int = 0

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the whole array, the samples first."""
        return _moved_shape(self.header.shape, self.axis)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype as stored."""
        return self.header.dtype

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

    def along(self, axis: int) -> StreamedRows:
        """Return the same array with its samples on another axis."""
        return replace(self, axis=axis)

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


def open_npy(path: Path) -> Rows:
    """Open a `.npy` file; only its header is read. Raises DataError if it cannot be read."""
    try:
        with open_regular(path) as file:
            header = _read_header(file, str(path))
            size = os.fstat(file.fileno()).st_size
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    _check_length(header, size, str(path))
    return MappedRows(path, header, header.length)


def open_npz(path: Path) -> dict[str, Rows]:
    """Open each array in a `.npz` file, by name; only headers are read. Raises DataError if one cannot be read."""
    try:
        with open_regular(path) as file, open_regular(path) as second, zipfile.ZipFile(second) as archive:
            members = [info for info in archive.infolist() if info.filename.endswith(".npy")]
            return {info.filename[: -len(".npy")]: _open_member(archive, file, info, path) for info in members}
    except (zipfile.BadZipFile, NotImplementedError, ValueError, struct.error) as error:
        raise DataError(f"{path} is not a readable .npz file ({error}); write it again with numpy.savez") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error


def _open_member(archive: zipfile.ZipFile, file: IO[bytes], info: zipfile.ZipInfo, path: Path) -> Rows:
    where = f"{path}[{info.filename[: -len('.npy')]!r}]"
    if info.flag_bits & _ENCRYPTED:
        raise DataError(f"{where} is encrypted; write it again with numpy.savez")
    if info.compress_type not in _METHODS:
        raise DataError(
            f"{where} is compressed by method {info.compress_type} of the zip format, but only 0 (stored) and 8 "
            "(deflated) are read; write it again with numpy.savez or numpy.savez_compressed"
        )
    if info.compress_type == zipfile.ZIP_STORED:
        try:
            start = zip_data_start(file, info.header_offset)
        except OSError as error:
            raise DataError(f"{where} is damaged; write it again with numpy.savez") from error
        file.seek(start)
        header = _read_header(file, where)
        _check_length(header, info.file_size, where)
        return MappedRows(path, header, start + header.length)
    with archive.open(info) as stream:
        header = _read_header(stream, where)
    _check_length(header, info.file_size, where)
    return StreamedRows(path, info.filename, header)


def _read_header(stream: IO[bytes], where: str) -> Header:
    start = stream.tell()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # NumPy warns about files written by Python 2.
            shape, fortran, dtype = _parsed_header(stream)
    except Exception as error:  # The header is parsed as Python source, so a damaged one can raise nearly anything.
        raise DataError(f"{where} is not a readable NumPy array ({error}); write it again with numpy.save") from error
    if dtype.hasobject:
        raise DataError(f"{where} holds pickled Python objects, which are never loaded; save an array of numbers")
    if any(isinstance(side, bool) for side in shape):
        raise DataError(f"{where} is damaged: its shape is {shape}; write it again with numpy.save")
    if any(side < 1 for side in shape):
        raise DataError(f"{where} is empty: its shape is {shape}; it must hold at least one sample")
    return Header(shape, dtype, "F" if fortran else "C", stream.tell() - start)


def _parsed_header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(stream)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(stream)
    if version == (2, 0):
        return np.lib.format.read_array_header_2_0(stream)
    raise ValueError(f"format version {version}")


def _check_length(header: Header, available: int, where: str) -> None:
    if header.length + header.nbytes > available:
        raise DataError(
            f"{where} is cut off: shape {header.shape} {header.dtype} needs {header.nbytes:,} bytes, "
            f"{max(0, available - header.length):,} are there; write it again"
        )


def _native(rows: npt.NDArray[Any], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """Return a contiguous copy in the native dtype. NumPy stores bfloat16 and similar types as void bytes."""
    if rows.dtype.kind == "V":
        return np.array(rows, order="C", subok=False).view(dtype)
    return np.array(rows, dtype, order="C", subok=False)


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
