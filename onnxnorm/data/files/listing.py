"""Lists the files below a folder or a URI, ordered by the parts of their names.

Folders are listed level by level, many folders of a level at once, by an `Executor`: threads of this process, or the
workers of a cluster. A `Store` lists one folder and returns a table of bare names, so that little data is sent, and the
store's own records of files are never all in memory at once. The tables are put in order at the end.

Each folder is listed once, even if several links lead to it; its files then appear at the first of its positions in the
order. If a store can list everything below a folder in one request, that is used once there are enough folders to keep
all threads busy.
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

# Where a bucket has few folders at the top, this many levels are listed folder by folder.
_LEVELS = 4
_AHEAD = 4

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Listing:
    """The files of known sources in order, the number of other files, and whether any file would have to be local."""

    files: FileTable
    others: int
    local_only: bool = False


@dataclass(frozen=True)
class Opened:
    """The content of one folder: the listing of its files, named relative to it, and its subfolders, not listed yet.

    A subfolder is a pair of name and key. The store lists a folder by its key, which is the same for every link to it.
    """

    listing: Listing
    folders: tuple[tuple[str, str], ...] = ()


class Store(Protocol):
    """Lists folders by their keys. A store can be sent to another process."""

    @property
    def threads(self) -> int:
        """Number of folders that one process should list at once: many if most of the time is spent waiting."""

    @property
    def flat(self) -> bool:
        """Whether it can list everything below a folder in one request."""

    def opened(self, folder: str) -> Opened:
        """List what is directly in a folder: files, and subfolders with their keys."""

    def everything(self, folder: str) -> Opened:
        """List all files below a folder at once; the result has no subfolders."""

    def placed(self, files: FileTable, inside: str) -> FileTable:
        """Return the files of a folder, with names relative to the root; `inside` is the folder's own name there."""


class Executor(Protocol):
    """Runs listing tasks in parallel."""

    @property
    def processes(self) -> int:
        """Number of processes that run the tasks."""

    def map(self, function: Callable[[T], R], items: Sequence[T], threads: int) -> Iterable[R]:
        """Yield the results of `function` for the items, in order; the first error is raised.

        Args:
            function: what to call; it and its results can be sent to other processes.
            items: the arguments, one for each call.
            threads: number of threads in each process.
        """


@dataclass(frozen=True)
class LocalExecutor:
    """Runs listing tasks in threads of this process."""

    processes: int = 1

    def map(self, function: Callable[[T], R], items: Sequence[T], threads: int) -> Iterator[R]:
        """Yield the results in order."""
        return map_ahead(function, items, threads=threads, ahead=_AHEAD * threads)


def listing(store: Store, root: str, executor: Executor) -> Listing:
    """Return the files below the folder with the key `root`, listed by `executor`."""
    opened: dict[str, Opened] = {}
    level, depth = [root], 0
    while level:
        whole = store.flat and (len(level) >= executor.processes * store.threads or depth == _LEVELS)
        contents = executor.map(store.everything if whole else store.opened, level, store.threads)
        opened.update(zip(level, contents, strict=True))
        below = chain.from_iterable(opened[folder].folders for folder in level)
        level = list(dict.fromkeys(key for _, key in below if key not in opened))
        depth += 1
    parts = list(_in_order(opened, root, "", set()))
    return Listing(
        FileTable.joined([store.placed(part.files, inside) for inside, part in parts]),
        sum(part.others for _, part in parts),
        any(part.local_only for _, part in parts),
    )


def _in_order(opened: dict[str, Opened], folder: str, inside: str, seen: set[str]) -> Iterator[tuple[str, Listing]]:
    """Yield all files below a folder with the name of their folder; a file comes before a folder of the same name."""
    if folder in seen:
        return
    seen.add(folder)
    own, files, at = opened[folder].listing, opened[folder].listing.files, 0
    for name, key in opened[folder].folders:
        stop = bisect_right(range(len(files)), name, key=lambda row: files.entry(row).raw)
        if at < stop:
            yield inside, Listing(files[at:stop], 0)
        yield from _in_order(opened, key, f"{inside}{name}/", seen)
        at = stop
    yield inside, Listing(files[at:], own.others, own.local_only)
