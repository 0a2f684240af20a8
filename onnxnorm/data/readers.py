"""Readers: each yields the samples of one stretch of the data, in order and in blocks.

Files are read by the readers of their sources (`onnxnorm.data.sources`); this module has the readers for data in
memory.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from onnxnorm.data.arrays.fitting import ArrayItem, array_blocks
from onnxnorm.data.batches import Batch, Skipped
from onnxnorm.data.images.preprocessing import Preprocessing
from onnxnorm.data.remote import RemoteFile
from onnxnorm.data.selection import Indices, RowSelector, all_rows, these_rows
from onnxnorm.model.inputs import InputSpec

__all__ = ["IterableReader", "MemoryReader", "Reader", "printable"]


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
    def preprocessing(self) -> Preprocessing | None:
        """How images become samples; None if there are no images."""

    def blocks(
        self, size: int, threads: int, selected: RowSelector = all_rows
    ) -> Generator[Batch | Skipped, None, None]:
        """Yield the selected samples in order, in blocks of about `size` at most, and the samples that are skipped."""

    def select(self, rows: Indices) -> Reader:
        """Return a reader of these samples only, with the same indices, that can be sent to another process."""


@dataclass(frozen=True)
class IterableReader:
    """Reads arrays in memory, or an iterable of arrays, each as one block.

    Attributes:
        items: the arrays.
        specs: the inputs that have a value for every sample.
        total: number of samples; None if it is not known.
    """

    items: Iterable[ArrayItem]
    specs: tuple[InputSpec, ...]
    total: int | None
    sample_bytes: int | None = None
    file_count: int = 0
    preprocessing: None = None

    def blocks(
        self,
        size: int,  # noqa: ARG002 - the arrays are in memory
        threads: int,  # noqa: ARG002
        selected: RowSelector = all_rows,
    ) -> Generator[Batch | Skipped, None, None]:
        """Yield the selected samples of each array as one block."""
        yield from array_blocks(self.items, self.specs, "array", selected)

    def select(self, rows: Indices) -> MemoryReader:
        """Return a reader of these samples only, with the same indices."""
        return MemoryReader(tuple(array_blocks(self.items, self.specs, "array", these_rows(rows))))


@dataclass(frozen=True)
class MemoryReader:
    """Yields blocks that are in memory already."""

    items: tuple[Batch, ...]
    sample_bytes: int | None = None
    file_count: int = 0
    preprocessing: None = None

    @property
    def total(self) -> int:
        """Number of samples."""
        return sum(block.count for block in self.items)

    def blocks(
        self,
        size: int,  # noqa: ARG002 - the blocks are in memory
        threads: int,  # noqa: ARG002
        selected: RowSelector = all_rows,  # noqa: ARG002 - `select` has selected already
    ) -> Generator[Batch | Skipped, None, None]:
        """Yield all blocks."""
        yield from self.items

    def select(self, rows: Indices) -> MemoryReader:
        """Return a reader of these samples only, with the same indices."""
        positions = (np.flatnonzero(np.isin(block.indices, rows)) for block in self.items)
        return MemoryReader(tuple(block.select(at) for block, at in zip(self.items, positions, strict=True) if len(at)))


def printable(path: str | Path | RemoteFile) -> str:
    """Return the path with bytes that are not UTF-8 replaced, so that any stream can print it."""
    return os.fsencode(path).decode("utf-8", "replace")
