"""Measures one batch: what every engine does with a batch, in whatever process it runs.

`ProbeSession` holds a model's probe and session; its `step` measures one batch, and has no state but the session. An
engine yields `Increment`s: moments of some samples, with the indices of these samples. Increments of disjoint samples
can be added in any order.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

from onnxnorm.calibration.options import CalibrationOptions
from onnxnorm.calibration.probe import Probe, make_probe, sites_of
from onnxnorm.calibration.taps import Positions
from onnxnorm.data.batches import Batch, Skipped, pad_batch
from onnxnorm.errors import ModelError
from onnxnorm.model.files import Model
from onnxnorm.model.graph import input_specs
from onnxnorm.model.inputs import InputSpec, fixed_batch
from onnxnorm.model.shapes import read_graph
from onnxnorm.runtime import Feeds, Runtime, Session
from onnxnorm.scaling import Layer, Trace, find_layers, trace
from onnxnorm.statistics import Weighting
from onnxnorm.statistics.measures import needs_histograms
from onnxnorm.statistics.moments import Totals

__all__ = [
    "Increment",
    "ProbeSession",
    "Range",
    "merge_ranges",
    "prepare",
    "ranges_of",
    "sample_of",
]

_log = logging.getLogger(__name__)

Shapes = tuple[tuple[str, tuple[int, ...]], ...]


@dataclass(frozen=True)
class Range:
    """Mean, standard deviation, minimum and maximum of an input's numbers."""

    mean: float
    std: float
    low: float
    high: float


@dataclass(frozen=True)
class Increment:
    """Moments of some samples.

    Attributes:
        totals: the moments.
        images: number of samples measured.
        indices: indices of all samples that are now done, measured or skipped.
        skipped: the samples that could not be used.
        shapes: input shapes of one sample, or of the model's fixed batch.
        ranges: range of the numbers of each input.
    """

    totals: Totals = field(repr=False)
    images: int
    indices: tuple[int, ...] = field(repr=False)
    skipped: tuple[Skipped, ...] = ()
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    ranges: Mapping[str, Range] = field(default_factory=dict)


@dataclass(frozen=True)
class DeviceBatch:
    """A batch on the device of the session.

    Attributes:
        batch: the batch itself.
        size: number of samples, including those that only pad the batch.
        shapes: shapes of the feeds.
        feeds: the feeds, padded and on the device.
    """

    batch: Batch
    size: int
    shapes: Shapes = field(repr=False)
    feeds: Feeds = field(repr=False)


@dataclass(frozen=True)
class ProbeSession:
    """The probe of a model with its session; `spreads` returns the positions of each tap for shapes and batch size."""

    model: Model
    specs: tuple[InputSpec, ...]
    probe: Probe
    session: Session
    weighting: Weighting
    spreads: Callable[[Shapes, int], tuple[Positions | None, ...]] = field(repr=False)

    def step(self, batch: Batch) -> Totals:
        """Return the moments of one batch."""
        return self.measure(self.place(batch))

    def place(self, batch: Batch) -> DeviceBatch:
        """Copy a batch to the device, padded with its last sample if the model's batch size is fixed."""
        size = fixed_batch(self.specs) or batch.count
        feeds = {name: pad_batch(array, size) for name, array in batch.feeds.items()}
        shapes = tuple((name, array.shape) for name, array in feeds.items())
        return DeviceBatch(batch, size, shapes, self.session.place(feeds))

    def measure(self, placed: DeviceBatch) -> Totals:
        """Return the moments of a batch that is on the device, without the samples that only pad it.

        Raises ModelError if the runtime fails on the batch; the message says so if it runs with one sample at a time.
        """
        try:
            results = self.session.run(placed.feeds)
        except ModelError as error:
            raise self._explained(error, placed) from error
        spreads = self.spreads(placed.shapes, placed.size)
        return self.probe.moments(results, placed.batch.names, placed.size, spreads, self.weighting)

    def _explained(self, error: ModelError, placed: DeviceBatch) -> ModelError:
        """The error, with what to do if a single sample passes: sizes may be fixed inside, or memory short."""
        if placed.size == 1 or fixed_batch(self.specs) is not None:
            return error
        try:
            self.session.run({name: array[:1] for name, array in placed.batch.feeds.items()})
        except ModelError:
            return error
        return ModelError(f"{error}; it runs with one sample at a time: give --batch-size 1")


def prepare(
    model: Model, shapes: Mapping[str, tuple[int, ...]], options: CalibrationOptions, runtime: Runtime
) -> ProbeSession:
    """Trace a model for inputs of these shapes, build its probe and open a session on the probe.

    Raises ModelError if nothing can be measured or the runtime rejects the probe, and ProviderError if the execution
    provider cannot be started.
    """
    graph = read_graph(model, shapes)
    traced = trace(graph)
    layers = [layer for layer in find_layers(traced, options.filters) if not _is_idle(traced, layer)]
    sites = sites_of(layers, options.measure)
    probe = make_probe(model, graph, sites, kind=options.filters, histograms=needs_histograms(options.measure))
    _log.info("probe: %d values measured for inputs of %s", len(sites), dict(shapes))

    @lru_cache(maxsize=64)
    def spreads(inputs: Shapes, batch: int) -> tuple[Positions | None, ...]:
        return probe.spreads(read_graph(model, dict(inputs)).shapes, batch)

    session = runtime.session(probe.proto, probe.folder)
    return ProbeSession(model, input_specs(model), probe, session, options.weighting, spreads)


def _is_idle(traced: Trace, layer: Layer) -> bool:
    """Whether a layer need not be measured, all its filters being pinned, and cannot: its rows are no samples."""
    graph, site = traced.graph, layer.site
    shape, fixed = graph.shapes.get(site.value), fixed_batch(graph.inputs)
    if shape is None or not traced.groups.is_pinned(layer.slots).all():
        return False
    if fixed is not None:
        return bool(shape[site.batch] % fixed)
    axes = graph.batched.get(site.value, ())  # none also where they are not known
    return bool(axes) and site.batch not in axes


def sample_of(batch: Batch, fixed: int | None) -> dict[str, tuple[int, ...]]:
    """Return the input shapes of one sample of a batch, or of the model's fixed batch."""
    return {name: (fixed or 1, *array.shape[1:]) for name, array in batch.feeds.items()}


def ranges_of(batch: Batch) -> dict[str, Range]:
    """Return the range of the numbers of each input in a batch."""
    arrays = {name: np.asarray(array, np.float64) for name, array in batch.feeds.items()}
    return {name: Range(float(x.mean()), float(x.std()), float(x.min()), float(x.max())) for name, x in arrays.items()}


def merge_ranges(known: Mapping[str, Range], added: Mapping[str, Range]) -> dict[str, Range]:
    """Return the known ranges with limits widened to include the added ones; means and deviations do not change."""
    joined = dict(known)
    for name, new in added.items():
        old = joined.get(name, new)
        joined[name] = Range(old.mean, old.std, min(old.low, new.low), max(old.high, new.high))
    return joined
