"""The journal of a writing: which files have to be removed if no model refers to them.

It lists the names in a folder that were claimed for new data files, and the data files of the model that is replaced.
What is listed and what models refer to together say what to remove, whatever was done: at the end, after an error, and
after a kill, when the next process that writes into the folder reads the journal.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath

from onnxnorm.atomic import JOURNAL, TEMPORARY, abandoned, locked, remove_abandoned
from onnxnorm.errors import ModelError
from onnxnorm.model.external import referenced

__all__ = ["clean_up", "inside", "note", "remove_listed"]


def clean_up(folder: Path) -> None:
    """Remove what processes that were killed have left in a folder."""
    for path in abandoned(folder):
        if path.is_dir() and not path.is_symlink():
            with locked(folder):
                remove_listed(folder, path / JOURNAL)
            shutil.rmtree(path, ignore_errors=True)
    remove_abandoned(folder)


def note(journal: Path, name: str, file: Path) -> None:
    """List a name in the journal, with size and time of the file that has it or is about to have it."""
    status = file.stat()
    with journal.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps([name, status.st_size, status.st_mtime_ns]) + "\n")


def remove_listed(folder: Path, journal: Path, first: Path | None = None) -> None:
    """Remove the listed files that are still the same and that no model refers to; the first model to ask is given."""
    listed = {place for place in _listed(folder, journal) if place.is_file()}
    with suppress(ModelError, OSError):  # a file that cannot be read may be a model: nothing is removed then
        if first is not None and first.is_file():
            listed -= _referred_to([first.absolute()], listed)
        if listed:
            folders = {folder, *(parent for place in listed for parent in place.parents if folder in parent.parents)}
            for place in listed - _referred_to((path for within in folders for path in within.iterdir()), listed):
                place.unlink(missing_ok=True)


def _listed(folder: Path, journal: Path) -> Iterator[Path]:
    try:
        lines = journal.read_text("utf-8").splitlines()
    except (OSError, ValueError):
        return
    for line in lines:
        with suppress(ValueError, TypeError, OSError):  # the last line may be half of one
            name, size, changed = json.loads(line)
            place = inside(folder, name)
            if place is not None and (place.stat().st_size, place.stat().st_mtime_ns) == (size, changed):
                yield place


def _referred_to(paths: Iterable[Path], data: set[Path]) -> set[Path]:
    """Which of these data files are referred to by a model among these paths."""
    resolved = {place.resolve() for place in data}
    used = set()
    for path in paths:
        if path.is_file() and not path.name.startswith(TEMPORARY) and path.resolve() not in resolved:
            used |= {(path.parent / location).resolve() for location in referenced(path)}
    return {place for place in data if place.resolve() in used}


def inside(folder: Path, name: str) -> Path | None:
    """The path of a name in a folder; None if it is not below the folder."""
    place = folder / name
    parent = place.parent.resolve()
    root = folder.resolve()
    return place if ".." not in PurePosixPath(name).parts and root in (parent, *parent.parents) else None
