"""Finding calibration files: images, `.npy` and `.npz`, given one by one or as folders.

Folders are searched recursively in an order that does not depend on the machine. Hidden files and folders are left
alone; links to folders are followed, each folder once. A file that is reached twice counts once.
"""

from __future__ import annotations

import heapq
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from itertools import chain, pairwise
from pathlib import Path

import numpy as np

from onnxnorm.calibration.file_table import DataFile, Entry, FileTable, FileTableBuilder, Kind, Place
from onnxnorm.calibration.images import image_extensions
from onnxnorm.calibration.listing import listed
from onnxnorm.calibration.remote import is_uri
from onnxnorm.errors import DataError

__all__ = ["DataFile", "Found", "discover", "identity", "order_digest"]

_ARRAY_EXTENSIONS = frozenset({".npy", ".npz"})
_SORTED_AT_ONCE = 1 << 18


@dataclass(frozen=True)
class Found:
    """The files in order, and how many others in the folders were ignored."""

    files: FileTable
    ignored: int


def discover(data: Iterable[str | os.PathLike[str]]) -> Found:
    """Return all files that `data` (files and folders) leads to."""
    pictures = image_extensions()
    tables: list[FileTable] = []
    loose = FileTableBuilder()
    ignored = singles = 0
    for given in data:
        path = Path(given)
        if not is_uri(given) and not os.path.isdir(path):
            _add_single(loose, path, pictures)
            singles += 1
            continue
        if loose:
            tables.append(loose.table())
            loose = FileTableBuilder()
        table, others = _elsewhere(os.fspath(given), pictures) if is_uri(given) else _in_folder(path, pictures)
        tables.append(table)
        ignored += others
    if loose or not tables:
        tables.append(loose.table())
    table = FileTable.joined(tables)
    return Found(_once(table) if singles > 1 or _nested(tables) else table, ignored)


def identity(files: Sequence[DataFile]) -> dict[str, int | str]:
    """Return what tells this data from other data, for provenance: count, bytes, a digest over names and sizes.

    No file is read. The order and the place of the folder do not matter.
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
    """Return a digest over the names in their order, on which the indices of samples rest."""
    digest = sha256()
    for name in FileTable.of(files).names():
        digest.update(name + b"\n")
    return f"sha256:{digest.hexdigest()}"


def _sorted(table: FileTable) -> FileTable:
    """Sort by names and sizes, and find out sizes that are not known."""
    sizes = table.sizes if (table.sizes >= 0).all() else np.array([_size(entry) for entry in table.entries()], np.int64)
    named = list(zip(table.names(), sizes.tolist(), strict=True))
    order = sorted(range(len(table)), key=named.__getitem__)
    return replace(table.taken(order), sizes=sizes[order])


def _size(entry: Entry) -> int:
    if entry.size >= 0:
        return entry.size
    try:
        return os.stat(entry.where).st_size
    except OSError as error:
        raise DataError(f"{entry.where} cannot be read any more: {error.strerror}") from error


def _nested(tables: Sequence[FileTable]) -> bool:
    """Whether a place of one table is, or lies in, that of another, so that a file may be there twice."""
    places = sorted(chain.from_iterable({_absolute(place) for place in table.places} for table in tables))
    return any(second.startswith(first) for first, second in pairwise(places))


def _absolute(place: Place) -> str:
    return place.prefix if place.remote else os.path.join(os.path.abspath(place.prefix), "")


def _once(table: FileTable) -> FileTable:
    """Keep the first of the rows that are one file."""
    first: dict[str, int] = {}
    for row, entry in enumerate(table.entries()):
        first.setdefault(entry.where if entry.place.remote else os.path.abspath(entry.where), row)
    return table if len(first) == len(table) else table.taken(list(first.values()))


def _add_single(table: FileTableBuilder, path: Path, pictures: frozenset[str]) -> None:
    if not os.path.exists(path):
        raise DataError(f"{path} does not exist; give images, folders, .npy or .npz files")
    kind = _kind(path.name, pictures)
    if kind is None or not os.path.isfile(path):
        raise DataError(f"{path} is neither an image that Pillow reads nor a .npy or .npz file")
    table.add(Place.folder(path.parent), path.name, kind)


def _in_folder(folder: Path, pictures: frozenset[str]) -> tuple[FileTable, int]:
    """Return the files to use, sorted by the parts of their paths, and the number of the others."""
    walk = _Walk(Place.folder(folder), pictures)
    walk.down(os.fspath(folder), "")
    if not walk.found:
        raise DataError(f"folder {folder} holds no images and no .npy or .npz arrays ({walk.others} other files)")
    return walk.found.table(), walk.others


@dataclass
class _Walk:
    """Goes through a folder, down into each of its folders where the name of that stands among the others.

    So the files come sorted by the parts of their paths. `seen` are the real folders, each of which counts once.
    """

    place: Place
    pictures: frozenset[str]
    found: FileTableBuilder = field(default_factory=FileTableBuilder)
    others: int = 0
    seen: set[str] = field(default_factory=set)

    def down(self, folder: str, inside: str) -> None:
        """Take in a folder, whose files have names that begin with `inside`."""
        files, folders, others = _scanned(folder, self.pictures)
        real = os.path.realpath(folder)
        if real in self.seen:
            return
        self.seen.add(real)
        self.others += others
        for name in sorted([*files, *folders]):
            if name in folders:
                self.down(os.path.join(folder, name), f"{inside}{name}/")
            elif kind := _kind(name, self.pictures):
                self.found.add(self.place, inside + name, kind)


def _scanned(folder: str, pictures: frozenset[str]) -> tuple[list[str], set[str], int]:
    """Return the names of the files to use, those of the folders, and the number of the other files."""
    files, folders, others = [], set(), 0
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if _is(entry.is_dir):
                    folders.add(entry.name)
                elif _kind(entry.name, pictures) and _is(entry.is_file):
                    files.append(entry.name)
                else:
                    others += 1
    except OSError as error:
        raise DataError(f"folder {folder} cannot be read: {error.strerror}") from error
    return files, folders, others


def _is(asked: Callable[[], bool]) -> bool:
    """What cannot be asked is not."""
    try:
        return asked()
    except OSError:
        return False


def _elsewhere(uri: str, pictures: frozenset[str]) -> tuple[FileTable, int]:
    """Return the images below a URI, and the number of other files. Arrays must be local: they are memory-mapped."""
    found = listed(uri, lambda name: _kind(name, pictures))
    if not len(found.table):
        what = "only arrays, which must be local files" if found.arrays else f"no images ({found.others} other files)"
        raise DataError(f"{uri} holds {what}")
    return found.table, found.others


def _kind(name: str, pictures: frozenset[str]) -> Kind | None:
    stem, dot, ending = name.rpartition(".")
    extension = (dot + ending).lower() if stem else ""
    if extension in _ARRAY_EXTENSIONS:
        return "array"
    return "image" if extension in pictures else None
