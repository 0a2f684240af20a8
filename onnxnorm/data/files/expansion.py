"""What people give as DATA beside paths: text files of paths, patterns that no shell expanded, and `file://`.

`@list.txt` is a text file with a path on each line, `@-` is standard input; paths that end in NUL, as `find -print0`
writes them, are fine too. Blank lines and lines that start with `#` are left out. Paths start from the current folder.
What a line names may be anything but a list again. A file or a folder whose own name begins with `@` is no list.
"""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from onnxnorm.data.local import open_regular
from onnxnorm.data.remote import is_local_uri, is_uri
from onnxnorm.errors import DataError

__all__ = ["Given", "expanded", "list_file"]

PathLike = str | os.PathLike[str]


@dataclass(frozen=True)
class Given:
    """A path or a URI, and where it was named, for messages; empty if it was given itself."""

    path: PathLike
    where: str = ""

    def __str__(self) -> str:
        return f"{os.fspath(self.path)}{self.where}"


def list_file(given: PathLike) -> str | None:
    """Return the name of the text file of paths that this stands for, `-` for standard input; None if it is none."""
    text = os.fspath(given)
    return text[1:] if text.startswith("@") and len(text) > 1 and not os.path.lexists(given) else None


def expanded(data: Iterable[PathLike]) -> Iterator[Given]:
    """Yield the paths and URIs that DATA stands for, in order.

    Raises DataError if a list cannot be read or holds nothing, or if a pattern matches nothing.
    """
    for given in data:
        name = list_file(given)
        if name is None:
            yield from _matched(Given(given))
            continue
        empty = True
        for item in _lines(name):
            empty = False
            yield from _matched(item)
        if empty:
            raise DataError(f"{'standard input' if name == '-' else name} names no files; write one path a line")


def _lines(name: str) -> Iterator[Given]:
    shown = "standard input" if name == "-" else name
    try:
        if name == "-":
            content = sys.stdin.buffer.read()
        else:
            with open_regular(name) as file:
                content = file.read()
    except (OSError, AttributeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(
            f"the list of files {shown} cannot be read: {reason}; give @ and the name of a text file"
        ) from error
    lines = content.removeprefix(b"\xef\xbb\xbf").split(b"\0" if b"\0" in content else b"\n")
    for number, line in enumerate(lines, 1):
        text = os.fsdecode(line).rstrip("\r\n")
        if text.strip() and not text.lstrip().startswith("#"):
            yield Given(text, f" ({shown}, line {number})")


def _matched(given: Given) -> Iterator[Given]:
    """Yield what a pattern matches, sorted; anything else is yielded as it is."""
    text = os.fspath(given.path)
    if is_local_uri(text):
        path = _path_of(text)
        yield Given(path, given.where) if os.path.isfile(path) else given
    elif is_uri(text) or not glob.has_magic(text) or os.path.lexists(text):
        yield given
    else:
        found = sorted(glob.glob(text, recursive=True))
        if not found:
            raise DataError(f"{given} matches no file")
        yield from (Given(Path(path), given.where) for path in found)


def _path_of(uri: str) -> str:
    """Return the path that a URI of this machine names; what is not there literally may be quoted by per cents."""
    path = uri.partition("://")[2].removeprefix("localhost/") if "://localhost/" in uri else uri.partition("://")[2]
    path = f"/{path}" if "://localhost/" in uri else path
    return path if os.path.lexists(path) else unquote(path)
