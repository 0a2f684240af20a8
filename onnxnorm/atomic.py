"""Writing files atomically: the old file or the new one is there, never half of one. Inputs are not overwritten."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable
from pathlib import Path

from onnxnorm.errors import OnnxnormError, OptionError

__all__ = ["check_target", "write_atomically"]


def check_target(target: str | os.PathLike[str], inputs: Iterable[object] = (), way_out: str = "") -> None:
    """Check that a file can be written, so that an error is raised before the work is done rather than after it.

    Args:
        target: the file to write.
        inputs: everything that is read; a path among it must not be the target, by another name or link either.
        way_out: what the message advises besides another name.

    Raises:
        OptionError: if the target is an input, a folder, no regular file, or in a folder where nothing can be written.
    """
    path = Path(target)
    folder = path.absolute().parent
    if not folder.is_dir():
        raise OptionError(f"cannot write {path}: the folder {folder} does not exist; make it first")
    if path.is_dir():
        raise OptionError(f"cannot write {path}: it is a folder; give the name of a file")
    if path.exists() and not path.is_file():
        raise OptionError(f"cannot write {path}: it is not a regular file; give another name")
    if not os.access(folder, os.W_OK):
        raise OptionError(f"cannot write {path}: the folder {folder} is not writable; choose another")
    for item in inputs:
        if isinstance(item, (str, os.PathLike)) and _is_same(path, item):
            what = f"it is an input ({os.fspath(item)}) and would be lost"
            raise OptionError(f"cannot write {path}: {what}; give another name{way_out}")


def _is_same(target: Path, path: str | os.PathLike[str]) -> bool:
    try:
        return os.path.samefile(target, path)
    except OSError:
        return False  # one of them does not exist


def write_atomically(target: Path, content: bytes, error: type[OnnxnormError], what: str = "") -> None:
    """Write a temporary file in the same folder, then move it to its place.

    Args:
        target: the file to write.
        content: its content.
        error: the class of the error that is raised if it cannot be written.
        what: words for the message, before the path of the target.

    Raises:
        OnnxnormError: of class `error`, if the file cannot be written.
    """
    temporary = target.absolute().parent / f".onnxnorm-{secrets.token_hex(8)}"
    try:
        try:
            temporary.write_bytes(content)
            os.replace(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as failure:
        raise error(f"cannot write {what}{target}: {failure.strerror}") from failure
