"""Arrays that already hold preprocessed inputs: do they fit the model, and which belongs to which input.

An array has the shape (N, *input shape without batch), in the model's own layout and dtype: it is fed as it is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import tee
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxnorm.data.arrays.npy import Rows, open_npy, open_npz
from onnxnorm.data.batches import Batch
from onnxnorm.data.selection import Indices
from onnxnorm.errors import DataError
from onnxnorm.model.inputs import InputSpec
from onnxnorm.threads import run_ahead

__all__ = [
    "ArrayItem",
    "ArrayReader",
    "RowSelector",
    "all_rows",
    "array_blocks",
    "check_fit",
    "only",
    "open_arrays",
    "stretches",
]

ArrayItem = npt.NDArray[Any] | Mapping[str, npt.NDArray[Any]]
"""A batch in memory: (n, *sample) for a model with one input, else input name -> (n, *sample)."""

_BLOCKS_AHEAD = 2


# Row numbers are made for a stretch of this many rows at a time.
_STRETCH = 65536

RowSelector = Callable[[int, int], Indices]
"""The wanted samples among those from start to stop, ascending."""


def all_rows(start: int, stop: int) -> Indices:
    """All samples are wanted."""
    return np.arange(start, stop, dtype=np.int64)


def only(rows: Indices) -> RowSelector:
    """These samples are wanted."""
    return lambda start, stop: rows[np.searchsorted(rows, start) : np.searchsorted(rows, stop)]


def stretches(total: int, wanted: RowSelector) -> Iterator[Indices]:
    """The wanted samples of `total`, a stretch at a time."""
    for start in range(0, total, _STRETCH):
        yield wanted(start, min(start + _STRETCH, total))


@dataclass(frozen=True)
class ArrayReader:
    """A `.npy` or `.npz` file whose rows are samples; `rows` are by input name, of equal length `total`."""

    path: Path
    rows: Mapping[str, Rows]
    dtypes: Mapping[str, np.dtype[Any]]
    total: int
    chosen: Indices | None = None
    """The only rows there are to be; None: all."""

    @property
    def sample_bytes(self) -> int:
        """Bytes of one sample, all its inputs together."""
        return sum(math.prod(rows.shape[1:]) * self.dtypes[name].itemsize for name, rows in self.rows.items())

    def blocks(
        self,
        size: int,
        threads: int,  # noqa: ARG002 - one reader is enough
        wanted: RowSelector = all_rows,
    ) -> Generator[Batch, None, None]:
        """Yield the wanted samples in order, `size` at a time; the next blocks are read meanwhile."""
        return run_ahead(self._read(size, wanted if self.chosen is None else only(self.chosen)), ahead=_BLOCKS_AHEAD)

    def select(self, rows: Indices) -> ArrayReader:
        """Return a part with only these rows."""
        return replace(self, chosen=rows)

    def _read(self, size: int, wanted: RowSelector) -> Generator[Batch, None, None]:
        chosen = tee(_row_blocks(self.total, size, wanted), len(self.rows) + 1)
        columns = [
            rows.blocks(numbers, self.dtypes[name])
            for (name, rows), numbers in zip(self.rows.items(), chosen[1:], strict=True)
        ]
        for numbers, *arrays in zip(chosen[0], *columns, strict=True):
            indices = tuple(numbers.tolist())
            names = tuple(f"{self.path}[{index}]" for index in indices)
            yield Batch(dict(zip(self.rows, arrays, strict=True)), len(indices), names, indices)


def open_arrays(path: Path, specs: Sequence[InputSpec]) -> ArrayReader:
    """Return the array file, once its head is known to fit the model's inputs."""
    rows = {specs[0].name: open_npy(path)} if path.suffix.lower() == ".npy" else _chosen(path, open_npz(path), specs)
    if len(rows) != len(specs):
        raise DataError(f"{path} holds one array, but the model has the inputs {_names(specs)}; give a .npz file")
    for spec in specs:
        where = str(path) if len(specs) == 1 else f"{path}[{spec.name!r}]"
        check_fit(spec, rows[spec.name].shape, rows[spec.name].dtype, where)
    lengths = {name: array.shape[0] for name, array in rows.items()}
    return ArrayReader(path, rows, {spec.name: spec.dtype for spec in specs}, _equal_length(lengths, str(path)))


