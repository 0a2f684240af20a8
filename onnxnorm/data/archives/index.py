"""Lists the images in an archive: a zip file by its directory, a tar file by its headers, one after the other.

Only regular members count. Links, devices, sparse and encrypted members, and archives inside the archive are not
followed; they are counted among the others. Hidden members are left out, as hidden files in folders are.
"""

from __future__ import annotations

import gzip
import stat
import tarfile
import warnings
import zipfile
import zlib
from array import array
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, Any, NamedTuple, cast

import numpy as np

from onnxnorm.data.archives.members import MemberTable
from onnxnorm.data.files.table import FileTableBuilder, Place
from onnxnorm.data.local import ZIP_ENCRYPTED, ZIP_METHODS, open_regular
from onnxnorm.data.sources import kind_of
from onnxnorm.errors import DataError, DataWarning

__all__ = ["ArchiveIndex", "archive_index", "is_compressed"]

_DAMAGED = (
    tarfile.TarError,
    zipfile.BadZipFile,
    gzip.BadGzipFile,
    zlib.error,
    EOFError,
    ValueError,
    NotImplementedError,
)
_LARGEST_HEADER = 1 << 20


class _Member(NamedTuple):
    """A member; `unusable` says why it is not read, if it is not."""

    name: str
    start: int = 0
    stored: int = 0
    size: int = 0
    crc: int = 0
    deflated: bool = False
    unusable: str = ""


@dataclass(frozen=True)
class ArchiveIndex:
    """What an archive holds.

    Attributes:
        images: the images.
        others: numbers of other members, by their ending or by why they are not read.
        nested: number of archives in the archive.
    """

    images: MemberTable
    others: Counter[str] = field(default_factory=Counter)
    nested: int = 0


def is_compressed(path: Path) -> bool:
    """Whether an archive is compressed as a whole, so that it can be read only from start to end."""
    return path.name.lower().endswith((".gz", ".tgz"))


def archive_index(path: Path) -> ArchiveIndex:
    """List the images in an archive. Raises DataError if it cannot be read, or is damaged."""
    is_zip = path.name.lower().endswith(".zip")
    try:
        with open_regular(path) as file:
            return _index(path, _zip_members(file) if is_zip else _tar_members(path, file), is_zip)
    except _DAMAGED as error:
        what = "zip" if is_zip else "tar"
        raise DataError(f"{path} is no {what} file, or is damaged or cut off ({error}); copy it again") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error


def _index(path: Path, members: Iterator[_Member], is_zip: bool) -> ArchiveIndex:
    names, place, others, nested = FileTableBuilder(), Place(f"{path}/"), Counter[str](), 0
    starts, stored, crcs, deflated = array("q"), array("q"), array("L"), bytearray()
    for member in members:
        if _is_hidden(member.name):
            continue
        kind = kind_of(PurePosixPath(member.name).name)
        if kind == "archive":
            nested += 1
        elif kind != "image" or member.unusable:
            others[member.unusable or PurePosixPath(member.name).suffix.lower() or "no ending"] += 1
        else:
            names.add(place, member.name, "image", member.size)
            starts.append(member.start)
            stored.append(member.stored)
            crcs.append(member.crc)
            deflated.append(member.deflated)
    columns = (np.array(starts, np.int64), np.array(stored, np.int64))
    more = (np.array(crcs, np.uint32), np.frombuffer(bytes(deflated), np.bool_)) if is_zip else ()
    return ArchiveIndex(MemberTable(names.table(), *columns, *more), others, nested)


def _zip_members(file: IO[bytes]) -> Iterator[_Member]:
    with zipfile.ZipFile(file) as archive:
        for info in archive.infolist():
            if info.is_dir():
                continue
            reason = ""
            if info.flag_bits & ZIP_ENCRYPTED:
                reason = "encrypted"
            elif info.compress_type not in ZIP_METHODS:
                reason = "compressed otherwise than by deflate"
            elif stat.S_ISLNK(info.external_attr >> 16):
                reason = "link"
            is_deflated = info.compress_type == zipfile.ZIP_DEFLATED
            place = (info.header_offset, info.compress_size, info.file_size, info.CRC)
            yield _Member(info.filename, *place, is_deflated, reason)


class _Headers:
    """A stream of which only headers are read: what claims to be a header of gigabytes is not brought into memory."""

    def __init__(self, stream: Any) -> None:
        self.seek, self.tell, self._read = stream.seek, stream.tell, stream.read

    def read(self, size: int) -> bytes:
        """Read at most 1 MiB. Raises ValueError for more."""
        if size > _LARGEST_HEADER:
            raise ValueError(f"a header has {size:,} bytes")
        return bytes(self._read(size))


def _tar_members(path: Path, file: IO[bytes]) -> Iterator[_Member]:
    stream = _Headers(gzip.GzipFile(fileobj=file) if is_compressed(path) else file)
    with tarfile.open(fileobj=cast(Any, stream), mode="r:") as archive:
        # The offset of an empty one is 0 once it is open; Python 3.10 fails where that is asked for a member again.
        while archive.offset and (info := archive.next()) is not None:
            archive.members = []  # type: ignore[attr-defined]  # else it keeps a kilobyte for each
            if info.isdir():
                continue
            reason = "" if info.isreg() else "link" if info.issym() or info.islnk() else "no regular file"
            reason = "sparse" if info.issparse() else reason
            yield _Member(info.name, info.offset_data, info.size, info.size, unusable=reason)
        # tarfile takes a header that it cannot read for the end, which is a block of zeros.
        stream.seek(archive.offset)
        rest = stream.read(tarfile.BLOCKSIZE)
        if rest.strip(b"\0"):
            raise tarfile.ReadError(f"what follows byte {archive.offset:,} is no header")
        if not rest:
            warnings.warn(DataWarning(f"{path} has no end mark, so it may be cut off; compare its size"), stacklevel=2)


def _is_hidden(name: str) -> bool:
    parts = name.split("/")
    return any(part.startswith(".") and part not in {".", ".."} for part in parts) or "__MACOSX" in parts
