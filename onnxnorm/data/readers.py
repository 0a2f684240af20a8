"""Readers: each yields the samples of one stretch of the data, in order and in blocks.

Files are read by the readers of their sources (`onnxnorm.data.sources`), data in memory by `onnxnorm.data.memory`.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Generator
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from onnxnorm.data.batches import Batch, Skipped
from onnxnorm.data.images.preprocessing import Recipe
from onnxnorm.data.local import StoredFile
from onnxnorm.data.selection import Indices, RowSelector, all_rows

__all__ = ["Reader", "ReaderOfMembers", "printable"]


class Reader(Protocol):
    """Reads one stretch of the data, in which the samples have the indices 0, 1, 2, ..."""

    @property
    def total(self) -> int | None:
        """Number of samples; None if it is not known before reading."""

    @property
    def sample_bytes(self) -> int | None:
        """Bytes of one sample; None if samples differ, or if it is not known before reading."""

    @property
    def file_count(self) -> int:
        """Number of files that are read: one, or one for each sample; 0 for data in memory."""

    @property
    def preprocessing(self) -> Recipe | None:
        """How images become samples; None if there are no images."""

    def blocks(
        self, size: int, threads: int, selected: RowSelector = all_rows
    ) -> Generator[Batch | Skipped, None, None]:
        """Yield the selected samples in order, in blocks of about `size` at most, and the samples that are skipped."""

    def select(self, rows: Indices) -> Reader:
        """Return a reader of these samples only, with the same indices, that can be sent to another process."""


@runtime_checkable
class ReaderOfMembers(Protocol):
    """A reader of one file that holds other files, each of which is one sample."""

    def fingerprints(self, rows: Indices, skipped: Collection[str], most: int) -> NDArray[np.uint64]:
        """Return the fingerprints of at most `most` of these samples, without those named in `skipped`."""


def printable(path: str | Path | StoredFile) -> str:
    """Return the path with bytes that are not UTF-8 replaced, so that any stream can print it."""
    return os.fsencode(path).decode("utf-8", "replace")
