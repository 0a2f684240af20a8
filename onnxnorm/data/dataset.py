"""What a model is calibrated on: DATA becomes a `Dataset`, a dataset becomes batches.

`open_data` finds out what DATA is and whether it fits the model, reading no more than the heads of array files.
`Dataset.batches` decodes and reads, ahead of its consumer, in a fixed order. Images that cannot be used are skipped and
listed; everything else that is wrong is an error.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from functools import cached_property
from itertools import chain, islice, pairwise
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from onnxnorm.data.arrays.fitting import ArrayItem, ArrayReader, RowSelector, array_blocks, open_arrays
from onnxnorm.data.batches import Batch, Skipped, regroup
from onnxnorm.data.files.discovery import DiscoveredFiles, discover, identity, order_digest
from onnxnorm.data.files.listing import Executor
from onnxnorm.data.files.table import KINDS, FileTable
from onnxnorm.data.images.options import ImageOptions, preprocessing_for
from onnxnorm.data.images.preprocessing import Preprocessing
from onnxnorm.data.readers import ImageReader, IterableReader, Reader, printable
from onnxnorm.data.selection import Indices, Selection
from onnxnorm.errors import DataError, OptionError
from onnxnorm.model.inputs import InputSpec
from onnxnorm.threads import available_threads

__all__ = ["Data", "Dataset", "open_data"]

PathLike: TypeAlias = str | os.PathLike[str]
Data: TypeAlias = PathLike | ArrayItem | Iterable[PathLike] | Iterable[ArrayItem]
"""A path or several; an array (N, *sample) or a dict of them by input name; an iterable of those, each a batch."""

_REASONS_SHOWN = 3


class Dataset:
    """The samples that a model is calibrated on.

    `skipped` lists the images that could not be used so far, each once, however often the data is read.
    """

    def __init__(self, parts: Sequence[Reader], found: DiscoveredFiles, preprocessing: Preprocessing | None) -> None:
        self._parts = tuple(parts)
        self._found = found
        self._skipped: dict[str, Skipped] = {}
        self.preprocessing = preprocessing
        """How images are prepared; None where there are none."""

    @property
    def total(self) -> int | None:
        """Number of samples known ahead, every image counted; None for an iterable."""
        totals = [part.total for part in self._parts]
        return None if None in totals else sum(total or 0 for total in totals)

    @property
    def sample_bytes(self) -> int | None:
        """Bytes of the largest sample; None where that is not known ahead."""
        sizes = [part.sample_bytes for part in self._parts]
        return None if None in sizes else max((size or 0 for size in sizes), default=None)

    @property
    def skipped(self) -> list[Skipped]:
        """The images that could not be used, in the order in which they were met."""
        return list(self._skipped.values())

    def select(self, indices: Indices) -> list[tuple[int, Reader]]:
        """Return parts with only these samples, each with the index of its first sample before it was picked from."""
        found: list[tuple[int, Reader]] = []
        start = 0
        for part in self._parts:
            stop = start + (part.total or 0)
            rows = indices[np.searchsorted(indices, start) : np.searchsorted(indices, stop)]
            if len(rows):
                found.append((start, part.select(rows - start)))
            start = stop
        return found

    def skipped_after(self, count: int) -> Iterator[Skipped]:
        """Yield what was skipped after the first `count`."""
        return islice(self._skipped.values(), count, None) if count < len(self._skipped) else iter(())

    @property
    def ignored(self) -> int:
        """Number of files in the folders that are neither images nor arrays."""
        return self._found.ignored

    def describe(self) -> str:
        """Return one line for people."""
        arrays = int(np.count_nonzero(self._found.files.kinds == KINDS.index("array")))
        images = len(self._found.files) - arrays
        parts = [f"{images:,} image(s)"] if images else []
        if arrays:
            rows = sum(part.total for part in self._parts if isinstance(part, ArrayReader))
            parts.append(f"{arrays:,} array file(s) with {rows:,} sample(s)")
        if not len(self._found.files):
            parts.append("arrays in memory" + ("" if self.total is None else f" with {self.total:,} sample(s)"))
        if self.ignored:
            parts.append(f"{self.ignored:,} other file(s) ignored")
        return ", ".join(parts)

    @cached_property
    def identity(self) -> dict[str, int | str]:
        """What tells this data from other: `files`, `bytes`, and a `digest` over names and sizes if there are files."""
        files = self._found.files
        return identity(files) if len(files) else {"files": 0, "bytes": 0, "digest": ""}

    @cached_property
    def order(self) -> str:
        """A digest over the order of the files."""
        return order_digest(self._found.files)

    def used(self, selection: Selection, skipped: Collection[str]) -> FileTable:
        """Return the files with samples that `selection` says are done, but for those whose names were skipped."""
        files = self._found.files
        rows = np.concatenate([np.empty(0, np.int64), *self._done(selection)])
        found = files if len(rows) == len(files) else files.select(rows)
        if not skipped:
            return found
        bad = [row for row, entry in enumerate(found.entries()) if printable(entry.where) in skipped]
        return found.select(np.delete(np.arange(len(found)), bad)) if bad else found

    def _done(self, selection: Selection) -> Iterator[Indices]:
        """The rows of the files with samples that are done, part by part."""
        row = start = 0
        for part in self._parts:
            stop = start + (part.total or 0)
            if isinstance(part, ImageReader):
                yield selection.done_among(start, stop) - start + row
                row += len(part.files)
            else:
                yield np.arange(row, row + selection.has_done(start, stop))
                row += 1
            start = stop

    def batches(
        self,
        batch_size: int,
        limit: int | None = None,
        threads: int | None = None,
        selection: Selection | None = None,
    ) -> Generator[Batch, None, None]:
        """Yield batches of `batch_size` samples; those before a change of shape, and the last, may have fewer.

        `limit` counts usable samples, with those that `selection` says are done. `threads` decode images, by default
        one a core. The end raises DataError when no sample, or less than half of them, was usable. Closing the
        generator stops all reading.
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
        """Yield the first `limit` usable samples, in blocks, and record what is skipped on the way."""
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
        check_enough(good, bad, selection)

    def _blocks(self, size: int, threads: int, selection: Selection) -> Generator[Batch | Skipped, None, None]:
        offset = 0
        for part in self._parts:
            with closing(part.blocks(size, threads, _shifted(selection, offset))) as blocks:
                for block in blocks:
                    yield block.shifted(offset)
            offset += part.total or 0


