"""Data of initializers as it lies in files, read through a memory map a few megabytes at a time.

A page that was read through a map counts as memory of this process until it is released. `MappedData` releases every
part after handing it out, so that reading a model of any size takes the memory of one part.
"""

from __future__ import annotations

import mmap
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from onnxnorm.errors import ModelError
from onnxnorm.model.protobuf import RAW_DATA

__all__ = ["CHUNK", "MappedData", "mapped"]

CHUNK = 1 << 22  # bytes that are handled at a time


@dataclass(frozen=True)
class MappedData:
    """Data of an initializer in a file, `offset` bytes from its start: little-endian, in row-major order."""

    buffer: memoryview
    offset: int
    field: int = RAW_DATA

    @property
    def length(self) -> int:
        """Size in bytes."""
        return len(self.buffer)

    def chunks(self) -> Iterator[memoryview]:
        """The bytes, a few megabytes at a time."""
        for start in range(0, len(self.buffer), CHUNK):
            yield self.buffer[start : start + CHUNK]
            self._release(start, start + CHUNK)

    def rows(self, dtype: np.dtype[np.generic], shape: tuple[int, ...]) -> Iterator[tuple[int, NDArray[np.generic]]]:
        """Blocks of rows (of the first axis), a few megabytes each, with the index of the block's first row."""
        values = np.frombuffer(self.buffer, dtype).reshape(shape if shape else (1,))
        row = max(1, values.nbytes // max(1, len(values)))
        step = max(1, CHUNK // row)
        for start in range(0, len(values), step):
            yield start, values[start : start + step]
            self._release(start * row, (start + step) * row)

    def release(self) -> None:
        """Release all pages of the data; they are read from the file again if they are still used."""
        self._release(0, len(self.buffer))

    def _release(self, start: int, stop: int) -> None:
        """Release the pages of a range of bytes; they are read from the file again if they are still used."""
        source = self.buffer.obj
        if not isinstance(source, mmap.mmap) or not hasattr(mmap, "MADV_DONTNEED"):
            return
        first = (self.offset + start) // mmap.PAGESIZE * mmap.PAGESIZE
        last = min(self.offset + stop, len(source))
        if last > first:
            source.madvise(mmap.MADV_DONTNEED, first, last - first)


def mapped(path: Path) -> memoryview:
    """Map a file into memory, for reading. Raises ModelError if it cannot be read."""
    try:
        with open(path, "rb", opener=_open_at_once) as stream:
            state = os.fstat(stream.fileno())
            if not stat.S_ISREG(state.st_mode):
                raise ModelError(f"model {path} is not a regular file; write it to one first")
            if state.st_size == 0:
                return memoryview(b"")
            return memoryview(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ))
    except FileNotFoundError:
        raise ModelError(f"model {path} does not exist") from None
    except IsADirectoryError:
        raise ModelError(f"model {path} cannot be read: it is a folder; MODEL, an ONNX file, stands first") from None
    except OSError as error:
        raise ModelError(f"model {path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ModelError(f"model {str(path)!r} cannot be the name of a file ({error})") from error


def _open_at_once(path: str, flags: int) -> int:
    """Open a file without waiting: a named pipe without a writer would otherwise never be opened."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
