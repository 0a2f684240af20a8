"""Reads data in memory: arrays, images of Pillow, and iterables of them such as a DataLoader, one item after the other.

An item is an array `(n, *sample)`, or a dict of them by input name; an image, or a list of images; or a tuple or list
that begins with one of these, as a DataLoader yields images with their labels. Tensors of PyTorch are arrays. For a
model with one input, an array may also be a single sample, or an image: bytes of shape `(height, width, 3)`.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any, TypeGuard

import numpy as np
import numpy.typing as npt
from PIL import Image

from onnxnorm.data.arrays.fitting import (
    check_fit,
    equal_length,
    quoted_names,
    samples_axis,
    shared_names,
    shared_value,
)
from onnxnorm.data.batches import Batch, Skipped
from onnxnorm.data.images.choosing import recipe_for
from onnxnorm.data.images.options import ImageOptions
from onnxnorm.data.images.preprocessing import Recipe
from onnxnorm.data.selection import Indices, RowSelector, all_rows, these_rows
from onnxnorm.errors import DataError
from onnxnorm.model.inputs import InputSpec, fits

__all__ = ["Item", "IterableReader", "MemoryReader", "is_item", "length", "memory_reader", "peeked"]

Item = npt.NDArray[Any] | Mapping[str, npt.NDArray[Any]] | Image.Image | Sequence[Any]
"""A batch in memory, as the head of this module says."""


@dataclass(frozen=True)
class IterableReader:
    """Reads items in memory, each as one block.

    Attributes:
        items: the items.
        specs: the inputs that have a value for every sample.
        total: number of samples; None if it is not known.
        shared: the values that all samples share, by the name of their input.
        preprocessing: how images become samples; None if there are no images.
        alone: whether there is one item only, which was not in a list.
    """

    items: Iterable[Item]
    specs: tuple[InputSpec, ...]
    total: int | None
    shared: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict, compare=False)
    preprocessing: Recipe | None = None
    alone: bool = False
    sample_bytes: int | None = None
    file_count: int = 0

    def blocks(
        self,
        size: int,  # noqa: ARG002 - the items are in memory
        threads: int,  # noqa: ARG002
        selected: RowSelector = all_rows,
    ) -> Generator[Batch | Skipped, None, None]:
        """Yield the selected samples of each item."""
        start = 0
        for number, given in enumerate(self.items):
            item = _samples(given, self.specs, alone=self.alone)
            where = f"array, batch {number}"
            if isinstance(item, list):
                rows = selected(start, start + len(item)) - start
                yield from (self._image(item[row], start + row) for row in rows.tolist())
                start += len(item)
                continue
            block = self._array(item, where, start)
            rows = selected(start, start + block.count) - start
            start += block.count
            if len(rows):
                yield block if len(rows) == block.count else block.select(rows)

    def select(self, rows: Indices) -> MemoryReader:
        """Return a reader of these samples only, with the same indices."""
        return MemoryReader(tuple(self.blocks(1, 1, these_rows(rows))), self.preprocessing)

    def counted(self) -> int:
        """Check all items that hold arrays, and return the number of samples."""
        total = 0
        for number, given in enumerate(self.items):
            item = _samples(given, self.specs, alone=self.alone)
            total += len(item) if isinstance(item, list) else self._array(item, f"array, batch {number}", total).count
        return total

    def _image(self, image: Image.Image, index: int) -> Batch | Skipped:
        name = f"image[{index}]"
        if self.preprocessing is None:
            raise DataError(f"{name} follows arrays, which are fed as they are; give only images, or only arrays")
        try:
            sample = self.preprocessing(image)
        except DataError as error:  # a transform of the user's own
            raise DataError(f"{error}; at {name}") from error
        except (OSError, ValueError) as error:
            return Skipped(name, str(error), index)
        return Batch({self.specs[0].name: sample[None]}, 1, (name,), (index,))

    def _array(self, item: Any, where: str, start: int) -> Batch:
        if self.preprocessing is not None:
            raise DataError(f"{where} follows images; give only images, or only arrays, which are fed as they are")
        arrays = _by_input(item, (*self.specs,), where)
        feeds = {}
        for spec in self.specs:
            array = arrays[spec.name]
            array = np.moveaxis(array, samples_axis(spec, array.shape), 0) if array.ndim else array
            check_fit(spec, array.shape, array.dtype, where)
            feeds[spec.name] = array if array.dtype == spec.dtype else array.astype(spec.dtype)
        self._check_shared(item, where)
        count = equal_length({name: len(array) for name, array in feeds.items()}, where)
        indices = tuple(range(start, start + count))
        return Batch(feeds, count, tuple(f"array[{index}]" for index in indices), indices)

    def _check_shared(self, item: Any, where: str) -> None:
        for name, value in self.shared.items():
            other = _as_array(item[name], where) if isinstance(item, Mapping) and name in item else value
            if other.size != value.size or not np.array_equal(other.reshape(value.shape), value):
                raise DataError(f"{where}: input {name!r} has another value than before, which all samples share")


@dataclass(frozen=True)
class MemoryReader:
    """Yields blocks that are in memory already."""

    items: tuple[Batch | Skipped, ...]
    preprocessing: Recipe | None = None
    sample_bytes: int | None = None
    file_count: int = 0

    @property
    def total(self) -> int:
        """Number of samples."""
        return sum(block.count if isinstance(block, Batch) else 1 for block in self.items)

    def blocks(
        self,
        size: int,  # noqa: ARG002 - the blocks are in memory
        threads: int,  # noqa: ARG002
        selected: RowSelector = all_rows,  # noqa: ARG002 - `select` has selected already
    ) -> Generator[Batch | Skipped, None, None]:
        """Yield all blocks."""
        yield from self.items

    def select(self, rows: Indices) -> MemoryReader:
        """Return a reader of these samples only, with the same indices."""
        kept: list[Batch | Skipped] = []
        for block in self.items:
            if isinstance(block, Skipped):
                kept += [block] if block.index in rows else []
            elif len(at := np.flatnonzero(np.isin(block.indices, rows))):
                kept.append(block.select(at))
        return MemoryReader(tuple(kept), self.preprocessing)


def memory_reader(
    items: Iterable[Item],
    first: object,
    specs: Sequence[InputSpec],
    options: ImageOptions,
    *,
    count: bool,
    alone: bool = False,
) -> IterableReader:
    """Return the reader of items in memory.

    Args:
        items: the items.
        first: the first of them.
        specs: the inputs that are not given otherwise.
        options: how images become samples.
        count: whether to check and count all items; they must not be an iterator then.
        alone: whether the first is the only one, and was not given in a list.

    Raises:
        DataError: if an item does not fit the model.
    """
    item = _samples(first, specs, alone=alone)
    if isinstance(item, list):
        if len(specs) > 1:
            raise DataError(
                f"DATA are images, but the model has the inputs {quoted_names(specs)}; give the others with "
                "input={name: value} (--input), or give a dict of arrays"
            )
        reader = IterableReader(items, tuple(specs), None, preprocessing=recipe_for(specs[0], options))
    else:
        arrays = _by_input(item, specs, "array, batch 0")
        names = shared_names(specs, {name: array.shape for name, array in arrays.items()})
        shared = {
            spec.name: shared_value(spec, arrays[spec.name], "array, batch 0") for spec in specs if spec.name in names
        }
        read = tuple(spec for spec in specs if spec.name not in shared)
        if not read:
            raise DataError("DATA holds no array with an axis for samples; at least one input must differ among them")
        reader = IterableReader(items, read, None, shared, alone=alone)
    return replace(reader, total=reader.counted()) if count else reader


def is_item(data: object) -> TypeGuard[Item]:
    """Whether this is one item, and not an iterable of items."""
    return isinstance(data, (Mapping, Image.Image)) or hasattr(data, "__array__")


def length(item: Any) -> int:
    """Number of samples in an item of DATA, without checks; what is none, such as a path, counts as one."""
    item = _unwrapped(item)
    if isinstance(item, Mapping):
        item = max(item.values(), key=np.ndim, default=())
    if not hasattr(item, "__len__") or isinstance(item, (str, bytes)) or not np.ndim(item):
        return 1
    return 1 if getattr(item, "ndim", 0) in {2, 3} and _is_pixels(np.asarray(item)) else len(item)


def peeked(data: Any) -> tuple[object, Iterable[Any]]:
    """Return the first item, and an iterable of all items: `data` itself if it can be iterated over again."""
    try:
        items = iter(data)
    except TypeError:
        what = "give paths, arrays or images, or an iterable of them"
        raise DataError(f"DATA is a {type(data).__name__}; {what}") from None
    for first in items:
        return first, chain([first], items) if items is data else data
    raise DataError("DATA is empty; give images, folders, .npy or .npz files")


def _samples(given: Any, specs: Sequence[InputSpec], *, alone: bool) -> Any:
    """An item as `_unwrapped` returns it. For a single input an array may also be an image, or one sample of several.

    An array that is `alone` must have an axis for the samples.
    """
    item = _unwrapped(given)
    if len(specs) > 1 or isinstance(item, (list, Mapping)) or not hasattr(item, "__array__"):
        return item
    spec, array = specs[0], _as_array(item, "DATA")
    if _is_pixels(array) and len(spec.shape) == 4:
        return [Image.fromarray(array[..., 0] if array.shape[2:] == (1,) else array)]
    return array[None] if spec.batch == 0 and not alone and fits(array.shape, spec.sample) else array


def _is_pixels(array: npt.NDArray[Any]) -> bool:
    """Whether an array holds an image as other libraries have them: of bytes, with its colours on the last axis."""
    return array.dtype == np.uint8 and array.size > 0 and (array.ndim == 2 or array.shape[2:] in {(1,), (3,), (4,)})


def _unwrapped(item: Any) -> Any:
    """An array, a dict of arrays, or a list of images; what stands behind them in a tuple or list is left out."""
    if isinstance(item, Image.Image):
        return [item]
    if not isinstance(item, (tuple, list)) or not item:
        return item
    heads = [part[0] if isinstance(part, (tuple, list)) and part else part for part in item]
    if all(isinstance(head, Image.Image) for head in heads):
        return heads
    return _unwrapped(item[0])


def _by_input(item: Any, specs: Sequence[InputSpec], where: str) -> dict[str, npt.NDArray[Any]]:
    """The array of each input. Raises DataError if there is none."""
    given = item if isinstance(item, Mapping) else {specs[0].name: item}
    missing = [spec for spec in specs if spec.name not in given]
    if missing:
        raise DataError(
            f"{where}: no array for {quoted_names(missing)}; give a dict of input name -> array, or one value for all "
            f"samples with input={{{missing[0].name!r}: value}} (--input)"
        )
    return {spec.name: _as_array(given[spec.name], where) for spec in specs}


def _as_array(value: Any, where: str) -> npt.NDArray[Any]:
    if hasattr(value, "detach") and hasattr(value, "cpu"):
        value = value.detach().cpu()  # a tensor of PyTorch, perhaps on a device or with a gradient
    if not hasattr(value, "__array__") and not isinstance(value, (int, float)):
        raise DataError(f"{where} is a {type(value).__name__}; give an array, or a dict of input name -> array")
    try:
        return np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(f"{where} cannot become an array ({error}); convert it to float32 first") from error
