"""Finding calibration files: images, `.npy` and `.npz`, given one by one or as folders.

Folders are searched recursively in an order that does not depend on the machine. Hidden files and folders are left
alone; links to folders are followed, each folder once. A file that is reached twice counts once.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from onnxnorm.calibration.images import image_extensions
from onnxnorm.calibration.remote import RemoteFile, is_uri, listed
from onnxnorm.errors import DataError

__all__ = ["DataFile", "Found", "discover", "identity", "order_digest"]

Kind = Literal["image", "array"]
_ARRAY_EXTENSIONS = frozenset({".npy", ".npz"})


@dataclass(frozen=True)
class DataFile:
    """A file to calibrate on; `name` is relative to the folder that was given, so it is the same on all machines.

    `size` in bytes is known of remote files only.
    """

    path: Path | RemoteFile
    name: str
    kind: Kind
    size: int | None = None


@dataclass(frozen=True)
class Found:
    """The files in order, and how many others in the folders were ignored."""

    files: tuple[DataFile, ...]
    ignored: int


def discover(data: Iterable[str | os.PathLike[str]]) -> Found:
    """Return all files that `data` (files and folders) leads to."""
    pictures = image_extensions()
    files: dict[str, DataFile] = {}
    ignored = 0
    for given in data:
        path = Path(given)
        if is_uri(given):
            kept, others = _elsewhere(os.fspath(given), pictures)
            ignored += others
        elif os.path.isdir(path):
            kept, others = _in_folder(path, pictures)
            ignored += others
        else:
            kept = [_single(path, pictures)]
        for file in kept:
            files.setdefault(str(file.path) if is_uri(file.path) else os.path.abspath(file.path), file)
    return Found(tuple(files.values()), ignored)


def identity(files: Sequence[DataFile]) -> dict[str, int | str]:
    """Return what tells this data from other data, for provenance: count, bytes, a digest over names and sizes.

    No file is read. The order and the place of the folder do not matter.
    """
    entries = sorted((os.fsencode(file.name), _size(file.path) if file.size is None else file.size) for file in files)
    digest = hashlib.sha256()
    for name, size in entries:
        digest.update(b"%d:%s:%d\n" % (len(name), name, size))
    return {
        "files": len(entries),
        "bytes": sum(size for _, size in entries),
        "digest": f"sha256:{digest.hexdigest()}",
    }


def order_digest(files: Sequence[DataFile]) -> str:
    """Return a digest over the names in their order, on which the indices of samples rest."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(os.fsencode(file.name) + b"\n")
    return f"sha256:{digest.hexdigest()}"


def _single(path: Path, pictures: frozenset[str]) -> DataFile:
    if not os.path.exists(path):
        raise DataError(f"{path} does not exist; give images, folders, .npy or .npz files")
    kind = _kind(path, pictures)
    if kind is None or not os.path.isfile(path):
        raise DataError(f"{path} is neither an image that Pillow reads nor a .npy or .npz file")
    return DataFile(path, path.name, kind)


def _in_folder(folder: Path, pictures: frozenset[str]) -> tuple[list[DataFile], int]:
    """Return the files to use, sorted, and the number of the others."""
    files = []
    others = 0
    for path in sorted(_walk(folder), key=lambda path: path.relative_to(folder).parts):
        kind = _kind(path, pictures)
        if kind is not None and os.path.isfile(path):
            files.append(DataFile(path, path.relative_to(folder).as_posix(), kind))
        else:
            others += 1
    if not files:
        raise DataError(f"folder {folder} holds no images and no .npy or .npz arrays ({others} other files)")
    return files, others


def _elsewhere(uri: str, pictures: frozenset[str]) -> tuple[list[DataFile], int]:
    """Return the images below a URI, and the number of other files. Arrays must be local: they are memory-mapped."""
    every = list(listed(uri))
    files = [DataFile(file, name, "image", size) for file, name, size in every if file.suffix.lower() in pictures]
    if not files:
        arrays = any(file.suffix.lower() in _ARRAY_EXTENSIONS for file, _, _ in every)
        what = "only arrays, which must be local files" if arrays else f"no images ({len(every)} other files)"
        raise DataError(f"{uri} holds {what}")
    return files, len(every) - len(files)


def _walk(folder: Path) -> Iterator[Path]:
    seen: set[str] = set()
    for root, folders, names in os.walk(folder, onerror=_refuse, followlinks=True):
        real = os.path.realpath(root)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(root, name) for name in names if not name.startswith("."))


def _refuse(error: OSError) -> None:
    raise DataError(f"folder {error.filename} cannot be read: {error.strerror}") from error


def _kind(path: Path, pictures: frozenset[str]) -> Kind | None:
    extension = path.suffix.lower()
    if extension in _ARRAY_EXTENSIONS:
        return "array"
    return "image" if extension in pictures else None


def _size(path: Path | RemoteFile) -> int:
    try:
        return os.stat(path).st_size
    except OSError as error:
        raise DataError(f"{path} cannot be read any more: {error.strerror}") from error
