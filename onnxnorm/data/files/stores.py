"""What it takes to list one folder, on a file system or in a store that fsspec reaches.

Hidden files and folders are left alone. Links to folders are followed. Sizes come with the names.
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
from onnxnorm.data.remote import fsspec_module
from onnxnorm.data.sources import sources
from onnxnorm.errors import DataError, OptionError

__all__ = ["LocalFolders", "RemoteFolders", "listed_folder", "listed_uri"]

THREADS = 32  # stores are slow to answer

KindOf: TypeAlias = Callable[[str], str | None]


class _UnusualError(Exception):
    """A folder has entries that do not lie directly in it, so that they may turn up twice or out of order."""


def listed_folder(folder: str | os.PathLike[str], kind_of: KindOf, executor: Executor) -> Listing:
    """Return the images and arrays below a folder of a file system. Raises DataError naming what cannot be read."""
    return listing(LocalFolders(Place.folder(folder), kind_of), os.path.realpath(folder), executor)


def listed_uri(uri: str, kind_of: KindOf, executor: Executor) -> Listing:
    """Return the images below a URI, or the image that it is. Raises DataError naming what cannot be listed."""
    try:
        system, root = _opened(uri)
        store = RemoteFolders(system, kind_of, THREADS)
        if not system.isdir(root):
            return store.compact([(root, system.info(root))], root.rpartition("/")[0])
        try:
            return listing(store, root.rstrip("/") or root, executor)
        except _UnusualError:
            return next(iter(executor.map(store.everything, [root], 1))).found
    except (DataError, OptionError):
        raise
    except Exception as error:
        raise _not_listed(uri, error) from error


@dataclass(frozen=True)
class LocalFolders:
    """Folders of a file system, by their real paths; `place` is where the one that was given lies."""

    place: Place
    kind_of: KindOf
    flat: bool = False
    threads: int = 1  # what takes time is Python's own work

    def opened(self, folder: str) -> Opened:
        """List a folder."""
        files: list[tuple[str, str, int]] = []
        folders: list[tuple[str, str]] = []
        others = 0
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.name.startswith("."):
                        continue
                    if _is(entry.is_dir):
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
        """There is no way but the other."""
        return self.opened(folder)

    def placed(self, files: FileTable, inside: str) -> FileTable:
        """Their paths begin as the user gave them."""
        return files.moved(inside, [self.place] * len(files.places))


@dataclass(frozen=True)
class RemoteFolders:
    """A file system of fsspec."""

    system: Any
    kind_of: KindOf
    threads: int

    @cached_property
    def flat(self) -> bool:
        """Whether it lists everything below a folder in a way of its own, and not folder by folder."""
        spec, asyn = import_module("fsspec.spec").AbstractFileSystem, import_module("fsspec.asyn").AsyncFileSystem
        kind = type(self.system)
        return kind.find is not spec.find or getattr(kind, "_find", asyn._find) is not asyn._find

    def opened(self, folder: str) -> Opened:
        """List a folder."""
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
        """List all that is below a folder."""
        with self._named(folder):
            return Opened(self.compact(self.system.find(folder, detail=True).items(), folder.rstrip("/")))

    def placed(self, files: FileTable, inside: str) -> FileTable:
        """Their URIs stay what they are."""
        return files.moved(inside, [replace(at, prefix=at.prefix.removesuffix(inside)) for at in files.places])

    def compact(self, found: Iterable[tuple[str, dict[str, Any]]], folder: str) -> Listing:
        """Sort files by the parts of their names in the folder, leave out what is hidden, keep what stores can give."""
        rows = []
        for path, info in found:
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
        """Make errors of the store errors of this folder."""
        try:
            yield
        except (DataError, OptionError, _UnusualError):
            raise
        except Exception as error:
            raise _not_listed(self.system.unstrip_protocol(folder), error) from error


def _opened(uri: str) -> tuple[Any, str]:
    """The file system, and the path in it. It keeps no listings, where that is its choice: they may be very large."""
    url_to_fs = fsspec_module().core.url_to_fs
    try:
        found: tuple[Any, str] = url_to_fs(uri, use_listings_cache=False)
    except TypeError:
        found = url_to_fs(uri)
    return found


def _not_listed(uri: str, error: Exception) -> DataError:
    said = (str(error).strip().splitlines() or ["no reason given"])[0]
    return DataError(f"{uri} cannot be listed: {type(error).__name__}: {said}")


def _below(path: str, folder: str) -> str:
    """The path relative to a folder that it lies in."""
    rest = path[len(folder) :]
    if not path.startswith(folder) or (folder and rest and not rest.startswith("/")):
        raise ValueError(f"{path} does not lie in {folder}")
    return rest.removeprefix("/")


def _is(asked: Callable[[], bool]) -> bool:
    """What cannot be asked is not."""
    try:
        return asked()
    except OSError:
        return False


def _size(entry: os.DirEntry[str]) -> int | None:
    """The size in bytes; None for what is not a file, or cannot be asked."""
    try:
        return entry.stat().st_size if entry.is_file() else None
    except OSError:
        return None
