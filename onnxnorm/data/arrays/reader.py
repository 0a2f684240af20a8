"""Reads `.npy` and `.npz` files, whose rows are samples."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import tee
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxnorm.data.arrays.fitting import (
    check_dtype,
    check_fit,
    equal_length,
    quoted_names,
    samples_axis,
    shared_names,
    shared_value,
)
from onnxnorm.data.arrays.npy import open_npy, open_npz
from onnxnorm.data.arrays.rows import Rows
from onnxnorm.data.batches import Batch
from onnxnorm.data.files.table import FileTable
from onnxnorm.data.images.options import ImageOptions
from onnxnorm.data.readers import Reader
from onnxnorm.data.selection import Indices, RowSelector, all_rows, stretches, these_rows
from onnxnorm.data.sources import Source
from onnxnorm.errors import DataError
from onnxnorm.model.inputs import LARGEST_VALUE, InputSpec
from onnxnorm.threads import run_ahead

__all__ = ["SOURCE", "ArrayReader", "open_arrays"]

_BLOCKS_AHEAD = 2


@dataclass(frozen=True)
class ArrayReader:
    """Reads a `.npy` or `.npz` file whose rows are samples.

    Attributes:
        path: the file.
        rows: the array of each input name, with `total` rows each.
        dtypes: the dtype of each input.
        total: number of samples in the file.
        selected: the rows to read; None for all.
        shared: the values that all samples share, by the name of their input.
        file_count: one file.
        preprocessing: None, because arrays are fed unchanged.
    """

    path: Path
    rows: Mapping[str, Rows]
    dtypes: Mapping[str, np.dtype[Any]]
    total: int
    selected: Indices | None = None
    shared: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict, compare=False)
    file_count: int = 1
    preprocessing: None = None

    @property
    def sample_bytes(self) -> int:
        """Bytes of one sample, over all inputs."""
        return sum(math.prod(rows.shape[1:]) * self.dtypes[name].itemsize for name, rows in self.rows.items())

    def blocks(
        self,
        size: int,
        threads: int,  # noqa: ARG002 - one thread reads
        selected: RowSelector = all_rows,
    ) -> Generator[Batch, None, None]:
        """Yield the selected samples in order, in blocks of at most `size`, and read the next blocks ahead."""
        rows = selected if self.selected is None else these_rows(self.selected)
        return run_ahead(self._read(size, rows), ahead=_BLOCKS_AHEAD)

    def select(self, rows: Indices) -> ArrayReader:
        """Return a reader of these rows only, with the same indices."""
        return replace(self, selected=rows)

    def _read(self, size: int, selected: RowSelector) -> Generator[Batch, None, None]:
        blocks = tee(_row_blocks(self.total, size, selected), len(self.rows) + 1)
        columns = [
            rows.blocks(numbers, self.dtypes[name])
            for (name, rows), numbers in zip(self.rows.items(), blocks[1:], strict=True)
        ]
        for numbers, *arrays in zip(blocks[0], *columns, strict=True):
            indices = tuple(numbers.tolist())
            names = tuple(f"{self.path}[{index}]" for index in indices)
            yield Batch(dict(zip(self.rows, arrays, strict=True)), len(indices), names, indices)


def open_arrays(path: Path, specs: Sequence[InputSpec]) -> ArrayReader:
    """Open an array file; only headers are read. Raises DataError unless it is readable and fits the model's inputs."""
    rows = {specs[0].name: open_npy(path)} if path.suffix.lower() == ".npy" else _by_input(path, open_npz(path), specs)
    if len(rows) != len(specs):
        raise DataError(
            f"{path} holds one array, but the model has the inputs {quoted_names(specs)}; give a .npz file with an "
            "array for each, or one value for all samples with --input NAME=VALUE"
        )
    names = shared_names(specs, {name: array.shape for name, array in rows.items()})
    shared = {}
    for spec in specs:
        where, array = str(path) if len(specs) == 1 else f"{path}[{spec.name!r}]", rows[spec.name]
        if spec.name in names:
            shared[spec.name] = shared_value(spec, _whole(rows.pop(spec.name), spec, where), where)
            continue
        rows[spec.name] = array = array.along(samples_axis(spec, array.shape))
        check_fit(spec, array.shape, array.dtype, where)
    if not rows:
        raise DataError(f"{path} holds no array with an axis for samples; at least one input must differ among them")
    lengths = {name: array.shape[0] for name, array in rows.items()}
    dtypes = {spec.name: spec.dtype for spec in specs}
    return ArrayReader(path, rows, dtypes, equal_length(lengths, str(path)), shared=shared)


def _whole(rows: Rows, spec: InputSpec, where: str) -> npt.NDArray[Any]:
    """Read an array that holds one value. NumPy stores bfloat16 and similar types as void bytes."""
    if math.prod(rows.shape) * rows.dtype.itemsize > LARGEST_VALUE:
        raise DataError(f"{where}: its shape is {rows.shape}, more than one value for all samples may have")
    if rows.dtype.kind != "V":
        return rows.whole(rows.dtype.newbyteorder("="))
    check_dtype(spec, rows.dtype, where)
    return rows.whole(spec.dtype)


def _row_blocks(total: int, size: int, selected: RowSelector) -> Iterator[Indices]:
    """Yield blocks of at most `size` selected rows; a block ends where a stretch ends."""
    for rows in stretches(total, selected):
        for start in range(0, len(rows), size):
            yield rows[start : start + size]


def _by_input(path: Path, arrays: dict[str, Rows], specs: Sequence[InputSpec]) -> dict[str, Rows]:
    """Return the array of each input. A single array is used for a single input, whatever its name."""
    if len(specs) == len(arrays) == 1:
        return {specs[0].name: next(iter(arrays.values()))}
    missing = [spec for spec in specs if spec.name not in arrays]
    if missing:
        have = ", ".join(map(repr, arrays)) or "nothing"
        raise DataError(f"{path} holds {have}, but no array for {quoted_names(missing)}; name each array as its input")
    return {spec.name: arrays[spec.name] for spec in specs}


def _open(files: FileTable, specs: Sequence[InputSpec], options: ImageOptions) -> list[Reader]:
    del options
    return [open_arrays(Path(file.path), specs) for file in files]


def _describe(count: int, readers: Sequence[Reader]) -> str:
    return f"{count:,} array file(s) with {sum(reader.total or 0 for reader in readers):,} sample(s)"


SOURCE = Source(
    kind="array",
    one="a .npy or .npz file",
    files=".npy or .npz files",
    endings=lambda: frozenset({".npy", ".npz"}),
    remote=False,  # array files are memory-mapped, which needs local files
    open=_open,
    describe=_describe,
)
