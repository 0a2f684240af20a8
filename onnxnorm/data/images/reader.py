"""Reads image files, each of which is one sample."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice
from typing import Protocol, TypeVar

from onnxnorm.data.batches import Batch, Skipped
from onnxnorm.data.files.table import FileTable
from onnxnorm.data.images.choosing import recipe_for
from onnxnorm.data.images.decoding import AnyPath, ImageError, image_extensions, quiet_pillow, read_decoded
from onnxnorm.data.images.options import ImageOptions
from onnxnorm.data.images.preprocessing import Recipe
from onnxnorm.data.readers import Reader, printable
from onnxnorm.data.selection import Indices, RowSelector, all_rows, stretches
from onnxnorm.data.sources import Source
from onnxnorm.errors import DataError
from onnxnorm.model.inputs import InputSpec
from onnxnorm.threads import map_ahead

__all__ = ["SOURCE", "ImageReader", "check_single_input", "image_blocks"]

Item = TypeVar("Item")

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
    preprocessing: Recipe
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
        rows = (int(row) for stretch in stretches(len(self.files), selected) for row in stretch)
        yield from image_blocks(rows, self._file, self, size, threads)

    def select(self, rows: Indices) -> ImageReader:
        """Return a reader of these files only, with the same indices."""
        return replace(self, files=self.files.select(rows), numbers=rows)

    def _file(self, row: int) -> tuple[AnyPath, int]:
        return self.files[row].path, row if self.numbers is None else int(self.numbers[row])


class Images(Protocol):
    """What all readers of images have."""

    @property
    def input_name(self) -> str:
        """The model's input that is fed."""

    @property
    def preprocessing(self) -> Recipe:
        """How images become samples."""

    @property
    def sample_bytes(self) -> int | None:
        """Bytes of one sample; None if images keep their own size."""


def image_blocks(
    items: Iterable[Item],
    file: Callable[[Item], tuple[AnyPath, int]],
    images: Images,
    size: int,
    threads: int,
    ahead: int | None = None,
) -> Generator[Batch | Skipped, None, None]:
    """Yield one block for each image, decoded ahead by `threads` threads.

    Args:
        items: one for each image.
        file: what is opened for an item, and the index of the sample; called in the threads.
        images: the reader.
        size: number of samples in a batch.
        threads: number of threads.
        ahead: how many images are decoded ahead; by default a batch, or two for each thread.
    """

    def samples(group: tuple[Item, ...]) -> list[Batch | Skipped]:
        return [_sample(images, *file(item)) for item in group]

    each = _TOGETHER if images.sample_bytes is not None and images.sample_bytes <= _SMALL else 1
    iterator = iter(items)
    groups = iter(lambda: tuple(islice(iterator, each)), ())
    if ahead is None:
        ahead = max(size, 2 * threads) if each == 1 else 2 * threads
    with quiet_pillow(), closing(map_ahead(samples, groups, threads=threads, ahead=ahead)) as results:
        for blocks in results:
            yield from blocks


def _sample(images: Images, path: AnyPath, index: int) -> Batch | Skipped:
    name = printable(path)
    try:
        decoded = read_decoded(path, images.preprocessing.least, images.preprocessing.most)
    except ImageError as error:
        return Skipped(name, error.reason, index)
    try:
        sample = images.preprocessing(decoded)
    except DataError as error:  # a transform of the user's own
        raise DataError(f"{error}; at image {name}") from error
    return Batch({images.input_name: sample[None]}, 1, (name,), (index,))


def check_single_input(what: str, specs: Sequence[InputSpec]) -> None:
    """Raise DataError if images are to feed several inputs."""
    if len(specs) > 1:
        names = ", ".join(repr(spec.name) for spec in specs)
        raise DataError(
            f"{what}, but the model has the inputs {names}; give .npz files named so, or the others one value for all "
            "samples (--input)"
        )


def _open(files: FileTable, specs: Sequence[InputSpec], options: ImageOptions) -> list[Reader]:
    check_single_input(f"{files[0].path} is an image", specs)
    return [ImageReader(files, specs[0].name, recipe_for(specs[0], options))]


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
