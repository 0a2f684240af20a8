"""Helpers that the functions of the API share: output checks, inputs in several forms, and comparisons."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxnorm.atomic import check_target
from onnxnorm.data.batches import Batch, check_batch, model_feeds, usual_batch
from onnxnorm.data.dataset import Dataset
from onnxnorm.data.files.expansion import expanded, list_file
from onnxnorm.data.images.options import Size, parsed_size
from onnxnorm.data.remote import is_uri
from onnxnorm.data.sources import kind_of
from onnxnorm.errors import OptionError
from onnxnorm.model.files import Model, ModelLike
from onnxnorm.model.functions import inlined
from onnxnorm.model.graph import input_specs
from onnxnorm.model.shapes import assumed_shapes
from onnxnorm.rewriting import output_scales
from onnxnorm.rewriting.options import FilterOptions
from onnxnorm.runtime import Runtime
from onnxnorm.statistics import Statistics
from onnxnorm.verification import Fp16, HeadroomMeter, Verification, verify_models

__all__ = [
    "SAMPLES",
    "Comparison",
    "Feeds",
    "StatisticsLike",
    "batches_of",
    "check_output",
    "load_statistics",
    "open_model",
    "sample_shapes_of",
]

StatisticsLike = str | os.PathLike[str] | Statistics
Feeds = Mapping[str, NDArray[Any]]

# By default a verification runs on this many random samples, and on as many samples of the data if there is any.
SAMPLES = 8


def check_output(output: str | os.PathLike[str], model: Model, *inputs: object, in_place: bool | None = None) -> None:
    """Check that a file can be written and that it is not an input.

    Args:
        output: the file to write.
        model: the model that is read.
        *inputs: other inputs; a folder stands for the data files in it.
        in_place: whether the output, which will be a model in the same layout, may be the model itself; None if the
            output is something else.

    Raises:
        OptionError: if it cannot be written, or is an input.
        ModelError: if the data files of the model cannot be written beside it.
    """
    check_target(output, () if in_place else model.files, "" if in_place is None else ", or allow it with --in-place")
    check_target(output, inputs)
    check_target(output, (file for item in inputs for file in _behind(item)))
    if in_place is not None:
        model.check_target(Path(output))
    path = Path(output).resolve()
    for item in inputs:
        if isinstance(item, (str, os.PathLike)) and not is_uri(item) and path.exists() and kind_of(path.name):
            folder = Path(item).resolve()
            if folder in path.parents:
                what = f"it is an input (in {folder}) and would be lost"
                raise OptionError(f"cannot write {output}: {what}; give another name")


def _behind(item: object) -> Iterator[str | os.PathLike[str]]:
    """The files that an item of DATA stands for: a list of files and those it names, or what a pattern matches."""
    if not isinstance(item, (str, os.PathLike)) or is_uri(item):
        return
    name = list_file(item)
    if name == "-":
        return  # it can be read only once
    if name is not None:
        yield name
    yield from (given.path for given in expanded([item]) if given.path != item)


def open_model(model: ModelLike, options: FilterOptions) -> Model:
    """Open a model to be planned or rewritten: functions that hold layers inlined, its inputs as the options say."""
    return replace(inlined(Model.open(model)), inputs_as_constants=options.inputs_as_constants)


def load_statistics(statistics: StatisticsLike) -> Statistics:
    """Load statistics if they are given as a path."""
    return statistics if isinstance(statistics, Statistics) else Statistics.load(statistics)


def sample_shapes_of(model: Model, size: Size | None = None) -> dict[str, tuple[int, ...]]:
    """Input shapes of one sample, by name; images have `size` where the model leaves their size open."""
    return assumed_shapes(model, None if size is None else parsed_size(size))


def batches_of(
    model: Model, dataset: Dataset, batch_size: int | None, limit: int | None
) -> Generator[Batch, None, None]:
    """Yield the batches of a dataset, padded with copies of the last sample to the batch size that the model fixes.

    Args:
        model: the model that is fed.
        dataset: the samples.
        batch_size: samples per batch if the model leaves that open; None for the default.
        limit: number of samples after which to stop; None for all.

    Yields:
        Batches whose `count` is the number of samples without padding.

    Raises:
        OptionError: if the model fixes another batch size than was asked for.
    """
    specs = input_specs(model)
    fixed = check_batch(model, batch_size)
    with closing(dataset.batches(fixed or usual_batch(model, batch_size), limit)) as batches:
        for batch in batches:
            yield replace(batch, feeds=model_feeds(specs, batch.feeds, fixed or batch.count))


@dataclass(frozen=True)
class Comparison:
    """Two models to compare, the runtime and the tolerance for that, and whether to compare them in float16 too.

    `known` is what a calibration stored about their ranges, which are then not measured again.
    """

    original: Model
    rewritten: Model
    runtime: Runtime
    tolerance: float | None
    fp16: bool
    known: Fp16 | None = None

    def on_feeds(self, feeds: Iterable[Feeds]) -> Verification:
        """Compare the models on these inputs; if `fp16` is set, the verdict includes the headroom in float16."""
        scales: dict[str, NDArray[np.float64]] = output_scales(self.rewritten, self.original)
        meter = self._meter(scales) if self.fp16 else None
        watched = meter.watching(feeds) if meter else feeds
        verification = verify_models(
            self.original, self.rewritten, watched, scales=scales, tolerance=self.tolerance, runtime=self.runtime
        )
        return replace(verification, fp16=meter.result()) if meter else verification

    def _meter(self, scales: Mapping[str, NDArray[np.float64]]) -> HeadroomMeter:
        return HeadroomMeter(self.original, self.rewritten, self.runtime, scales, self.known)

    def on_data(self, dataset: Dataset, batch_size: int | None, limit: int | None) -> Verification:
        """Compare the models on a dataset."""
        samples = 0

        def counted(batches: Iterable[Batch]) -> Iterable[Feeds]:
            nonlocal samples
            for batch in batches:
                samples += batch.count
                yield batch.feeds

        with closing(batches_of(self.original, dataset, batch_size, limit)) as batches:
            verification = self.on_feeds(counted(batches))
        recipe = dataset.preprocessing
        return replace(verification, samples=samples, preprocessing=recipe.to_json() if recipe else None)
