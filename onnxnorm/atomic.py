"""Writing files atomically: the old file or the new one is there, never half of one. Inputs are not overwritten.

What is not finished lies under a name that starts with `.onnxnorm-` and says which process made it. If that process was
killed, the next one that writes into the same folder removes what it left.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import secrets
import shutil
import stat
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from onnxnorm.errors import OnnxnormError, OptionError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = [
    "JOURNAL",
    "TEMPORARY",
    "abandoned",
    "check_target",
    "files_written",
    "keep_mode",
    "locked",
    "note_written",
    "obstacle",
    "remove_abandoned",
    "temporary_path",
    "write_atomically",
    "written_atomically",
]

# How the names of temporary files and folders start; process, host and a random number follow.
TEMPORARY = ".onnxnorm-"
_NAME = re.compile(rf"{re.escape(TEMPORARY)}(\d{{1,10}})-([0-9a-f]{{8}})-[0-9a-f]{{8}}")
# A file in a temporary folder: what its maker placed beside it, or meant to remove, under final names.
JOURNAL = "journal"
# The files that this process has written, in order, as keys.
files_written: dict[Path, None] = {}
# Seconds that a process waits for another one to finish its renames in the same folder.
_PATIENCE = 30.0


def obstacle(target: Path) -> str:
    """Why a file cannot be written at a path, as the end of a message; empty if nothing stands in the way."""
    try:
        folder = target.absolute().parent
        target.exists()  # asks the system, which may refuse the name
    except FileNotFoundError:
        return "the current folder was deleted; change to another one, or give the whole path"
    except (OSError, ValueError) as error:
        return (
            f"it cannot be the name of a file ({getattr(error, 'strerror', None) or error}); give another, shorter one"
        )
    if not folder.is_dir():
        return f"the folder {folder} does not exist; make it first"
    if target.is_dir():
        return "it is a folder; give the name of a file"
    if target.exists() and not target.is_file():
        return "it is not a regular file; give another name"
    if not os.access(folder, os.W_OK):
        return f"the folder {folder} is not writable; choose another"
    return ""


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
    if reason := obstacle(path):
        raise OptionError(f"cannot write {path}: {reason}")
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
    with written_atomically(target, error, what) as temporary, temporary.open("wb") as stream:
        stream.write(content)


@contextmanager
def written_atomically(target: Path, error: type[OnnxnormError], what: str = "") -> Iterator[Path]:
    """Yield the path of an empty temporary file to write to, and move it to its place at the end.

    If the block raises, `target` stays as it was. The arguments are those of `write_atomically`.

    Raises:
        OnnxnormError: of class `error`, if the file cannot be written.
    """
    if reason := obstacle(target):
        raise error(f"cannot write {what}{target}: {reason}")
    folder = target.absolute().parent
    remove_abandoned(folder)
    temporary = temporary_path(folder)
    try:
        try:
            open(temporary, "xb", opener=_private if target.exists() else None).close()
            yield temporary
            keep_mode(temporary, target)
            os.replace(temporary, target)
            note_written(target)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as failure:
        raise error(f"cannot write {what}{target}: {failure.strerror or failure}") from failure


def note_written(target: Path) -> None:
    """Remember that a file of the user's was written, for the message of an interrupted run."""
    files_written[target] = None


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def keep_mode(path: Path, old: Path) -> None:
    """Give a new file the permissions of the one that it is going to replace, if that exists."""
    if old.exists():
        path.chmod(stat.S_IMODE(old.stat().st_mode) & 0o777)


# --- temporary files, and those of processes that were killed --------------------------------------------------------


def temporary_path(folder: Path) -> Path:
    """A path in a folder for something unfinished; its name says which process made it."""
    return folder / f"{TEMPORARY}{os.getpid()}-{_host()}-{secrets.token_hex(4)}"


@cache
def _host() -> str:
    """Digest of what a process number is unique in: the machine, and the process namespace (of a container)."""
    try:
        namespace = os.readlink("/proc/self/ns/pid")
    except OSError:
        namespace = ""
    return hashlib.sha256(os.fsencode(f"{platform.node()} {namespace}")).hexdigest()[:8]


def abandoned(folder: Path) -> list[Path]:
    """Temporary files and folders in a folder whose makers ran on this machine and are gone."""
    with suppress(OSError), os.scandir(folder) as entries:
        return [folder / entry.name for entry in entries if _is_abandoned(entry.name)]
    return []


def _is_abandoned(name: str) -> bool:
    made = _NAME.fullmatch(name)
    if made is None or made[2] != _host() or os.name == "nt":  # os.kill would end a process of Windows
        return False
    try:
        os.kill(int(made[1]), 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        return False  # it belongs to somebody else
    return False


def remove_abandoned(folder: Path) -> None:
    """Remove abandoned temporary files, and folders unless they say what else is to be removed (`model/writing.py`)."""
    for path in abandoned(folder):
        if path.is_symlink() or not path.is_dir():
            with suppress(OSError):
                path.unlink()
        elif not (path / JOURNAL).exists():
            shutil.rmtree(path, ignore_errors=True)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder: one process at a time gives files in it their final names.

    The lock ends with the process. Where there are no locks, or one is held for half a minute, it goes on without.
    """
    descriptor = None
    if fcntl is not None:
        with suppress(OSError):  # a folder that may be written but not read
            descriptor = os.open(folder, os.O_RDONLY)
    try:
        if descriptor is not None:
            _wait_for(descriptor)
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _wait_for(descriptor: int) -> None:
    end = time.monotonic() + _PATIENCE
    while time.monotonic() < end:
        if _lock(descriptor):
            return
        time.sleep(0.02)


def _lock(descriptor: int) -> bool:
    """Try to lock; whether there is nothing more to wait for."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # this file system has no locks
        return True
    return True
