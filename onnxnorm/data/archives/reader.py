"""Reads the images in archives, each of which is one sample; an archive is one file."""

from __future__ import annotations

import gzip
from collections import Counter
from collections.abc import Collection, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from onnxnorm.data.archives.index import ArchiveIndex, archive_index, is_compressed
from onnxnorm.data.archives.members import LoadedFile, MemberTable
from onnxnorm.data.batches import Batch, Skipped
from onnxnorm.data.files.fingerprints import fingerprints
from onnxnorm.data.files.table import FileTable
from onnxnorm.data.images.choosing import recipe_for
from onnxnorm.data.images.options import ImageOptions
from onnxnorm.data.images.preprocessing import Recipe
from onnxnorm.data.images.reader import check_single_input, image_blocks
from onnxnorm.data.local import open_regular
from onnxnorm.data.readers import Reader, printable
from onnxnorm.data.selection import Indices, RowSelector, all_rows, stretches
from onnxnorm.data.sources import Source
from onnxnorm.errors import DataError
from onnxnorm.model.inputs import InputSpec

__all__ = ["SOURCE", "ArchiveReader"]

_ENDINGS_SHOWN = 4


@dataclass(frozen=True)
class ArchiveReader:
    """Reads the images in one archive.

    Attributes:
        path: the archive.
        members: its images.
        input_name: the model's input that is fed.
        preprocessing: how images become samples.
        numbers: the indices of the images; None for 0, 1, 2, ...
        others: numbers of other members, by what they are.
        nested: number of archives in the archive.
        file_count: one file.
    """

    path: Path
    members: MemberTable = field(repr=False)
    input_name: str
    preprocessing: Recipe
    numbers: Indices | None = field(default=None, repr=False)
    others: Counter[str] = field(default_factory=Counter)
    nested: int = 0
    file_count: int = 1

    @property
    def total(self) -> int:
        """Number of images, including those that will turn out to be unusable."""
        return len(self.members)

    @property
    def sample_bytes(self) -> int | None:
        """Bytes of one sample; None if images keep their own size."""
        return self.preprocessing.sample_bytes

    def blocks(
        self, size: int, threads: int, selected: RowSelector = all_rows
    ) -> Generator[Batch | Skipped, None, None]:
        """Yield one block for each selected image, decoded ahead by `threads` threads."""
        rows = (int(row) for stretch in stretches(len(self.members), selected) for row in stretch)
        if is_compressed(self.path):
            with closing(self._unpacked(rows)) as items:
                yield from image_blocks(
                    items, lambda item: (item[1], self._number(item[0])), self, size, threads, ahead=threads
                )
        else:
            yield from image_blocks(
                rows, lambda row: (self.members.member(row, self.path), self._number(row)), self, size, threads
            )

    def select(self, rows: Indices) -> ArchiveReader:
        """Return a reader of these images only, with the same indices."""
        return replace(self, members=self.members.select(rows), numbers=rows, others=Counter())

    def fingerprints(self, rows: Indices, skipped: Collection[str], most: int) -> NDArray[np.uint64]:
        """Return the fingerprints of at most `most` of these images, without those named in `skipped`."""
        names = self.members.names
        kept = [row for row in rows.tolist() if printable(f"{self.path}/{names.entry(row).raw}") not in skipped]
        return fingerprints(names.select(kept), most, lambda numbers: self._contents([kept[n] for n in numbers]))

    def _contents(self, rows: list[int]) -> Iterator[bytes | None]:
        """Yield the content of images; None for those that cannot be read."""
        left = len(rows)
        try:
            files = self._unpacked(iter(rows)) if is_compressed(self.path) else None
            for row in rows:
                file = self.members.member(row, self.path) if files is None else next(files)[1]
                try:
                    content = file.open().read()
                except OSError:
                    content = None
                left -= 1
                yield content
        except DataError:
            yield from [None] * left

    def _number(self, row: int) -> int:
        return row if self.numbers is None else int(self.numbers[row])

    def _unpacked(self, rows: Iterator[int]) -> Generator[tuple[int, LoadedFile], None, None]:
        """Yield the images of a compressed archive, which is unpacked from start to end."""
        try:
            with open_regular(self.path) as file, gzip.GzipFile(fileobj=file) as stream:
                yield from self.members.loaded(self.path, stream, rows)
        except (OSError, EOFError) as error:
            raise DataError(f"{self.path} was changed or damaged while it was read ({error}); run it again") from error


def _open(files: FileTable, specs: Sequence[InputSpec], options: ImageOptions) -> list[Reader]:
    check_single_input(f"{files[0].path} holds images", specs)
    recipe = recipe_for(specs[0], options)
    readers: list[Reader] = []
    for file in files:
        path = Path(file.path)
        index = archive_index(path)
        if not len(index.images):
            raise DataError(f"{path} holds no images{_rest(index)}")
        readers.append(
            ArchiveReader(path, index.images, specs[0].name, recipe, others=index.others, nested=index.nested)
        )
    return readers


def _rest(index: ArchiveIndex) -> str:
    """What an archive without images holds, and what to do."""
    if index.nested:
        return f", but {index.nested:,} archive(s), which are not followed; unpack it once, and give what it holds"
    return f" ({_named(index.others)})" if index.others else "; it is empty"


def _named(others: Counter[str]) -> str:
    """Numbers of members by what they are, the most frequent first."""
    parts = [f"{count:,} {what}" for what, count in others.most_common(_ENDINGS_SHOWN)]
    return " + ".join([*parts, "..."] if len(others) > _ENDINGS_SHOWN else parts)


def _describe(count: int, readers: Sequence[Reader]) -> str:
    archives = [reader for reader in readers if isinstance(reader, ArchiveReader)]
    parts = [f"{count:,} archive(s) with {sum(reader.total for reader in archives):,} image(s)"]
    others = sum((reader.others for reader in archives), Counter[str]())
    nested = sum(reader.nested for reader in archives)
    parts += [f"{others.total():,} other member(s) ignored ({_named(others)})"] if others else []
    parts += [f"{nested:,} archive(s) inside not followed"] if nested else []
    return ", ".join(parts)


SOURCE = Source(
    kind="archive",
    one="an archive of images (.tar, .tar.gz, .zip)",
    files="archives (.tar, .tar.gz, .zip)",
    endings=lambda: frozenset({".tar", ".tar.gz", ".tgz", ".zip"}),
    remote=False,  # members are read at their place in the file
    open=_open,
    describe=_describe,
)
