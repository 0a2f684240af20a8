"""Sources of samples: the kinds of files that can be read, and what reads them.

To add a kind of file, write a class that reads it (`onnxnorm.data.readers.Reader`) and call `register` once. Discovery,
listing and the dataset work with any source. Tables of files store the source of a file as its number in `sources()`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnxnorm.data.files.table import FileTable
    from onnxnorm.data.images.options import ImageOptions
    from onnxnorm.data.readers import Reader
    from onnxnorm.model.inputs import InputSpec

    Open = Callable[[FileTable, Sequence[InputSpec], ImageOptions], Sequence[Reader]]

__all__ = ["Source", "kind_of", "register", "source_number", "sources", "unregister"]

_BUILT_IN = ("onnxnorm.data.images.reader", "onnxnorm.data.arrays.reader", "onnxnorm.data.archives.reader")


@dataclass(frozen=True)
class Source:
    """One kind of file.

    Attributes:
        kind: name of the source, such as "image".
        one: what messages call a single file, such as "a .npy or .npz file".
        files: what messages call several files, such as ".npy or .npz files".
        endings: returns the file extensions of this source, in lower case and with the dot; `.tar.gz` is one too.
        remote: whether files are also read from stores (URIs), and not only from the file system.
        open: makes readers for consecutive files of this kind, given the inputs of the model and the image options.
        describe: describes the files in a few words, given their number and their readers.
    """

    kind: str
    one: str
    files: str
    endings: Callable[[], frozenset[str]]
    remote: bool
    open: Open
    describe: Callable[[int, Sequence[Reader]], str]


_registered: list[Source] = []


def register(source: Source) -> None:
    """Add a source. Raises ValueError if its kind or one of its endings belongs to another source."""
    for other in sources():
        if other.kind == source.kind or other.endings() & source.endings():
            raise ValueError(f"source {source.kind!r} has the kind or an ending of source {other.kind!r}")
    _registered.append(source)
    _kinds.cache_clear()


def unregister(kind: str) -> None:
    """Remove the source that was registered last, so that the numbers of the others stay the same.

    Raises ValueError if that source is not of this kind.
    """
    if not _registered or _registered[-1].kind != kind:
        raise ValueError(f"the source registered last is not {kind!r}")
    _registered.pop()
    _kinds.cache_clear()


def sources() -> Sequence[Source]:
    """Return all sources: those of onnxnorm, then the others in order of registration."""
    return [*_built_in(), *_registered]


@cache
def _built_in() -> tuple[Source, ...]:
    """Return the `SOURCE` of each built-in reader; imported late, because readers import this module."""
    return tuple(import_module(module).SOURCE for module in _BUILT_IN)


def source_number(kind: str) -> int:
    """Return the number of the source of this kind."""
    return next(number for number, source in enumerate(sources()) if source.kind == kind)


def kind_of(name: str) -> str | None:
    """Return the kind of the file with this name; None if its ending belongs to no source."""
    stem, dot, ending = name.rpartition(".")
    if not stem:
        return None
    before, _, inner = stem.rpartition(".")
    double = f".{inner}{dot}{ending}".lower() if before else ""
    return _kinds().get(double) or _kinds().get((dot + ending).lower())


@cache
def _kinds() -> dict[str, str]:
    return {ending: source.kind for source in sources() for ending in source.endings()}
