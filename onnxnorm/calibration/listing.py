"""Listing a store: what lies below a URI, as a table, in the order that local folders have.

Stores answer slowly, a thousand names at a time, so many folders are listed at once, by threads. Each folder becomes a
part of the table as soon as it is listed; what the store says about its files is never there for all of them. A store
that lists everything below a folder at one go is asked for that as soon as there are folders enough; any other is
walked folder by folder. Hidden folders are not listed.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from importlib import import_module
from itertools import chain
from operator import itemgetter
from typing import Any, TypeAlias

from onnxnorm.calibration.file_table import FileTable, FileTableBuilder, Kind, Place, parts_of
from onnxnorm.calibration.remote import fsspec_module
from onnxnorm.errors import DataError, OptionError

__all__ = ["LISTING_THREADS", "Listing", "listed"]

LISTING_THREADS = 32
# Where a bucket has few folders at the top, those below them are looked for, so many levels deep.
_LEVELS = 4

KindOf: TypeAlias = Callable[[str], Kind | None]


@dataclass(frozen=True)
class Listing:
    """The images in order; how many files there are besides, and whether arrays are among them."""

    table: FileTable
    others: int
    arrays: bool


@dataclass
class _Folder:
    """A folder, the files that were listed with it, and its folders that were not, by name."""

    path: str
    found: Listing = field(default_factory=lambda: Listing(FileTable.of(()), 0, False))
    folders: list[_Folder] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Its own, without those of the folders above."""
        return self.path.rsplit("/", 1)[-1]

    def listings(self) -> Iterator[Listing]:
        """Everything in order: a file comes before the folder of its name."""
        table, at = self.found.table, 0
        for folder in self.folders:
            stop = bisect_right(
                range(len(table)), folder.name, key=lambda row: table.entry(row).name.rsplit("/", 1)[-1]
            )
            if at < stop:
                yield Listing(table[at:stop], 0, False)
            yield from folder.listings()
            at = stop
        yield Listing(table[at:], self.found.others, self.found.arrays)


class _UnusualError(Exception):
    """A folder has entries that do not lie directly in it, so that they may turn up twice or out of order."""


def listed(uri: str, kind_of: KindOf) -> Listing:
    """Return what lies below a URI, or the file that it is."""
    try:
        system, root = _opened(uri)
        if not system.isdir(root):
            return _Store(system, root.rpartition("/")[0], kind_of).compact([(root, system.info(root))])
        store = _Store(system, root.rstrip("/"), kind_of)
        try:
            return store.walked(_Folder(store.base or root))
        except _UnusualError:
            whole = _Folder(root)
            store.everything(whole)
            return whole.found
    except (DataError, OptionError):
        raise
    except Exception as error:
        raise DataError(f"{uri} cannot be listed: {type(error).__name__}: {error}") from error


@dataclass(frozen=True)
class _Store:
    """A file system of fsspec, and the folder in it to which names are relative."""

    system: Any
    base: str
    kind_of: KindOf

    @cached_property
    def flat(self) -> bool:
        """Whether it has a way of its own to list everything below a folder."""
        spec, asyn = import_module("fsspec.spec").AbstractFileSystem, import_module("fsspec.asyn").AsyncFileSystem
        kind = type(self.system)
        return kind.find is not spec.find or getattr(kind, "_find", asyn._find) is not asyn._find

    def walked(self, root: _Folder) -> Listing:
        """Go down level by level, all folders of a level at once."""
        level, depth = [root], 0
        with ThreadPoolExecutor(LISTING_THREADS, "onnxnorm-list") as pool:
            while level:
                whole = self.flat and (len(level) >= LISTING_THREADS or depth == _LEVELS)
                below = pool.map(self.everything if whole else self.opened, level)
                level = list(chain.from_iterable(below))
                depth += 1
        every = list(root.listings())
        table = FileTable.joined([found.table for found in every])
        return Listing(table, sum(found.others for found in every), any(found.arrays for found in every))

    def everything(self, folder: _Folder) -> list[_Folder]:
        """List all that is below a folder at one go; no folders are left."""
        with self._named(folder):
            found = self.system.find(folder.path, detail=True)
            folder.found = self.compact(found.items())
        return []

    def opened(self, folder: _Folder) -> list[_Folder]:
        """List what is directly in a folder, and return the folders among it."""
        files, folders = [], []
        with self._named(folder):
            for info in self.system.ls(folder.path, detail=True):
                part = _below(info["name"], folder.path.rstrip("/")).rstrip("/")
                if "/" in part or part == ".":
                    raise _UnusualError
                if info["type"] != "directory":
                    files.append((info["name"], info))
                elif part and not part.startswith("."):
                    folders.append(_Folder(info["name"].rstrip("/")))
                elif not part and self.flat and info["name"] != folder.path:
                    raise _UnusualError
            folder.found = self.compact(files)
        folder.folders = sorted(folders, key=lambda folder: folder.name)
        return folder.folders

    def compact(self, found: Iterable[tuple[str, dict[str, Any]]]) -> Listing:
        """Sort files by the parts of their paths, leave out what is hidden, and keep the images."""
        rows = []
        for path, info in found:
            raw = _below(path, self.base)
            parts = parts_of(raw)
            if "/." not in f"/{raw}" or not any(part.startswith(".") for part in parts):
                rows.append((parts, raw, int(info.get("size") or 0), path))
        rows.sort(key=itemgetter(0))
        builder, arrays, places = FileTableBuilder(), False, dict[bool, Place]()
        for parts, raw, size, path in rows:
            kind = self.kind_of(parts[-1] if parts else "")
            arrays |= kind == "array"
            if kind == "image":
                tidy = raw == "/".join(parts)
                if tidy not in places:
                    places[tidy] = Place(str(self.system.unstrip_protocol(path)).removesuffix(raw), True, tidy)
                builder.add(places[tidy], raw, kind, size)
        return Listing(builder.table(), len(rows) - len(builder), arrays)

    @contextmanager
    def _named(self, folder: _Folder) -> Iterator[None]:
        """Make errors of the store errors of this folder."""
        try:
            yield
        except (DataError, OptionError, _UnusualError):
            raise
        except Exception as error:
            uri = self.system.unstrip_protocol(folder.path)
            raise DataError(f"{uri} cannot be listed: {type(error).__name__}: {error}") from error


def _opened(uri: str) -> tuple[Any, str]:
    """The file system, and the path in it. It keeps no listings, where that is its choice: they may be very large."""
    url_to_fs = fsspec_module().core.url_to_fs
    try:
        found: tuple[Any, str] = url_to_fs(uri, use_listings_cache=False)
    except TypeError:
        found = url_to_fs(uri)
    return found


def _below(path: str, folder: str) -> str:
    """The path relative to a folder that it lies in."""
    rest = path[len(folder) :]
    if not path.startswith(folder) or (folder and rest and not rest.startswith("/")):
        raise ValueError(f"{path} does not lie in {folder}")
    return rest.removeprefix("/")
