"""The local engine: images → batches → session → moments.

`Calibration` holds what one run needs; `step` measures one batch and is pure but for the session, so that any engine
can call it anywhere and add up what it returns.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxnorm.calibration.batches import Batch
from onnxnorm.calibration.image_options import ImageOptions
from onnxnorm.calibration.probe import Probe, make_probe
from onnxnorm.calibration.sessions import Runtime, Session
from onnxnorm.calibration.sources import Data, Dataset, open_data
from onnxnorm.errors import OptionError
from onnxnorm.model.files import Model
from onnxnorm.model.graph import input_specs
from onnxnorm.model.inputs import InputSpec
from onnxnorm.model.shapes import read_graph
from onnxnorm.scaling import find_layers, trace
from onnxnorm.scaling.filters import FilterKind, sites_of
from onnxnorm.statistics import Moments, Statistics, Value
from onnxnorm.version import VERSION

__all__ = ["DEFAULT_BATCH", "Enough", "Progress", "calibrate_model", "filled", "fixed_batch"]

DEFAULT_BATCH = 8

Totals = dict[Value, Moments]


@dataclass(frozen=True)
class Progress:
    """How far a calibration is: images measured, of how many (None: not known), and the moments so far."""

    done: int
    total: int | None
    values: Mapping[Value, Moments] = field(repr=False)


@dataclass(frozen=True)
class Enough:
    """Stop when the relative standard error is at most `tolerance` for the share `share` of live filters."""

    tolerance: float
    share: float = 0.95
    at_least: int = 32

    def __post_init__(self) -> None:
        if not self.tolerance > 0:
            raise OptionError(f"--tolerance {self.tolerance:g} must be positive")
        if not 0 < self.share <= 1:
            raise OptionError(f"--tolerance-share {self.share:g} must lie in (0, 1]")

    def reached(self, values: Mapping[Value, Moments]) -> bool:
        """Whether these moments are exact enough."""
        if min(moments.images for moments in values.values()) < self.at_least:
            return False
        errors = np.concatenate([m.standard_error[m.mean != 0] / np.abs(m.mean[m.mean != 0]) for m in values.values()])
        return bool(errors.size == 0 or np.mean(errors <= self.tolerance) >= self.share)


@dataclass(frozen=True)
class Calibration:
    """One run's model, probe and session."""

    model: Model
    specs: tuple[InputSpec, ...]
    probe: Probe
    session: Session
    shapes: Callable[[tuple[tuple[str, tuple[int, ...]], ...]], Mapping[str, tuple[int, ...]]] = field(repr=False)

    def step(self, batch: Batch) -> Totals:
        """Moments of one batch. A model with a fixed batch is fed the last sample again to fill it, uncounted."""
        size = fixed_batch(self.specs) or batch.count
        feeds = {name: filled(array, size) for name, array in batch.feeds.items()}
        results = self.session.run(feeds)
        shapes = self.shapes(tuple((name, array.shape) for name, array in feeds.items()))
        return self.probe.moments(results, batch.names, size, shapes)


def calibrate_model(
    model: Model,
    data: Data,
    images: ImageOptions | None = None,
    *,
    batch_size: int | None = None,
    limit: int | None = None,
    runtime: Runtime | None = None,
    filters: FilterKind = "conv",
    enough: Enough | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Statistics:
    """Measure every filter of a model on images or arrays.

    `batch_size` defaults to the model's own where it is fixed, else 8; `limit` counts usable samples.
    Raises DataError, ModelError, OptionError or ProviderError.
    """
    runtime = runtime or Runtime()
    dataset = open_data(data, input_specs(model), images)
    fixed = fixed_batch(input_specs(model))
    if fixed is not None and batch_size not in {None, fixed}:
        raise OptionError(f"--batch-size {batch_size} does not fit the model, whose batch is fixed to {fixed}")
    size = batch_size or fixed or DEFAULT_BATCH
    totals: Totals = {}
    ranges: dict[str, _Range] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    calibration: Calibration | None = None
    total = dataset.total if limit is None or dataset.total is None else min(limit, dataset.total)
    done = 0
    with closing(dataset.batches(size, limit, runtime.threads)) as batches:
        for batch in batches:
            if calibration is None:
                shapes = {name: (fixed or 1, *array.shape[1:]) for name, array in batch.feeds.items()}
                calibration = prepare(model, shapes, filters, runtime)
            _note_ranges(ranges, batch, done)
            totals = _added(totals, calibration.step(batch))
            done += batch.count
            if progress is not None:
                progress(Progress(done, total, totals))
            if enough is not None and enough.reached(totals):
                break
    return Statistics(
        model=model.digest(),
        version=VERSION,
        filters=filters,
        shapes=shapes,
        inputs=_described(dataset, ranges),
        skipped=tuple((item.name, item.reason) for item in dataset.skipped),
        values=totals,
    )


def prepare(model: Model, shapes: Mapping[str, tuple[int, ...]], filters: FilterKind, runtime: Runtime) -> Calibration:
    """Trace a model for inputs of these shapes, build its probe and open the session."""
    graph = read_graph(model, shapes)
    probe = make_probe(model, graph, sites_of(find_layers(trace(graph), filters)))

    @lru_cache(maxsize=64)
    def shapes_for(inputs: tuple[tuple[str, tuple[int, ...]], ...]) -> Mapping[str, tuple[int, ...]]:
        return read_graph(model, dict(inputs)).shapes

    return Calibration(model, input_specs(model), probe, runtime.session(probe.proto, probe.folder), shapes_for)


def fixed_batch(specs: tuple[InputSpec, ...]) -> int | None:
    """The batch size that a model's inputs demand, if they do."""
    return next((spec.shape[0] for spec in specs if spec.shape and spec.shape[0] is not None), None)


def filled(array: NDArray[Any], size: int) -> NDArray[Any]:
    """A batch `(n, ...)` with its last sample repeated until there are `size`."""
    missing = size - len(array)
    return array if missing <= 0 else np.concatenate([array, np.repeat(array[-1:], missing, axis=0)])


def _added(totals: Totals, found: Totals) -> Totals:
    return {value: totals[value] + moments for value, moments in found.items()} if totals else found


@dataclass(frozen=True)
class _Range:
    mean: float
    std: float
    low: float
    high: float


# What a verification without images takes its random inputs from need not be exact.
_SAMPLED = 64


def _note_ranges(ranges: dict[str, _Range], batch: Batch, done: int) -> None:
    if done >= _SAMPLED:
        return
    for name, array in batch.feeds.items():
        x = np.asarray(array, np.float64)
        found = _Range(float(x.mean()), float(x.std()), float(x.min()), float(x.max()))
        known = ranges.get(name, found)
        ranges[name] = _Range(known.mean, known.std, min(known.low, found.low), max(known.high, found.high))


def _described(dataset: Dataset, ranges: Mapping[str, _Range]) -> dict[str, Any]:
    preprocessing = dataset.preprocessing
    return {
        "data": dataset.describe(),
        "sources": [dataset.identity()] if dataset.identity()["digest"] else [],
        "preprocessing": preprocessing.to_json() if preprocessing else None,
        "ranges": {name: vars(found) for name, found in ranges.items()},
    }
