"""Images that lie elsewhere: URIs such as `s3://bucket/folder`, `gs://...`, `memory://...`, read through fsspec.

Listing a folder yields what a local one does: hidden names left out, sorted by the parts of the path, with the sizes
that the store reports. A `RemoteFile` is only the URI, so it can be sent to whoever reads it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import PurePosixPath
from typing import IO, Any

from onnxnorm.errors import DataError, OptionError

__all__ = ["RemoteFile", "is_uri", "listed"]


@dataclass(frozen=True)
class RemoteFile:
    """A file by its URI, with as much of the interface of a path as reading a picture takes."""

    uri: str

    def __str__(self) -> str:
        return self.uri

    def __fspath__(self) -> str:
        return self.uri

    @property
    def suffix(self) -> str:
        """The extension with its dot."""
        return PurePosixPath(self.uri).suffix

    def open(self, mode: str = "rb") -> IO[bytes]:
        """Open it for reading. Whatever the store objects to is an OSError."""
        try:
            stream: IO[bytes] = _fsspec().open(self.uri, mode).open()
        except OSError:
            raise
        except Exception as error:
            raise OSError(f"{type(error).__name__}: {error}") from error
        return stream


def is_uri(path: str | os.PathLike[str]) -> bool:
    """Whether this is a URI, not a path of this machine."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", os.fspath(path)) is not None


def listed(uri: str) -> Iterator[tuple[RemoteFile, str, int]]:
    """Yield the files below a URI, or the file that it is: the file, its name relative to the URI, its size."""
    try:
        system, root = _fsspec().core.url_to_fs(uri)
        if not system.isdir(root):
            found, base = {root: system.info(root)}, str(PurePosixPath(root).parent)
        else:
            found, base = system.find(root, detail=True), root
    except OptionError:
        raise
    except Exception as error:
        raise DataError(f"{uri} cannot be listed: {type(error).__name__}: {error}") from error
    entries = [(PurePosixPath(path).relative_to(base), path, info) for path, info in found.items()]
    for name, path, info in sorted(entries, key=lambda entry: entry[0].parts):
        if not any(part.startswith(".") for part in name.parts):
            yield RemoteFile(str(system.unstrip_protocol(path))), name.as_posix(), int(info.get("size") or 0)


def _fsspec() -> Any:
    try:
        return import_module("fsspec")
    except ImportError:
        raise OptionError(
            "reading URIs needs fsspec: pip install 'onnxnorm[ray]', and the package of the store"
        ) from None
