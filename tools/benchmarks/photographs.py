"""Folders of as many photographs as wanted, out of those that are there."""

from __future__ import annotations

from itertools import cycle, islice
from pathlib import Path

__all__ = ["photographs", "repeated"]

ROOT = Path(__file__).resolve().parent.parent.parent
EXTENSIONS = {".jpg", ".jpeg"}


def photographs(folder: Path) -> list[Path]:
    """All JPEG files of a folder, in order."""
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in EXTENSIONS)


def repeated(sources: list[Path], count: int, folder: Path) -> Path:
    """A folder with links to these photographs, from the first one again when there are not enough."""
    folder.mkdir(parents=True, exist_ok=True)
    for index, source in enumerate(islice(cycle(sources), count)):
        link = folder / f"{index:06d}{source.suffix.lower()}"
        link.unlink(missing_ok=True)
        link.symlink_to(source.resolve())
    return folder
