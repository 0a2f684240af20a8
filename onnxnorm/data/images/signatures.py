"""Tells an image by its first bytes, for files whose names do not say what they are."""

from __future__ import annotations

import os

from onnxnorm.data.local import open_regular

__all__ = ["is_image"]

_LONGEST = 12
_JPEG, _PNG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"


def is_image(path: str | os.PathLike[str]) -> bool:
    """Whether a file begins as a JPEG, PNG or WebP does. A file that cannot be read is none."""
    try:
        with open_regular(path) as file:
            head = file.read(_LONGEST)
    except OSError:
        return False
    return head.startswith((_JPEG, _PNG)) or (head[:4] == b"RIFF" and head[8:] == b"WEBP")
