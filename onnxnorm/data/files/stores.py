"""Lists one folder, on a file system or in a store that fsspec reaches.

Hidden files and folders are ignored. Links to folders are followed. Sizes are listed together with names.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from importlib import import_module
from operator import itemgetter
from typing import Any, TypeAlias

from onnxnorm.data.files.listing import Executor, Listing, Opened, listing
from onnxnorm.data.files.table import FileTable, FileTableBuilder, Place, parts_of
from onnxnorm.data.remote import check_uri, store_of
from onnxnorm.data.sources import sources
from onnxnorm.errors import DataError, OptionError

__all__ = ["LocalFolders", "RemoteFolders", "listed_folder", "listed_uri"]

THREADS = 32  # remote stores are slow to respond

KindOf: TypeAlias = Callable[[str], str | None]


class _UnusualError(Exception):
    """A listing has entries that are not directly in the folder, so they might occur twice or out of order."""


def listed_folder(folder: str | os.PathLike[str], kind_of: KindOf, executor: Executor) -> Listing:
    """Return the files below a folder of a file system. Raises DataError naming what cannot be read."""
    return listing(LocalFolders(Place.folder(folder), kind_of), os.path.realpath(folder), executor)


def listed_uri(uri: str, kind_of: KindOf, executor: Executor) -> Listing:
    """Return the files below a URI, or the file that it names. Raises DataError naming what cannot be listed."""
    try:
        system, root = _opened(uri)
        store = RemoteFolders(system, kind_of, THREADS)
        if not system.isdir(root):
            return store.compact([(root, system.info(root))], root.rpartition("/")[0])
        try:
            return listing(store, root.rstrip("/") or root, executor)
        except _UnusualError:
            return next(iter(executor.map(store.everything, [root], 1))).listing
    except (DataError, OptionError):
        raise
    except Exception as error:
        raise _not_listed(uri, error) from error


@dataclass(frozen=True)
class LocalFolders:
    """Folders of a file system, listed by their real paths; `place` is the folder as the user gave it."""

    place: Place
    kind_of: KindOf
    flat: bool = False
    threads: int = 1  # most of the time is spent in Python code, which threads do not speed up

    def opened(self, folder: str) -> Opened:
        """List what is directly in a folder."""
        files: list[tuple[str, str, int]] = []
        folders: list[tuple[str, str]] = []
        others = 0
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.name.startswith("."):
                        continue
                    if _is_true(entry.is_dir):
                        folders.append((entry.name, os.path.realpath(entry) if entry.is_symlink() else entry.path))
                    elif (kind := self.kind_of(entry.name)) and (size := _size(entry)) is not None:
                        files.append((entry.name, kind, size))
                    else:
                        others += 1
        except OSError as error:
            raise DataError(f"folder {folder} cannot be read: {error.strerror}") from error
        builder, place = FileTableBuilder(), Place.folder(folder)
        for name, kind, size in sorted(files):
            builder.add(place, name, kind, size)
        return Opened(Listing(builder.table(), others), tuple(sorted(folders)))

    def everything(self, folder: str) -> Opened:
        """List a folder as `opened` does, since a file system cannot list all levels at once."""
        return self.opened(folder)

    def placed(self, files: FileTable, inside: str) -> FileTable:
        """Return the files with names relative to the root, and with paths that begin as the user gave them."""
        return files.moved(inside, [self.place] * len(files.places))


@dataclass(frozen=True)
class RemoteFolders:
    """Folders of a file system of fsspec, listed by their paths in it."""

    system: Any
    kind_of: KindOf
    threads: int

    @cached_property
    def flat(self) -> bool:
        """Whether its class overrides how everything below a folder is listed, instead of going folder by folder."""
        spec, asyn = import_module("fsspec.spec").AbstractFileSystem, import_module("fsspec.asyn").AsyncFileSystem
        kind = type(self.system)
        return kind.find is not spec.find or getattr(kind, "_find", asyn._find) is not asyn._find

    def opened(self, folder: str) -> Opened:
        """List what is directly in a folder."""
        files, folders = [], []
        with self._named(folder):
            for info in self.system.ls(folder, detail=True):
                part = _below(info["name"], folder.rstrip("/")).rstrip("/")
                if "/" in part or part == ".":
                    raise _UnusualError
                if info["type"] != "directory":
                    files.append((info["name"], info))
                elif part and not part.startswith("."):
                    folders.append((part, info["name"].rstrip("/")))
                elif not part and self.flat and info["name"] != folder:
                    raise _UnusualError
            return Opened(self.compact(files, folder.rstrip("/")), tuple(sorted(folders)))

    def everything(self, folder: str) -> Opened:
        """List all files below a folder."""
        with self._named(folder):
            return Opened(self.compact(self.system.find(folder, detail=True).items(), folder.rstrip("/")))

    def placed(self, files: FileTable, inside: str) -> FileTable:
        """Return the files with names relative to the root; their URIs do not change."""
        return files.moved(inside, [replace(at, prefix=at.prefix.removesuffix(inside)) for at in files.places])

    def compact(self, entries: Iterable[tuple[str, dict[str, Any]]], folder: str) -> Listing:
        """Make a listing of `entries`, pairs of path and info of fsspec, sorted by the parts of their relative names.

        Hidden files are ignored, and files of sources that cannot be remote are only counted.
        """
        rows = []
        for path, info in entries:
            raw = _below(path, folder)
            parts = parts_of(raw)
            if "/." not in f"/{raw}" or not any(part.startswith(".") for part in parts):
                rows.append((parts, raw, int(info.get("size") or 0), path))
        rows.sort(key=itemgetter(0))
        builder, local_only, places = FileTableBuilder(), False, dict[bool, Place]()
        remote = {source.kind for source in sources() if source.remote}
        for parts, raw, size, path in rows:
            kind = self.kind_of(parts[-1] if parts else "")
            local_only |= kind is not None and kind not in remote
            if kind is not None and kind in remote:
                tidy = raw == "/".join(parts)
                if tidy not in places:
                    places[tidy] = Place(str(self.system.unstrip_protocol(path)).removesuffix(raw), True, tidy)
                builder.add(places[tidy], raw, kind, size)
        return Listing(builder.table(), len(rows) - len(builder), local_only)

    @contextmanager
    def _named(self, folder: str) -> Iterator[None]:
        """Turn any error of the store into a DataError that names this folder."""
        try:
            yield
        except (DataError, OptionError, _UnusualError):
            raise
        except Exception as error:
            raise _not_listed(self.system.unstrip_protocol(folder), error) from error


def _opened(uri: str) -> tuple[Any, str]:
    """Return the file system of a URI and the path in it, without its cache of listings, if that can be turned off."""
    check_uri(uri)
    try:
        return store_of(uri, use_listings_cache=False)
    except TypeError:
        return store_of(uri)


def _not_listed(uri: str, error: Exception) -> DataError:
    said = (str(error).strip().splitlines() or ["no reason given"])[0]
    return DataError(f"{uri} cannot be listed: {type(error).__name__}: {said}")


def _below(path: str, folder: str) -> str:
    """Return the path relative to its folder. Raises ValueError if it is not in the folder."""
    rest = path[len(folder) :]
    if not path.startswith(folder) or (folder and rest and not rest.startswith("/")):
        raise ValueError(f"{path} does not lie in {folder}")
    return rest.removeprefix("/")


def _is_true(test: Callable[[], bool]) -> bool:
    """Return the result of a test of a file; False if the test fails with an OSError."""
    try:
        return test()
    except OSError:
        return False


def _size(entry: os.DirEntry[str]) -> int | None:
    """Return the size in bytes; None for anything but a readable file."""
    try:
        return entry.stat().st_size if entry.is_file() else None
    except OSError:
        return None
