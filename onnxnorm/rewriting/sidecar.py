"""The sidecar: the record of a rewrite in a file beside the model, if it is too long for the model's metadata.

The metadata has the SHA-256 digest of the sidecar. Its usual name is `MODEL.scales.safetensors`, but while a model is
replaced both the old and the new sidecar must be there. So a sidecar may also be called
`MODEL.scales-DIGEST.safetensors`, with the first digits of its digest; readers take whichever file has the digest.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from onnxnorm.atomic import keep_mode, obstacle, write_atomically
from onnxnorm.errors import ModelError

__all__ = ["read_sidecar", "sidecar_path", "sidecar_placed", "write_sidecar"]

_DIGITS = 16


def sidecar_path(model: Path, digest: str = "") -> Path:
    """Path of a model's sidecar: its usual name, or the one by digest."""
    infix = f"-{digest[:_DIGITS]}" if digest else ""
    return model.with_name(f"{model.name}.scales{infix}.safetensors")


def read_sidecar(digest: str, model: Path | None, given: Path | None = None) -> bytes:
    """Read the content of the sidecar with this digest.

    Args:
        digest: SHA-256 digest of the content, in hexadecimal.
        model: path of the model; None for a ModelProto in memory.
        given: path of the sidecar; None for the one beside the model.

    Raises:
        ModelError: if it is missing, or the file that is there has another digest.
    """
    places = [given] if given else [] if model is None else [sidecar_path(model), sidecar_path(model, digest)]
    there = [place for place in places if place.is_file()]
    if not there:
        where = f"{places[0]} is missing" if places else "a model in memory has no file beside it"
        raise ModelError(f"the scales of this model are in a file of their own, and {where}; give it with --scales")
    for place in there:
        content = place.read_bytes()
        if _digest(content) == digest:
            return content
    raise ModelError(f"{there[0]} holds the scales of another rewrite; give the right file with --scales")


def write_sidecar(model: Path, content: bytes) -> None:
    """Write the sidecar of a model, atomically. Raises ModelError if it cannot be written."""
    write_atomically(sidecar_path(model), content, ModelError)


@contextmanager
def sidecar_placed(model: Path, content: bytes | None, previous: Mapping[str, str]) -> Iterator[None]:
    """Have a new sidecar beside a model while the model is replaced, and give it the usual name afterwards.

    Args:
        model: the model that is replaced in the block.
        content: the new sidecar; None if there is none.
        previous: the provenance of the model before the rewrite. If it needs the sidecar that is there (the model was
            rewritten in place), that one gets its name by digest instead of being replaced.

    Raises:
        ModelError: if the sidecar cannot be written.
    """
    usual = sidecar_path(model)
    if content is None:
        yield
        return
    if reason := obstacle(usual):
        raise ModelError(f"cannot write {usual}: {reason}")
    if not usual.exists():
        write_sidecar(model, content)
        yield
        return
    fresh = sidecar_path(model, _digest(content))
    write_atomically(fresh, content, ModelError)
    keep_mode(fresh, usual)
    yield
    with suppress(OSError, ModelError):  # under its name by digest it is found as well
        old, needed = usual.read_bytes(), _needed(previous)
        if _digest(old) in needed:
            write_atomically(sidecar_path(model, _digest(old)), old, ModelError)
        os.replace(fresh, usual)
        for path in model.absolute().parent.iterdir():
            by_digest = re.fullmatch(
                rf"{re.escape(model.name)}\.scales-([0-9a-f]{{{_DIGITS}}})\.safetensors", path.name
            )
            if by_digest and not any(digest.startswith(by_digest[1]) for digest in needed):
                path.unlink()  # left by a process that was killed


def _needed(entries: Mapping[str, str]) -> set[str]:
    """Digests of the sidecars of this provenance and of all before it."""
    digests = set()
    while entries:
        digests.add(entries.get("scales_digest", ""))
        try:
            entries = json.loads(entries.get("previous", "{}"))
        except ValueError:
            break
    return digests


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
