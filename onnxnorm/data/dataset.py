"""The data that a model is calibrated on: DATA becomes a `Dataset` (`opening`), and a dataset yields batches.

`Dataset.batches` reads and decodes ahead of its consumer, in a fixed order. Images that cannot be used are skipped and
listed; any other fault is an error.
"""

from __future__ import annotations

from collections.abc import Collection, Generator, Iterator, Sequence
from contextlib import closing
from functools import cached_property
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxnorm.data.batches import Batch, Skipped, regroup
from onnxnorm.data.files.discovery import DiscoveredFiles, identity, order_digest
from onnxnorm.data.files.fingerprints import fingerprints
from onnxnorm.data.files.table import FileTable
from onnxnorm.data.images.preprocessing import Recipe
from onnxnorm.data.readers import Reader, ReaderOfMembers, printable
from onnxnorm.data.selection import Indices, Selection
from onnxnorm.data.sources import sources
from onnxnorm.data.usable import check_usable
from onnxnorm.errors import DataError, OptionError
from onnxnorm.threads import available_threads

__all__ = ["Dataset"]


class Dataset:
    """The samples that a model is calibrated on."""

    def __init__(
        self, readers: Sequence[Reader], files: DiscoveredFiles | None = None, kinds: Sequence[int] = ()
    ) -> None:
        """`kinds` are the source numbers of the readers, one for each, if the data are `files`."""
        self._readers = tuple(readers)
        self._kinds = tuple(kinds)
        self._files = files.files if files else FileTable.of(())
        self._skipped: dict[str, Skipped] = {}
        self.ignored = files.ignored if files else 0
        """Number of files in the folders that no source reads."""

    @property
    def preprocessing(self) -> Recipe | None:
        """How images become samples; None if there are no images."""
        return next((reader.preprocessing for reader in self._readers if reader.preprocessing is not None), None)

    @cached_property
    def shared(self) -> dict[str, NDArray[Any]]:
        """The values of inputs that DATA gives once for all samples, by the name of the input.

        Raises DataError if parts of DATA give others.
        """
        parts = [getattr(reader, "shared", {}) for reader in self._readers]
        known = [{name: (value.shape, value.tobytes()) for name, value in part.items()} for part in parts]
        if any(other != known[0] for other in known[1:]):
            names = ", ".join(sorted({name for part in parts for name in part}))
            raise DataError(
                f"parts of DATA give input {names} other values for all their samples; calibrate each part by "
                f"itself, and put them together with onnxnorm merge, or give one value with --input"
            )
        return dict(parts[0]) if parts else {}

    @property
    def total(self) -> int | None:
        """Number of samples, unusable images included; None for an iterable, where it is not known before reading."""
        totals = [reader.total for reader in self._readers]
        return None if None in totals else sum(total or 0 for total in totals)

    @property
    def sample_bytes(self) -> int | None:
        """Bytes of the largest sample; None if that is not known before reading."""
        sizes = [reader.sample_bytes for reader in self._readers]
        return None if None in sizes else max((size or 0 for size in sizes), default=None)

    @property
    def one_size(self) -> bool:
        """Whether all samples are known to be of one size before reading."""
        sizes = {reader.sample_bytes for reader in self._readers}
        return len(sizes) == 1 and None not in sizes

    @property
    def skipped(self) -> list[Skipped]:
        """Images that could not be used so far, in the order of reading; each once, however often the data is read."""
        return list(self._skipped.values())

    def select(self, indices: Indices) -> list[tuple[int, Reader]]:
        """Return readers of these samples (ascending) only, each with the offset to add to the indices it yields."""
        readers: list[tuple[int, Reader]] = []
        start = 0
        for reader in self._readers:
            stop = start + (reader.total or 0)
            rows = indices[np.searchsorted(indices, start) : np.searchsorted(indices, stop)]
            if len(rows):
                readers.append((start, reader.select(rows - start)))
            start = stop
        return readers

    def skipped_after(self, count: int) -> Iterator[Skipped]:
        """Iterate over the skipped images without the first `count`."""
        return islice(self._skipped.values(), count, None) if count < len(self._skipped) else iter(())

    def describe(self) -> str:
        """Return a description of the data in one line."""
        parts = []
        for number, source in enumerate(sources()):
            count = int(np.count_nonzero(self._files.kinds == number))
            readers = [reader for reader, kind in zip(self._readers, self._kinds, strict=False) if kind == number]
            parts += [source.describe(count, readers)] if count else []
        if not len(self._files):
            what = "images" if self.preprocessing else "arrays"
            parts.append(f"{what} in memory" + ("" if self.total is None else f" with {self.total:,} sample(s)"))
        if self.ignored:
            parts.append(f"{self.ignored:,} other file(s) ignored")
        return ", ".join(parts)

    @cached_property
    def identity(self) -> dict[str, int | str]:
        """What distinguishes this data: `files`, `bytes`, and a `digest` of names and sizes (empty without files)."""
        files = self._files
        return identity(files) if len(files) else {"files": 0, "bytes": 0, "digest": ""}

    @cached_property
    def order(self) -> str:
        """A digest of the order of the files."""
        return order_digest(self._files)

    def used(self, selection: Selection, skipped: Collection[str]) -> FileTable:
        """Return the files that have samples done in `selection`, except the files named in `skipped`."""
        files = self._files
        rows = np.concatenate([np.empty(0, np.int64), *self._done(selection)])
        done = files if len(rows) == len(files) else files.select(rows)
        if not skipped:
            return done
        bad = [row for row, entry in enumerate(done.entries()) if printable(entry.where) in skipped]
        return done.select(np.delete(np.arange(len(done)), bad)) if bad else done

    def fingerprints(self, selection: Selection, skipped: Collection[str], most: int) -> NDArray[np.uint64]:
        """Return the fingerprints of what `used` returns, and of the images in archives that are done."""
        parts, start = [fingerprints(self.used(selection, skipped), most)], 0
        for reader in self._readers:
            if isinstance(reader, ReaderOfMembers):
                rows = selection.done_among(start, start + (reader.total or 0)) - start
                parts.append(reader.fingerprints(rows, skipped, most))
            start += reader.total or 0
        return np.unique(np.concatenate(parts), axis=0)[:most]

    def _done(self, selection: Selection) -> Iterator[Indices]:
        """Yield the rows in the file table of the files that have samples done, reader by reader."""
        row = start = 0
        for reader in self._readers:
            stop = start + (reader.total or 0)
            if reader.file_count == reader.total:
                yield selection.done_among(start, stop) - start + row
            elif reader.file_count:
                yield np.arange(row, row + selection.has_done(start, stop))
            row += reader.file_count
            start = stop

    def batches(
        self,
        batch_size: int,
        limit: int | None = None,
        threads: int | None = None,
        selection: Selection | None = None,
    ) -> Generator[Batch, None, None]:
        """Yield batches of `batch_size` samples. Closing the generator stops all reading.

        Args:
            batch_size: samples in a batch; fewer in the last batch, and where samples of several shapes wait.
            limit: number of usable samples to stop after, including those that `selection` counts as measured.
            threads: threads that decode images; by default one per core.
            selection: the samples to read; by default all of them.

        Raises:
            OptionError: if a number is less than 1.
            DataError: at the end, if no sample, or less than half of the samples, could be used.
        """
        for option, value in (("--batch-size", batch_size), ("--limit", limit), ("--threads", threads)):
            if value is not None and value < 1:
                raise OptionError(f"{option} {value} must be at least 1")
        return self._batches(batch_size, limit, threads or available_threads(), selection or Selection())

    def _batches(
        self, batch_size: int, limit: int | None, threads: int, selection: Selection
    ) -> Generator[Batch, None, None]:
        with closing(self._usable(batch_size, limit, threads, selection)) as usable:
            yield from regroup(usable, batch_size)

    def _usable(self, size: int, limit: int | None, threads: int, selection: Selection) -> Generator[Batch, None, None]:
        """Yield the first `limit` usable samples in blocks, and record the skipped ones."""
        good = selection.measured
        bad: list[Skipped] = []
        with closing(self._blocks(size, threads, selection)) as blocks:
            while limit is None or good < limit:
                block = next(blocks, None)
                if block is None:
                    break
                if isinstance(block, Skipped):
                    bad.append(block)
                    self._skipped[block.name] = block
                    continue
                kept = block if limit is None or good + block.count <= limit else block.split(limit - good)[0]
                good += kept.count
                yield kept
        check_usable(good, bad, selection)

    def _blocks(self, size: int, threads: int, selection: Selection) -> Generator[Batch | Skipped, None, None]:
        offset = 0
        for reader in self._readers:
            with closing(reader.blocks(size, threads, selection.shifted(offset))) as blocks:
                for block in blocks:
                    yield block.shifted(offset)
            offset += reader.total or 0
