"""Listing what lies below a folder or a URI, in the order of the parts of the names.

Folders are listed level by level, many of a level at once, by an `Executor`: threads of this process, or the workers of
a cluster. A `Store` knows how one folder is listed; it answers with a table of bare names, so that little has to be
sent, and what a store says about its files is never there for all of them. The tables are put in order at the end.

Each folder is listed once, also where links lead to it more than once: there it counts where the order has it first.
A store that lists everything below a folder at one go is asked for that as soon as there are folders enough.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Protocol, TypeVar

from onnxnorm.data.files.table import FileTable
from onnxnorm.threads import map_ahead

__all__ = ["Executor", "Listing", "LocalExecutor", "Opened", "Store", "listing"]

# Where a bucket has few folders at the top, those below them are looked for, so many levels deep.
_LEVELS = 4
_AHEAD = 4

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Listing:
    """The files to use, in order; how many others there are, and whether there are some that must be local files."""

    files: FileTable
    others: int
    local_only: bool = False


@dataclass(frozen=True)
class Opened:
    """What was found in a folder: the listing of its files by their names in it, and its folders that are still to do.

    A folder has a name and a key. The key is what the store lists it by, the same wherever a link to it stands.
    """

    found: Listing
    folders: tuple[tuple[str, str], ...] = ()


class Store(Protocol):
    """Lists folders, each by its key; can be sent to another process."""

    @property
    def threads(self) -> int:
        """How many folders one process should list at once: many where that is waiting for the most part."""

    @property
    def flat(self) -> bool:
        """Whether it has a way of its own to list everything below a folder."""

    def opened(self, folder: str) -> Opened:
        """List what is directly in a folder, files and folders by their names."""

    def everything(self, folder: str) -> Opened:
        """List all that is below a folder at one go; no folders are left."""

    def placed(self, files: FileTable, inside: str) -> FileTable:
        """The files of the folder that has the name `inside` below the root, by their names below the root."""


class Executor(Protocol):
    """Runs listing tasks in parallel."""

    @property
    def processes(self) -> int:
        """How many processes it runs them in."""

    def map(self, function: Callable[[T], R], items: Sequence[T], threads: int) -> Iterable[R]:
        """The function's results, in order, from so many threads in each process; the first error ends it.

        The function and its results can be sent to other processes.
        """


@dataclass(frozen=True)
class LocalExecutor:
    """Threads of this process."""

    processes: int = 1

    def map(self, function: Callable[[T], R], items: Sequence[T], threads: int) -> Iterator[R]:
        """The results."""
        return map_ahead(function, items, threads=threads, ahead=_AHEAD * threads)


def listing(store: Store, root: str, executor: Executor) -> Listing:
    """Return what lies below the folder with the key `root`."""
    opened: dict[str, Opened] = {}
    level, depth = [root], 0
    while level:
        whole = store.flat and (len(level) >= executor.processes * store.threads or depth == _LEVELS)
        found = executor.map(store.everything if whole else store.opened, level, store.threads)
        opened.update(zip(level, found, strict=True))
        below = chain.from_iterable(opened[folder].folders for folder in level)
        level = list(dict.fromkeys(key for _, key in below if key not in opened))
        depth += 1
    every = list(_in_order(opened, root, "", set()))
    return Listing(
        FileTable.joined([store.placed(found.files, inside) for inside, found in every]),
        sum(found.others for _, found in every),
        any(found.local_only for _, found in every),
    )


def _in_order(opened: dict[str, Opened], folder: str, inside: str, seen: set[str]) -> Iterator[tuple[str, Listing]]:
    """Everything below a folder with the folder it lies in; a file comes before the folder of its name."""
    if folder in seen:
        return
    seen.add(folder)
    found, files, at = opened[folder].found, opened[folder].found.files, 0
    for name, key in opened[folder].folders:
        stop = bisect_right(range(len(files)), name, key=lambda row: files.entry(row).raw)
        if at < stop:
            yield inside, Listing(files[at:stop], 0)
        yield from _in_order(opened, key, f"{inside}{name}/", seen)
        at = stop
    yield inside, Listing(files[at:], found.others, found.local_only)
