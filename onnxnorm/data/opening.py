"""DATA, whatever it is, becomes a `Dataset`: what it is and whether it fits the model, from no more than headers."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np

from onnxnorm.data.dataset import Dataset
from onnxnorm.data.files.discovery import discover
from onnxnorm.data.files.listing import Executor
from onnxnorm.data.images.folded import without_folded
from onnxnorm.data.images.options import ImageOptions
from onnxnorm.data.memory import Item, is_item, memory_reader, peeked
from onnxnorm.data.readers import Reader
from onnxnorm.data.sources import sources
from onnxnorm.errors import DataError
from onnxnorm.model.files import Model
from onnxnorm.model.graph import input_specs
from onnxnorm.model.inputs import InputSettings, InputSpec, read_specs

__all__ = ["Data", "open_data", "open_inputs"]

PathLike: TypeAlias = str | os.PathLike[str]
Data: TypeAlias = PathLike | Item | Iterable[PathLike] | Iterable[Item]
"""One or more paths; an array (N, *sample) or a dict of arrays by input name, or an image; or an iterable of those."""


def open_inputs(
    model: Model, data: Data | Dataset, options: ImageOptions | None = None, executor: Executor | None = None
) -> tuple[Model, Dataset]:
    """Open DATA for the inputs of a model that have a value for every sample.

    Args:
        model: the model; inputs that its settings give a value are not read.
        data: as for `open_data`, or a dataset that is open already.
        options: how images become samples.
        executor: what lists folders; by default threads of this process.

    Returns:
        The model, whose settings now also have the values that DATA gives for all samples, and the dataset.
    """
    dataset = data
    if not isinstance(dataset, Dataset):
        specs = input_specs(model)
        if specs and not read_specs(specs):
            raise DataError("every input has one value for all samples, so DATA has nothing to add; leave one to DATA")
        dataset = open_data(dataset, read_specs(specs), without_folded(model, options), executor)
    return model.fed(InputSettings(values=dataset.shared)), dataset


def open_data(
    data: Data, specs: Sequence[InputSpec], options: ImageOptions | None = None, executor: Executor | None = None
) -> Dataset:
    """Return the dataset for a model with the inputs `specs`.

    Args:
        data: files, folders, URIs or arrays.
        specs: the inputs of the model that have a value for every sample.
        options: how images become samples; arrays are fed as they are.
        executor: what lists folders; by default threads of this process.

    Raises:
        DataError: if the data cannot be read, or does not fit the model.
        OptionError: if an option does not fit the model.
    """
    if not specs:
        raise DataError("the model has no inputs, so there is nothing to calibrate on")
    if isinstance(data, (str, os.PathLike)):
        return _open_files([data], specs, options or ImageOptions(), executor)
    options = options or ImageOptions()
    if is_item(data):
        return Dataset([memory_reader([data], data, specs, options, count=True, alone=True)])
    first, items = peeked(data)
    if isinstance(first, (str, os.PathLike)):
        return _open_files(items, specs, options, executor)
    return Dataset([memory_reader(items, first, specs, options, count=isinstance(data, (list, tuple)))])


def _open_files(
    paths: Iterable[Any], specs: Sequence[InputSpec], options: ImageOptions, executor: Executor | None
) -> Dataset:
    """Open files; consecutive files of one kind are opened together."""
    paths = list(paths)
    for path in paths:
        if not isinstance(path, (str, os.PathLike)):
            raise DataError(f"DATA mixes paths with {type(path).__name__}; give paths only, or arrays only")
    discovered = discover(paths, executor)
    files, readers, kinds = discovered.files, list[Reader](), list[int]()
    edges = (np.flatnonzero(np.diff(files.kinds)) + 1).tolist()
    for start, stop in pairwise([0, *edges, len(files)]):
        kind = int(files.kinds[start])
        opened = sources()[kind].open(files[start:stop], specs, options)
        readers += opened
        kinds += [kind] * len(opened)
    return Dataset(readers, discovered, kinds)