def array_blocks(
    items: Iterable[ArrayItem], specs: Sequence[InputSpec], what: str, wanted: RowSelector = all_rows
) -> Generator[Batch, None, None]:
    """Yield the wanted samples of arrays that are in memory, or come from an iterable, one block each.

    `what` names them in errors and as the samples' origin.
    """
    start = 0
    for index, item in enumerate(items):
        block = _block(item, specs, f"{what}, batch {index}", (what, start))
        rows = wanted(start, start + block.count)
        start += block.count
        if len(rows) == block.count:
            yield block
        elif len(rows):
            yield block.select(rows - (start - block.count))


def check_fit(spec: InputSpec, shape: tuple[int, ...], dtype: np.dtype[Any], where: str) -> None:
    """Refuse an array that the input `spec` does not take as it is."""
    expected = spec.shape[1:]
    if not spec.shape:
        raise DataError(f"input {spec} has no batch axis, so it cannot be fed from an array of samples")
    fits = len(shape) == len(spec.shape) and all(
        want in {None, have} for want, have in zip(expected, shape[1:], strict=True)
    )
    if not fits:
        wanted = ", ".join("any" if side is None else str(side) for side in expected)
        raise DataError(
            f"{where}: its shape is {shape}, but input {spec.name!r} takes (N, {wanted}); "
            "arrays hold N preprocessed samples in the model's own layout"
        )
    if 0 in shape:
        raise DataError(f"{where}: its shape is {shape}; it must hold at least one sample")
    if not _same_dtype(dtype, spec.dtype):
        raise DataError(
            f"{where}: its dtype is {dtype}, but input {spec.name!r} takes {spec.dtype}; "
            f"preprocess as the model expects, and save with array.astype({str(spec.dtype)!r})"
        )


def _row_blocks(total: int, size: int, wanted: RowSelector) -> Iterator[Indices]:
    """Blocks of `size` wanted rows; blocks end where a stretch does."""
    for rows in stretches(total, wanted):
        for start in range(0, len(rows), size):
            yield rows[start : start + size]


def _same_dtype(found: np.dtype[Any], expected: np.dtype[Any]) -> bool:
    """Byte order aside. NumPy stores bfloat16 and its kin as void bytes of that length."""
    if found.kind == expected.kind == "V" and found.names is None:
        return found == expected or (found.type is np.void and found.itemsize == expected.itemsize)
    return found.newbyteorder("=") == expected


def _chosen(path: Path, arrays: dict[str, Rows], specs: Sequence[InputSpec]) -> dict[str, Rows]:
    """Return the array of each input; a lone array of any name will do for a lone input."""
    if len(specs) == len(arrays) == 1:
        return {specs[0].name: next(iter(arrays.values()))}
    missing = [spec for spec in specs if spec.name not in arrays]
    if missing:
        have = ", ".join(map(repr, arrays)) or "nothing"
        raise DataError(f"{path} holds {have}, but no array for {_names(missing)}; name each array as its input")
    return {spec.name: arrays[spec.name] for spec in specs}


def _block(item: ArrayItem, specs: Sequence[InputSpec], where: str, origin: tuple[str, int]) -> Batch:
    given = item if isinstance(item, Mapping) else {specs[0].name: item}
    missing = [spec for spec in specs if spec.name not in given]
    if missing:
        raise DataError(f"{where}: no array for {_names(missing)}; give a dict of input name -> array")
    feeds = {}
    for spec in specs:
        array = _as_array(given[spec.name], where)
        check_fit(spec, array.shape, array.dtype, where)
        feeds[spec.name] = array if array.dtype == spec.dtype else array.astype(spec.dtype)
    count = _equal_length({name: len(array) for name, array in feeds.items()}, where)
    name, start = origin
    indices = tuple(range(start, start + count))
    return Batch(feeds, count, tuple(f"{name}[{index}]" for index in indices), indices)


def _as_array(value: object, where: str) -> npt.NDArray[Any]:
    if not hasattr(value, "__array__"):
        raise DataError(f"{where} is a {type(value).__name__}; give an array, or a dict of input name -> array")
    return np.asarray(value)


def _equal_length(lengths: Mapping[str, int], where: str) -> int:
    if len(set(lengths.values())) != 1:
        raise DataError(f"{where}: its arrays differ in the number of samples ({dict(lengths)}); they must be equal")
    return next(iter(lengths.values()))


def _names(specs: Sequence[InputSpec]) -> str:
    return ", ".join(repr(spec.name) for spec in specs)
