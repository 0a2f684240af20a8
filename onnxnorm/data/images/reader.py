"""Reads image files, each of which is one sample."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice

from onnxnorm.data.batches import Batch, Skipped
from onnxnorm.data.files.table import FileTable
from onnxnorm.data.images.decoding import ImageError, image_extensions, quiet_pillow, read_decoded
from onnxnorm.data.images.options import ImageOptions, preprocessing_for
from onnxnorm.data.images.preprocessing import Preprocessing
from onnxnorm.data.readers import Reader, printable
from onnxnorm.data.selection import Indices, RowSelector, all_rows, stretches
from onnxnorm.data.sources import Source
from onnxnorm.errors import DataError
from onnxnorm.model.inputs import InputSpec
from onnxnorm.threads import map_ahead

__all__ = ["SOURCE", "ImageReader"]

# Small images take about a millisecond each, so several are passed between threads together to save overhead.
_SMALL, _TOGETHER = 1 << 16, 4


@dataclass(frozen=True)
class ImageReader:
    """Reads consecutive image files, each of which is one sample.

    Attributes:
        files: the files.
        input_name: the model's input that is fed.
        preprocessing: how images become samples.
        numbers: the indices of the files; None for 0, 1, 2, ...
    """

    files: FileTable
    input_name: str
    preprocessing: Preprocessing
    numbers: Indices | None = None

    @property
    def total(self) -> int:
        """Number of images, including those that will turn out to be unusable."""
        return len(self.files)

    @property
    def file_count(self) -> int:
        """Number of files, one for each image."""
        return len(self.files)

    @property
    def sample_bytes(self) -> int | None:
        """Bytes of one sample; None if images keep their own size."""
        return self.preprocessing.sample_bytes

    def blocks(
        self, size: int, threads: int, selected: RowSelector = all_rows
    ) -> Generator[Batch | Skipped, None, None]:
        """Yield one block for each selected image, decoded ahead by `threads` threads."""
        indices = (int(index) for stretch in stretches(len(self.files), selected) for index in stretch)
        each = _TOGETHER if self.sample_bytes is not None and self.sample_bytes <= _SMALL else 1
        groups = iter(lambda: tuple(islice(indices, each)), ())
        ahead = max(size, 2 * threads) if each == 1 else 2 * threads
        with quiet_pillow(), closing(map_ahead(self._samples, groups, threads=threads, ahead=ahead)) as results:
            for blocks in results:
                yield from blocks

    def select(self, rows: Indices) -> ImageReader:
        """Return a reader of these files only, with the same indices."""
        return replace(self, files=self.files.select(rows), numbers=rows)

    def _samples(self, positions: tuple[int, ...]) -> list[Batch | Skipped]:
        return [self._sample(position) for position in positions]

    def _sample(self, position: int) -> Batch | Skipped:
        file = self.files[position]
        index = position if self.numbers is None else int(self.numbers[position])
        name = printable(file.path)
        try:
            sample = self.preprocessing(read_decoded(file.path, self.preprocessing.least, self.preprocessing.most))
        except ImageError as error:
            return Skipped(name, error.reason, index)
        return Batch({self.input_name: sample[None]}, 1, (name,), (index,))


def _open(files: FileTable, specs: Sequence[InputSpec], options: ImageOptions) -> list[Reader]:
    if len(specs) > 1:
        names = ", ".join(repr(spec.name) for spec in specs)
        raise DataError(f"{files[0].path} is an image, but the model has the inputs {names}; give .npz files named so")
    return [ImageReader(files, specs[0].name, preprocessing_for(specs[0], options))]


def _describe(count: int, readers: Sequence[Reader]) -> str:
    del readers
    return f"{count:,} image(s)"


SOURCE = Source(
    kind="image",
    one="an image that Pillow reads",
    files="images",
    endings=image_extensions,
    remote=True,
    open=_open,
    describe=_describe,
)
