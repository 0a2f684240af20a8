"""Readers: each yields the samples of a stretch of the data in order, in blocks.

What is in files is read by the readers of its source (`onnxnorm.data.sources`); here are those of what is in memory.
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
    """Reads a stretch of the data. Its samples have the indices 0, 1, 2, ... in it."""

    @property
    def total(self) -> int | None:
        """Number of samples; None when only reading will tell."""

    @property
    def sample_bytes(self) -> int | None:
        """Bytes of one sample; None when they differ, or only reading will tell."""

    @property
    def file_count(self) -> int:
        """How many files it reads: one, or one for each sample; 0 for what is in memory."""

    @property
    def preprocessing(self) -> Preprocessing | None:
        """How images become samples; None where there are no images."""

    def blocks(
        self, size: int, threads: int, selected: RowSelector = all_rows
    ) -> Generator[Batch | Skipped, None, None]:
        """Yield the selected samples in order, in blocks of at most about `size`, and what had to be skipped."""

    def select(self, rows: Indices) -> Reader:
        """A reader of these samples alone, under the same indices, that can be sent to another process."""


@dataclass(frozen=True)
class IterableReader:
    """Reads arrays in memory, or an iterable of them: each is a block."""

    items: Iterable[ArrayItem]
    specs: tuple[InputSpec, ...]
    total: int | None
    sample_bytes: int | None = None
    file_count: int = 0
    preprocessing: None = None

    def blocks(
        self,
        size: int,  # noqa: ARG002 - no reading
        threads: int,  # noqa: ARG002
        selected: RowSelector = all_rows,
    ) -> Generator[Batch | Skipped, None, None]:
        """Yield the arrays as they come."""
        yield from array_blocks(self.items, self.specs, "array", selected)

    def select(self, rows: Indices) -> MemoryReader:
        """A reader of these samples alone, under the same indices."""
        return MemoryReader(tuple(array_blocks(self.items, self.specs, "array", these_rows(rows))))


@dataclass(frozen=True)
class MemoryReader:
    """Reads blocks that are in memory already."""

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
        size: int,  # noqa: ARG002 - no reading
        threads: int,  # noqa: ARG002
        selected: RowSelector = all_rows,  # noqa: ARG002 - all of them
    ) -> Generator[Batch | Skipped, None, None]:
        """Yield the blocks."""
        yield from self.items

    def select(self, rows: Indices) -> MemoryReader:
        """A reader of these samples alone, under the same indices."""
        numbers = (np.flatnonzero(np.isin(block.indices, rows)) for block in self.items)
        return MemoryReader(tuple(block.select(at) for block, at in zip(self.items, numbers, strict=True) if len(at)))


def printable(path: str | Path | RemoteFile) -> str:
    """Return the path with bytes that are not UTF-8 replaced, so that it can be written anywhere."""
    return os.fsencode(path).decode("utf-8", "replace")
