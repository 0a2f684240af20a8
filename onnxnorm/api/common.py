"""What the verbs share: words, samples, and what models and statistics may be given as."""

from __future__ import annotations

import os
from collections.abc import Generator, Mapping
from contextlib import closing
from typing import Any, TypedDict

from numpy.typing import NDArray

from onnxnorm.calibration.step import DEFAULT_BATCH, fixed_batch, pad_batch
from onnxnorm.data.dataset import Dataset
from onnxnorm.data.images.options import Numbers, Size, parsed_size
from onnxnorm.model.files import Model
from onnxnorm.model.graph import input_specs
from onnxnorm.model.shapes import sample_shapes
from onnxnorm.statistics import Statistics

__all__ = ["SAMPLES", "Feeds", "ImageWords", "StatisticsLike", "feeds_of", "loaded", "shapes_of"]

StatisticsLike = str | os.PathLike[str] | Statistics
Feeds = Mapping[str, NDArray[Any]]

# What a verification by default runs on: this many random samples, and of real ones if there are any.
SAMPLES = 8


class ImageWords(TypedDict, total=False):
    """How images become inputs; see the options of the same names."""

    preset: str | None
    size: Size | None
    resize: str
    mean: Numbers | None
    std: Numbers | None
    channels: str | None
    layout: str


def loaded(statistics: StatisticsLike) -> Statistics:
    """Statistics from a path, or as they are."""
    return statistics if isinstance(statistics, Statistics) else Statistics.load(statistics)


def shapes_of(model: Model, size: Size | None) -> dict[str, tuple[int, ...]]:
    """Input shapes of one sample, of `size` where the model leaves it open."""
    return sample_shapes(input_specs(model), None if size is None else parsed_size(size))


def feeds_of(
    model: Model, dataset: Dataset, batch_size: int | None, limit: int | None, counts: list[int] | None = None
) -> Generator[Feeds, None, None]:
    """Batches of a dataset; a model with a fixed batch gets the last sample again to fill the last one.

    `counts` gets the number of samples of each batch, without those.
    """
    fixed = fixed_batch(input_specs(model))
    with closing(dataset.batches(fixed or batch_size or DEFAULT_BATCH, limit)) as batches:
        for batch in batches:
            if counts is not None:
                counts.append(batch.count)
            yield {name: pad_batch(array, fixed or batch.count) for name, array in batch.feeds.items()}
