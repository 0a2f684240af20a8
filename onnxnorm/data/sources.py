"""Sources of samples: which kinds of files there are, and who reads them.

A kind of file is added here alone: a class that reads it (`onnxnorm.data.readers.Reader`), and one call of `register`.
Discovery, listing and the dataset speak of sources in general. Files are kept in tables by the number of their source
in `sources()`.
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

_BUILT_IN = ("onnxnorm.data.images.reader", "onnxnorm.data.arrays.reader")


@dataclass(frozen=True)
class Source:
    """One kind of file.

    Attributes:
        kind: its name, such as "image".
        one: what a single file is called in messages, such as "a .npy or .npz file".
        files: what several are called, such as ".npy or .npz files".
        endings: gives the endings of file names that belong to it, in lower case and with the dot.
        remote: whether its files are read from stores (URIs) too, or only from the file system.
        open: makes readers of files of this kind that follow each other in DATA, for the inputs of a model.
        describe: says in a few words what so many files are, given their readers.
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
    """Add a source. Raises ValueError if there is one of its kind, or one of its endings belongs to another."""
    for other in sources():
        if other.kind == source.kind or other.endings() & source.endings():
            raise ValueError(f"source {source.kind!r} has the kind or an ending of source {other.kind!r}")
    _registered.append(source)
    _kinds.cache_clear()


def unregister(kind: str) -> None:
    """Take away the source that was registered last, which must be of this kind: the numbers of others stay."""
    if not _registered or _registered[-1].kind != kind:
        raise ValueError(f"the source registered last is not {kind!r}")
    _registered.pop()
    _kinds.cache_clear()


def sources() -> Sequence[Source]:
    """All sources: those of onnxnorm, then others in order of registration."""
    return [*_built_in(), *_registered]


@cache
def _built_in() -> tuple[Source, ...]:
    """The `SOURCE` of every reader of our own; loaded when it is asked for, since readers know this module."""
    return tuple(import_module(module).SOURCE for module in _BUILT_IN)


def source_number(kind: str) -> int:
    """The number of a source, by its kind."""
    return next(number for number, source in enumerate(sources()) if source.kind == kind)


def kind_of(name: str) -> str | None:
    """What kind of file has this name; None if no source has its ending."""
    stem, dot, ending = name.rpartition(".")
    return _kinds().get((dot + ending).lower()) if stem else None


@cache
def _kinds() -> dict[str, str]:
    return {ending: source.kind for source in sources() for ending in source.endings()}
