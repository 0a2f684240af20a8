"""Stretches of the data: image files, array files, arrays in memory. Each yields its samples in order, in blocks."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from onnxnorm.calibration.arrays import ArrayItem, Wanted, array_blocks, everything, stretches
from onnxnorm.calibration.batches import Batch, Skipped
from onnxnorm.calibration.discovery import DataFile
from onnxnorm.calibration.images import ImageError, quiet_pillow, read_image
from onnxnorm.calibration.prefetch import map_ahead
from onnxnorm.calibration.preprocessing import Preprocessing
from onnxnorm.model.inputs import InputSpec

__all__ = ["ImageFiles", "MemoryArrays", "Part"]


class Part(Protocol):
    """A stretch of the data; `total` is the number of its samples, where that is known ahead."""

    @property
    def total(self) -> int | None:
        """Number of samples, None when only reading will tell."""

    def blocks(self, size: int, threads: int, wanted: Wanted = everything) -> Generator[Batch | Skipped, None, None]:
        """Yield the wanted samples in order, in blocks of at most about `size`, and what had to be skipped."""


@dataclass(frozen=True)
class ImageFiles:
    """Consecutive image files: one sample each."""

    files: tuple[DataFile, ...]
    input_name: str
    preprocessing: Preprocessing

    @property
    def total(self) -> int:
        """Number of candidates."""
        return len(self.files)

    def blocks(self, size: int, threads: int, wanted: Wanted = everything) -> Generator[Batch | Skipped, None, None]:
        """Yield one block a wanted image, decoded ahead by `threads` threads."""
        ahead = max(size, 2 * threads)
        indices = (int(index) for some in stretches(len(self.files), wanted) for index in some)
        with quiet_pillow(), closing(map_ahead(self._sample, indices, threads=threads, ahead=ahead)) as samples:
            yield from samples

    def _sample(self, index: int) -> Batch | Skipped:
        file = self.files[index]
        name = _printable(file.path)
        try:
            sample = self.preprocessing(read_image(file.path))
        except ImageError as error:
            return Skipped(name, error.reason, index)
        return Batch({self.input_name: sample[None]}, 1, (name,), (index,))


@dataclass(frozen=True)
class MemoryArrays:
    """Arrays in memory, or an iterable of them: one block an item."""

    items: Iterable[ArrayItem]
    specs: tuple[InputSpec, ...]
    total: int | None

    def blocks(
        self,
        size: int,  # noqa: ARG002 - no reading
        threads: int,  # noqa: ARG002
        wanted: Wanted = everything,
    ) -> Generator[Batch | Skipped, None, None]:
        """Yield the arrays as they come."""
        yield from array_blocks(self.items, self.specs, "array", wanted)


def _printable(path: Path) -> str:
    """Return the path with bytes that are not UTF-8 replaced, so that it can be written anywhere."""
    return os.fsencode(path).decode("utf-8", "replace")
