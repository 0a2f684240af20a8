"""Opens files of this machine that hold samples: regular files only, and without waiting.

A file can become something else between listing and reading. Opening a named pipe that nobody writes to would never
end, and a device may deliver bytes without end.
"""

from __future__ import annotations

import os
import stat
import struct
import zipfile
from io import BufferedReader
from typing import IO, Protocol

__all__ = ["ZIP_ENCRYPTED", "ZIP_METHODS", "StoredFile", "open_regular", "zip_data_start"]

ZIP_ENCRYPTED = 1
"""The flag of an encrypted member of a zip file."""
ZIP_METHODS = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})
"""The methods of the zip format that are read: with the others a few bytes can become gigabytes in one step."""

_LOCAL_HEADER = struct.Struct("<4s22x2H")


class StoredFile(Protocol):
    """A file that has no path on this machine: in a store, or in an archive."""

    def __fspath__(self) -> str:
        """What it is called in messages."""

    def open(self) -> IO[bytes]:
        """Open it for reading. Raises OSError if it cannot be."""


def open_regular(path: str | os.PathLike[str]) -> BufferedReader:
    """Open a file for reading. Raises OSError if it cannot be opened, or is not a regular file."""
    stream = open(path, "rb", opener=_without_waiting)  # noqa: SIM115 - the caller closes it
    if stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
        return stream
    stream.close()
    raise OSError(None, "it is not a regular file", os.fspath(path))


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def zip_data_start(file: IO[bytes], header: int) -> int:
    """Return where the content of a member of a zip file starts, given where its local header starts.

    Only the local header itself says how long it is. Raises OSError if there is none.
    """
    file.seek(header)
    head = file.read(_LOCAL_HEADER.size)
    if len(head) < _LOCAL_HEADER.size or not head.startswith(b"PK\x03\x04"):
        raise OSError("it is damaged in the archive, or the archive was changed")
    _, name, extra = _LOCAL_HEADER.unpack(head)
    return int(header + _LOCAL_HEADER.size + name + extra)
