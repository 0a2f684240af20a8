"""Arrays that already hold preprocessed inputs: do they fit the model, and which belongs to which input.

An array has the shape (N, *input shape without batch), in the model's own layout and dtype: it is fed as it is.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxnorm.calibration.batches import Batch
from onnxnorm.calibration.npy import Rows, open_npy, open_npz
from onnxnorm.calibration.prefetch import run_ahead
from onnxnorm.errors import DataError
from onnxnorm.model.inputs import InputSpec

__all__ = ["ArrayFile", "ArrayItem", "array_blocks", "check_fit", "open_arrays"]

ArrayItem = npt.NDArray[Any] | Mapping[str, npt.NDArray[Any]]
"""A batch in memory: (n, *sample) for a model with one input, else input name -> (n, *sample)."""

_BLOCKS_AHEAD = 2


@dataclass(frozen=True)
class ArrayFile:
    """A `.npy` or `.npz` file whose rows are samples; `rows` are by input name, of equal length `total`."""

    path: Path
    rows: Mapping[str, Rows]
    dtypes: Mapping[str, np.dtype[Any]]
    total: int

    def blocks(self, size: int, threads: int) -> Generator[Batch, None, None]:  # noqa: ARG002 - one reader is enough
        """Yield the samples in order, `size` at a time; the next blocks are read meanwhile."""
        return run_ahead(self._read(size), ahead=_BLOCKS_AHEAD)

    def _read(self, size: int) -> Generator[Batch, None, None]:
        columns = [rows.blocks(size, self.dtypes[name]) for name, rows in self.rows.items()]
        start = 0
        for arrays in zip(*columns, strict=True):
            count = len(arrays[0])
            names = tuple(f"{self.path}[{index}]" for index in range(start, start + count))
            yield Batch(dict(zip(self.rows, arrays, strict=True)), count, names)
            start += count


def open_arrays(path: Path, specs: Sequence[InputSpec]) -> ArrayFile:
    """Return the array file, once its head is known to fit the model's inputs."""
    rows = {specs[0].name: open_npy(path)} if path.suffix.lower() == ".npy" else _chosen(path, open_npz(path), specs)
    if len(rows) != len(specs):
        raise DataError(f"{path} holds one array, but the model has the inputs {_names(specs)}; give a .npz file")
    for spec in specs:
        where = str(path) if len(specs) == 1 else f"{path}[{spec.name!r}]"
        check_fit(spec, rows[spec.name].shape, rows[spec.name].dtype, where)
    lengths = {name: array.shape[0] for name, array in rows.items()}
    return ArrayFile(path, rows, {spec.name: spec.dtype for spec in specs}, _equal_length(lengths, str(path)))


def array_blocks(items: Iterable[ArrayItem], specs: Sequence[InputSpec], what: str) -> Generator[Batch, None, None]:
    """Yield arrays that are in memory, or come from an iterable, one block each.

    `what` names them in errors and as the samples' origin.
    """
    start = 0
    for index, item in enumerate(items):
        block = _block(item, specs, f"{what}, batch {index}", (what, start))
        start += block.count
        yield block


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
    return Batch(feeds, count, tuple(f"{name}[{index}]" for index in range(start, start + count)))


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
