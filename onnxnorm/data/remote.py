"""Files in remote stores: URIs such as `s3://bucket/folder`, `gs://...` or `memory://...`, read through fsspec.

A `RemoteFile` holds nothing but its URI, so it can be sent to another process.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from io import BytesIO
from pathlib import PurePosixPath
from typing import IO, Any

from onnxnorm.data.local import open_regular
from onnxnorm.errors import DataError, OptionError

__all__ = ["RemoteFile", "check_uri", "fsspec_module", "has_fsspec", "is_local_uri", "is_uri", "store_of"]

_LOCAL = ("file://", "local://")
# Stores of files. fsspec knows more protocols: some wrap another store, some log in to a machine, some run a service.
_PROTOCOLS = frozenset(
    "abfs abfss adl az file gcs gs hdfs hf http https local memory oci oss s3 s3a tos webhdfs".split()  # noqa: SIM905
)


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
        """Open the file if it is on this machine, else read it into memory. Raises OSError for any error of a store."""
        try:
            system, path = store_of(self.uri)
            if self.uri.startswith(_LOCAL):
                return open_regular(path)
            return BytesIO(system.cat_file(path))
        except OSError:
            raise
        except Exception as error:
            raise OSError(f"{type(error).__name__}: {error}") from error


def is_uri(path: str | os.PathLike[str]) -> bool:
    """Whether this is a URI, and not a path on this machine."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", os.fspath(path)) is not None


def is_local_uri(path: str | os.PathLike[str]) -> bool:
    """Whether this is a URI of a file or folder on this machine."""
    return os.fspath(path).lower().startswith(_LOCAL) and "::" not in os.fspath(path)


def check_uri(uri: str) -> None:
    """Raise DataError unless a URI that the user gave names one place in one store, by a protocol that is known."""
    protocol = uri.partition("://")[0].lower()
    if "::" in uri:
        raise DataError(
            f"{uri} cannot be listed: it names a store inside another one (::); unpack it, and give a folder"
        )
    if protocol not in _PROTOCOLS and not _is_registered(protocol):
        known = ", ".join(sorted(_PROTOCOLS))
        raise DataError(f"{uri} cannot be listed: {protocol!r} is none of the protocols {known}; copy the files")


def _is_registered(protocol: str) -> bool:
    """Whether this program gave fsspec a store of its own for a protocol."""
    registry = fsspec_module().registry
    return protocol in registry and protocol not in import_module("fsspec.registry").known_implementations


def store_of(uri: str, **options: Any) -> tuple[Any, str]:
    """Return the file system of fsspec that a URI names, and the path in it.

    Everything after the protocol belongs to the path. fsspec's own `url_to_fs` would take a file named
    `a.jpg::file:///b.jpg` for another URI, and open the other file.
    """
    protocol = uri.partition("://")[0].lower()
    kind = fsspec_module().get_filesystem_class(protocol)
    system = fsspec_module().filesystem(protocol, **kind._get_kwargs_from_urls(uri), **options)
    return system, str(kind._strip_protocol(uri))


def fsspec_module() -> Any:
    """Import and return `fsspec`, which only URIs need. Raises OptionError if it is not installed."""
    try:
        return import_module("fsspec")
    except ImportError:
        raise OptionError(
            "reading URIs needs fsspec: pip install 'onnxnorm[remote]', and the package of the store"
        ) from None


def has_fsspec() -> bool:
    """Whether `fsspec` is installed."""
    return find_spec("fsspec") is not None
