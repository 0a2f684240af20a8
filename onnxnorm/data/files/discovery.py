"""Finds the files to calibrate on, of all sources, given one by one or as folders.

Folders are searched recursively, in an order that does not depend on the machine. Hidden files and folders are ignored.
Links to folders are followed, but each folder is listed once. A file that is reached twice counts once.
"""

from __future__ import annotations

import heapq
import os
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from itertools import chain, pairwise
from pathlib import Path

import numpy as np

from onnxnorm.data.files.expansion import Given, expanded
from onnxnorm.data.files.listing import Executor, Listing, LocalExecutor
from onnxnorm.data.files.stores import listed_folder, listed_uri
from onnxnorm.data.files.table import DataFile, FileTable, FileTableBuilder, Place
from onnxnorm.data.images.signatures import is_image
from onnxnorm.data.remote import has_fsspec, is_local_uri, is_uri
from onnxnorm.data.sources import kind_of, source_number, sources
from onnxnorm.errors import DataError, DataWarning

__all__ = ["DataFile", "DiscoveredFiles", "discover", "identity", "order_digest"]

_SORTED_AT_ONCE = 1 << 18


@dataclass(frozen=True)
class DiscoveredFiles:
    """The files in order, and the number of other files in the folders, which are ignored."""

    files: FileTable
    ignored: int


def discover(data: Iterable[str | os.PathLike[str]], executor: Executor | None = None) -> DiscoveredFiles:
    """Return all files that `data` leads to.

    Args:
        data: files, folders, URIs, lists of them (`@list.txt`) and patterns.
        executor: what lists folders; by default threads of this process.

    Raises:
        DataError: if something does not exist, cannot be read, or holds no file of any source.
    """
    tables: list[FileTable] = []
    loose = FileTableBuilder()
    ignored = singles = 0
    for item in expanded(data):
        given, path = item.path, Path(item.path)
        if not is_uri(given) and not os.path.isdir(path):
            _add_single(loose, path, item)
            singles += 1
            continue
        if loose:
            tables.append(loose.table())
            loose = FileTableBuilder()
        listing = _below(given if is_uri(given) else path, executor or LocalExecutor())
        tables.append(listing.files)
        ignored += listing.others
    if loose or not tables:
        tables.append(loose.table())
    table = FileTable.joined(tables)
    return DiscoveredFiles(_once(table) if singles > 1 or _nested(tables) else table, ignored)


def identity(files: Sequence[DataFile]) -> dict[str, int | str]:
    """Return what distinguishes this data from other data, for provenance: count, bytes, a digest of names and sizes.

    No file is opened. The order of the files and the location of their folder do not matter.
    """
    table = FileTable.of(files)
    blocks = [_sorted(table[low : low + _SORTED_AT_ONCE]) for low in range(0, len(table), _SORTED_AT_ONCE)]
    digest = sha256()
    for name, size in heapq.merge(*(zip(block.names(), block.sizes, strict=True) for block in blocks)):
        digest.update(b"%d:%s:%d\n" % (len(name), name, size))
    return {
        "files": len(table),
        "bytes": sum(int(block.sizes.sum()) for block in blocks),
        "digest": f"sha256:{digest.hexdigest()}",
    }


def order_digest(files: Sequence[DataFile]) -> str:
    """Return a digest of the names in their order, which determines the indices of the samples."""
    digest = sha256()
    for name in FileTable.of(files).names():
        digest.update(name + b"\n")
    return f"sha256:{digest.hexdigest()}"


def _sorted(table: FileTable) -> FileTable:
    """Sort by name and size."""
    named = list(zip(table.names(), table.sizes.tolist(), strict=True))
    return table.select(sorted(range(len(table)), key=named.__getitem__))


def _nested(tables: Sequence[FileTable]) -> bool:
    """Whether a place of one table is the same as, or inside, a place of another, so that files may occur twice."""
    places = sorted(chain.from_iterable({_absolute(place) for place in table.places} for table in tables))
    return any(second.startswith(first) for first, second in pairwise(places))


def _absolute(place: Place) -> str:
    return place.prefix if place.remote else os.path.join(os.path.abspath(place.prefix), "")


def _once(table: FileTable) -> FileTable:
    """Return the table without repeated files: the first row of each is kept."""
    first: dict[str, int] = {}
    for row, entry in enumerate(table.entries()):
        first.setdefault(entry.where if entry.place.remote else os.path.abspath(entry.where), row)
    return table if len(first) == len(table) else table.select(list(first.values()))


def _add_single(table: FileTableBuilder, path: Path, given: Given) -> None:
    try:
        size = os.stat(path).st_size
    except OSError as error:
        first, *others = (source.files for source in sources())
        *most, last = [first, "folders", *others]
        raise DataError(f"{given} does not exist; give {', '.join(most)} or {last}") from error
    kind = kind_of(path.name)
    if kind is None and not path.suffix and is_image(path):  # as caches of downloads name them
        kind = "image"
    if kind is None or not os.path.isfile(path):
        raise DataError(f"{given} is neither {' nor '.join(source.one for source in sources())}")
    table.add(Place.folder(path.parent), path.name, kind, size)


def _below(given: str | os.PathLike[str], executor: Executor) -> Listing:
    """List what lies below a folder or a URI. Raises DataError if no source reads any of it."""
    local = _local_folder(given)
    if not is_uri(given) or (local and not has_fsspec()):
        listing = _without_archives(listed_folder(local or given, kind_of, executor), str(given))
        if not listing.files:
            what = " and ".join(f"no {source.files}" for source in sources())
            mend = f"; images without an ending are read if they are named: {str(given).rstrip('/')}/*"
            raise DataError(
                f"folder {given} holds {what} ({listing.others} other files){mend if listing.others else ''}"
            )
        return listing
    listing = listed_uri(os.fspath(given), kind_of, executor)
    if local and listing.local_only:
        return _without_archives(listed_folder(local, kind_of, executor), str(given))
    if not listing.files:
        remote, at_home = ([s.files for s in sources() if s.remote is is_remote] for is_remote in (True, False))
        nothing = f"{' and '.join(f'no {files}' for files in remote)} ({listing.others} other files)"
        what = f"only {' and '.join(at_home)}, which must be local files" if listing.local_only else nothing
        raise DataError(f"{given} holds {what}")
    return listing


def _local_folder(given: str | os.PathLike[str]) -> str | None:
    """Return the path of a folder of this machine that was given as a URI; None if it is none."""
    if not is_local_uri(given):
        return None
    path = os.fspath(given).partition("://")[2]
    return path if os.path.isdir(path) else None


def _without_archives(listing: Listing, folder: str) -> Listing:
    """Leave out archives that lie beside other data, with a warning: often what they hold is unpacked there too."""
    is_archive = listing.files.kinds == source_number("archive")
    count = int(is_archive.sum())
    if not 0 < count < len(listing.files):
        return listing
    first = next(entry.name for entry in listing.files.entries() if entry.kind == source_number("archive"))
    message = (
        f"folder {folder} holds {count:,} archive(s) beside other data ({first}): they are left out, since the same "
        "images may lie there unpacked; to read them too, name them"
    )
    warnings.warn(DataWarning(message), stacklevel=2)
    return replace(listing, files=listing.files.select(np.flatnonzero(~is_archive)), others=listing.others + count)
