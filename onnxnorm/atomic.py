"""Writing files so that there is the old one or the new one, and never half of one."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from onnxnorm.errors import OnnxnormError

__all__ = ["write_atomically"]


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
