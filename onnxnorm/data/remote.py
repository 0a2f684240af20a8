"""Files in remote stores: URIs such as `s3://bucket/folder`, `gs://...` or `memory://...`, read through fsspec.

A `RemoteFile` holds nothing but its URI, so it can be sent to another process.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from importlib import import_module
from io import BytesIO
from pathlib import PurePosixPath
from typing import IO, Any

from onnxnorm.errors import OptionError

__all__ = ["RemoteFile", "fsspec_module", "is_uri"]


@dataclass(frozen=True)
class RemoteFile:
    """A file in a store, named by its URI, with the part of the interface of `Path` that reading an image needs."""

    uri: str

    def __str__(self) -> str:
        return self.uri

    def __fspath__(self) -> str:
        return self.uri

    @property
    def suffix(self) -> str:
        """The file extension, with its dot."""
        return PurePosixPath(self.uri).suffix

    def open(self, mode: str = "rb") -> IO[bytes]:  # noqa: ARG002 - the signature of Path.open
        """Read the whole file into memory. Raises OSError for any error of the store."""
        try:
            system, path = fsspec_module().core.url_to_fs(self.uri)
            return BytesIO(system.cat_file(path))
        except OSError:
            raise
        except Exception as error:
            raise OSError(f"{type(error).__name__}: {error}") from error


def is_uri(path: str | os.PathLike[str]) -> bool:
    """Whether this is a URI, and not a path on this machine."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", os.fspath(path)) is not None


def fsspec_module() -> Any:
    """Import and return `fsspec`, which only URIs need. Raises OptionError if it is not installed."""
    try:
        return import_module("fsspec")
    except ImportError:
        raise OptionError(
            "reading URIs needs fsspec: pip install 'onnxnorm[ray]', and the package of the store"
        ) from None
