"""Opens arrays on disk in NumPy's format: reads their headers, and says where their rows are (`rows`).

Pickled objects are never loaded. Source: NumPy Enhancement Proposal 1, "A Simple File Format for NumPy Arrays".
"""

from __future__ import annotations

import os
import struct
import warnings
import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np

from onnxnorm.data.arrays.rows import Header, Rows, StoredRows, StreamedRows
from onnxnorm.data.local import ZIP_ENCRYPTED, ZIP_METHODS, open_regular, zip_data_start
from onnxnorm.errors import DataError

__all__ = ["open_npy", "open_npz"]


def open_npy(path: Path) -> Rows:
    """Open a `.npy` file; only its header is read. Raises DataError if it cannot be read."""
    try:
        with open_regular(path) as file:
            header = _read_header(file, str(path))
            size = os.fstat(file.fileno()).st_size
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    _check_length(header, size, str(path))
    return StoredRows(path, header, header.length)


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
    if info.flag_bits & ZIP_ENCRYPTED:
        raise DataError(f"{where} is encrypted; write it again with numpy.savez")
    if info.compress_type not in ZIP_METHODS:
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
        return StoredRows(path, header, start + header.length)
    with archive.open(info) as stream:
        header = _read_header(stream, where)
    _check_length(header, info.file_size, where)
    return StreamedRows(path, header, info.filename)


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
