"""Writing files so that there is the old one or the new one, and never half of one, nor one that was an input."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable
from pathlib import Path

from onnxnorm.errors import OnnxnormError, OptionError

__all__ = ["check_target", "write_atomically"]


def check_target(target: str | os.PathLike[str], inputs: Iterable[object] = (), way_out: str = "") -> None:
    """Say before the work is done, rather than after, that a file cannot be written.

    Args:
        target: the file to write.
        inputs: what is read; paths among it must not be the target, by whatever name or link.
        way_out: what else to do than to give another name.

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
        return False  # one of them is not there


def write_atomically(target: Path, content: bytes, error: type[OnnxnormError], what: str = "") -> None:
    """Write a file by way of a temporary one in the same folder.

    Raises `error`, whose message names the target as `what` followed by its path, if it cannot be written.
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