def open_data(
    data: Data, specs: Sequence[InputSpec], options: ImageOptions | None = None, executor: Executor | None = None
) -> Dataset:
    """Return the dataset for a model with the inputs `specs`.

    `options` are about images; arrays are fed as they are. `executor` lists folders, by default this process.
    """
    if not specs:
        raise DataError("the model has no inputs, so there is nothing to calibrate on")
    if isinstance(data, (str, os.PathLike)):
        return _open_files([data], specs, options or ImageOptions(), executor)
    if isinstance(data, Mapping) or hasattr(data, "__array__"):
        return _open_memory([data], specs)
    first, items = _peeked(data)
    if isinstance(first, (str, os.PathLike)):
        return _open_files(items, specs, options or ImageOptions(), executor)
    if isinstance(data, (list, tuple)):
        return _open_memory(list(data), specs)
    return Dataset([IterableReader(items, tuple(specs), None)], DiscoveredFiles(FileTable.of(()), 0), None)


def _open_files(
    paths: Iterable[Any], specs: Sequence[InputSpec], options: ImageOptions, executor: Executor | None
) -> Dataset:
    paths = list(paths)
    for path in paths:
        if not isinstance(path, (str, os.PathLike)):
            raise DataError(f"DATA mixes paths with {type(path).__name__}; give paths only, or arrays only")
    found = discover(paths, executor)
    preprocessing = _image_preprocessing(found.files, specs, options)
    parts: list[Reader] = []
    edges = (np.flatnonzero(np.diff(found.files.kinds)) + 1).tolist()
    for start, stop in pairwise([0, *edges, len(found.files)]):
        group = found.files[start:stop]
        if group[0].kind == "array":
            parts.extend(open_arrays(Path(file.path), specs) for file in group)
        elif preprocessing is not None:
            parts.append(ImageReader(group, specs[0].name, preprocessing))
    return Dataset(parts, found, preprocessing)


def _image_preprocessing(files: FileTable, specs: Sequence[InputSpec], options: ImageOptions) -> Preprocessing | None:
    images = files.kinds == KINDS.index("image")
    if not images.any():
        return None
    if len(specs) > 1:
        names = ", ".join(repr(spec.name) for spec in specs)
        image = files[int(images.argmax())]
        raise DataError(f"{image.path} is an image, but the model has the inputs {names}; give .npz files named so")
    return preprocessing_for(specs[0], options)


def _open_memory(items: list[Any], specs: Sequence[InputSpec]) -> Dataset:
    """Check arrays that are all there at once, and know their number."""
    total = sum(block.count for block in array_blocks(items, specs, "array"))
    return Dataset([IterableReader(items, tuple(specs), total)], DiscoveredFiles(FileTable.of(()), 0), None)


def _peeked(data: Any) -> tuple[object, Iterable[Any]]:
    """Return the first item and all items: `data` itself if it can be read again, else what is left of it."""
    try:
        items = iter(data)
    except TypeError:
        raise DataError(f"DATA is a {type(data).__name__}; give paths, arrays or an iterable of arrays") from None
    for first in items:
        return first, chain([first], items) if items is data else data
    raise DataError("DATA is empty; give images, folders, .npy or .npz files")


def _shifted(selection: Selection, offset: int) -> RowSelector:
    """The selection for a part whose first sample has the index `offset`."""
    return lambda start, stop: selection.among(start + offset, stop + offset) - offset


def check_enough(good: int, bad: Sequence[Skipped], selection: Selection) -> None:
    """Raise DataError when no sample, or less than half of them, could be used."""
    if good >= max(len(bad) + selection.unusable, 1):
        return
    if not bad and selection.shard.count > 1:
        raise DataError(f"shard {selection.shard} holds no sample: DATA has fewer than shards; use fewer shards")
    if not bad:
        raise DataError("DATA held no sample; an iterable that can be read only once must be made anew for each run")
    reasons = "; ".join(f"{item.name}: {item.reason}" for item in bad[:_REASONS_SHOWN])
    more = f"; and {len(bad) - _REASONS_SHOWN} more" if len(bad) > _REASONS_SHOWN else ""
    count = len(bad) + selection.unusable
    raise DataError(f"{count} of {good + count} samples cannot be used: {reasons}{more}")
