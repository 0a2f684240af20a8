"""Stretches of the data: image files, array files, arrays in memory. Each yields its samples in order, in blocks."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Protocol

import numpy as np

from onnxnorm.data.arrays.fitting import ArrayItem, RowSelector, all_rows, array_blocks, only, stretches
from onnxnorm.data.batches import Batch, Skipped
from onnxnorm.data.files.table import FileTable
from onnxnorm.data.images.decoding import ImageError, quiet_pillow, read_picture
from onnxnorm.data.images.preprocessing import Preprocessing
from onnxnorm.data.remote import RemoteFile
from onnxnorm.data.selection import Indices
from onnxnorm.model.inputs import InputSpec
from onnxnorm.threads import map_ahead

__all__ = ["ImageReader", "IterableReader", "MemoryReader", "Reader", "printable"]

# Where a picture takes a millisecond, handing it from thread to thread is a good part of that.
_SMALL, _TOGETHER = 1 << 16, 4


class Reader(Protocol):
    """A stretch of the data; `total` is the number of its samples, where that is known ahead."""

    @property
    def total(self) -> int | None:
        """Number of samples, None when only reading will tell."""

    @property
    def sample_bytes(self) -> int | None:
        """Bytes of one sample, None when they differ or only reading will tell."""

    def blocks(self, size: int, threads: int, wanted: RowSelector = all_rows) -> Generator[Batch | Skipped, None, None]:
        """Yield the wanted samples in order, in blocks of at most about `size`, and what had to be skipped."""

    def select(self, rows: Indices) -> Reader:
        """Return a part with only these samples, under the same indices, that can be sent to another process."""


@dataclass(frozen=True)
class ImageReader:
    """Consecutive image files: one sample each."""

    files: FileTable
    input_name: str
    preprocessing: Preprocessing
    numbers: Indices | None = None
    """The indices of the files; None: 0, 1, 2, ..."""

    @property
    def total(self) -> int:
        """Number of candidates."""
        return len(self.files)

    @property
    def sample_bytes(self) -> int | None:
        """Bytes of one sample, if all are resized alike."""
        return self.preprocessing.sample_bytes

    def blocks(self, size: int, threads: int, wanted: RowSelector = all_rows) -> Generator[Batch | Skipped, None, None]:
        """Yield one block a wanted image, decoded ahead by `threads` threads, small ones some at a time."""
        indices = (int(index) for some in stretches(len(self.files), wanted) for index in some)
        each = _TOGETHER if self.sample_bytes is not None and self.sample_bytes <= _SMALL else 1
        groups = iter(lambda: tuple(islice(indices, each)), ())
        ahead = max(size, 2 * threads) if each == 1 else 2 * threads
        with quiet_pillow(), closing(map_ahead(self._samples, groups, threads=threads, ahead=ahead)) as found:
            for some in found:
                yield from some

    def select(self, rows: Indices) -> ImageReader:
        """Return a part with only these files."""
        return replace(self, files=self.files.select(rows), numbers=rows)

    def _samples(self, positions: tuple[int, ...]) -> list[Batch | Skipped]:
        return [self._sample(position) for position in positions]

    def _sample(self, position: int) -> Batch | Skipped:
        file = self.files[position]
        index = position if self.numbers is None else int(self.numbers[position])
        name = printable(file.path)
        try:
            sample = self.preprocessing(read_picture(file.path, self.preprocessing.least))
        except ImageError as error:
            return Skipped(name, error.reason, index)
        return Batch({self.input_name: sample[None]}, 1, (name,), (index,))


@dataclass(frozen=True)
class IterableReader:
    """Arrays in memory, or an iterable of them: one block an item."""

    items: Iterable[ArrayItem]
    specs: tuple[InputSpec, ...]
    total: int | None
    sample_bytes: int | None = None

    def blocks(
        self,
        size: int,  # noqa: ARG002 - no reading
        threads: int,  # noqa: ARG002
        wanted: RowSelector = all_rows,
    ) -> Generator[Batch | Skipped, None, None]:
        """Yield the arrays as they come."""
        yield from array_blocks(self.items, self.specs, "array", wanted)

    def select(self, rows: Indices) -> MemoryReader:
        """Return a part with only these samples."""
        return MemoryReader(tuple(array_blocks(self.items, self.specs, "array", only(rows))))


@dataclass(frozen=True)
class MemoryReader:
    """Blocks that are there."""

    items: tuple[Batch, ...]
    sample_bytes: int | None = None

    @property
    def total(self) -> int:
        """Number of samples."""
        return sum(block.count for block in self.items)

    def blocks(
        self,
        size: int,  # noqa: ARG002 - no reading
        threads: int,  # noqa: ARG002
        wanted: RowSelector = all_rows,  # noqa: ARG002 - all of them
    ) -> Generator[Batch | Skipped, None, None]:
        """Yield them."""
        yield from self.items

    def select(self, rows: Indices) -> MemoryReader:
        """Return a part with only these samples."""
        chosen = (np.flatnonzero(np.isin(block.indices, rows)) for block in self.items)
        return MemoryReader(tuple(block.select(at) for block, at in zip(self.items, chosen, strict=True) if len(at)))


def printable(path: str | Path | RemoteFile) -> str:
    """Return the path with bytes that are not UTF-8 replaced, so that it can be written anywhere."""
    return os.fsencode(path).decode("utf-8", "replace")
