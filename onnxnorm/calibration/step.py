"""Measures one batch: what every engine does with a batch, in whatever process it runs.

`ProbeSession` holds a model's probe and session; its `step` measures one batch, and has no state but the session. An
engine yields `Increment`s: moments of some samples, with the indices of these samples. Increments of disjoint samples
can be added in any order.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import lru_cache
from threading import RLock
from typing import Any

import numpy as np

from onnxnorm.calibration.options import CalibrationOptions
from onnxnorm.calibration.probe import Probe, make_probe, sites_of
from onnxnorm.calibration.taps import Positions
from onnxnorm.data.batches import Batch, Skipped, model_feeds
from onnxnorm.errors import MemoryShortageError, MemoryWarning, ModelError
from onnxnorm.model.files import Model
from onnxnorm.model.graph import input_specs
from onnxnorm.model.inputs import InputSpec, fixed_batch
from onnxnorm.model.shapes import read_graph
from onnxnorm.runtime import Feeds, Runtime, Session
from onnxnorm.scaling import Layer, Trace, find_layers, trace
from onnxnorm.statistics import Weighting
from onnxnorm.statistics.measures import needs_histograms
from onnxnorm.statistics.moments import Totals, merge_totals

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


@dataclass
class Room:
    """How many samples of a batch memory has room for, as far as it is known.

    Attributes:
        most: the most samples that are still tried at once; None if memory was never short.
        alone: held by the one thread that measures halves of batches.
        opening: held while the session is replaced.
    """

    most: int | None = None
    alone: AbstractContextManager[Any] = field(default_factory=RLock, repr=False)
    opening: AbstractContextManager[Any] = field(default_factory=RLock, repr=False)

    def allows(self, samples: int) -> bool:
        """Whether that many samples may be tried at once."""
        return self.most is None or samples <= self.most

    def shrink(self, failed: int) -> None:
        """Remember that this many samples were too many, and warn."""
        most = failed - failed // 2
        if self.allows(most) and self.most != most:
            self.most = most
            message = f"a batch of {failed} samples does not fit into memory; batches of at most {most} are tried"
            warnings.warn(MemoryWarning(message), stacklevel=3)


@dataclass
class ProbeSession:
    """The probe of a model with its session; `spreads` returns the positions of each tap for shapes and batch size.

    `reopen` opens another session, which takes less memory; None if that is the one in use.
    """

    model: Model
    specs: tuple[InputSpec, ...]
    probe: Probe
    session: Session | None
    weighting: Weighting
    spreads: Callable[[Shapes, int], tuple[Positions | None, ...]] = field(repr=False)
    reopen: Callable[[], Session] | None = field(default=None, repr=False)
    room: Room = field(default_factory=Room, repr=False, compare=False)

    def step(self, batch: Batch) -> Totals:
        """Return the moments of one batch."""
        return self.measure_within_memory(self.place(batch))

    def measure_within_memory(self, placed: DeviceBatch) -> Totals:
        """Return the moments of a batch, measured in halves if memory is too short, and in halves of these if need be.

        Raises MemoryShortageError or MemoryError if not even one sample fits, or if the model fixes its batch size.
        """
        try:
            if self.room.allows(placed.batch.count):
                return self.measure(placed)
        except (MemoryShortageError, MemoryError):
            if placed.batch.count < 2 or fixed_batch(self.specs) is not None:
                raise
            self.room.shrink(placed.batch.count)
            self._close()
        with self.room.alone:  # several halves at a time would need the memory of a whole
            halves = placed.batch.split(placed.batch.count // 2)
            first, second = (self.measure_within_memory(self.place(half)) for half in halves)
        return merge_totals(first, second)

    def current(self) -> Session:
        """Return the session, opened anew if it was closed because memory was short."""
        with self.room.opening:
            if self.session is None and self.reopen is not None:
                self.session, self.reopen = self.reopen(), None
            assert self.session is not None
            return self.session

    def _close(self) -> None:
        """Close the session, unless it is the one that takes least memory; runs that have begun end first."""
        with self.room.opening:
            if self.reopen is not None:
                self.session = None

    def place(self, batch: Batch) -> DeviceBatch:
        """Copy a batch to the device, padded with its last sample if the model's batch size is fixed."""
        size = fixed_batch(self.specs) or batch.count
        feeds = model_feeds(self.specs, batch.feeds, size)
        shapes = tuple((name, array.shape) for name, array in feeds.items())
        if not self.room.allows(batch.count):
            return DeviceBatch(batch, size, shapes, feeds)  # it is going to be halved
        try:
            return DeviceBatch(batch, size, shapes, self.current().place(feeds))
        except MemoryShortageError:  # the run copies it, or fails in turn and is repeated with halves
            return DeviceBatch(batch, size, shapes, feeds)

    def measure(self, placed: DeviceBatch) -> Totals:
        """Return the moments of a batch that is on the device, without the samples that only pad it.

        Raises ModelError if the runtime fails on the batch; the message says so if it runs with one sample at a time.
        """
        try:
            results = self.current().run(placed.feeds)
        except MemoryShortageError:
            raise
        except ModelError as error:
            raise self._explained(error, placed) from error
        spreads = self.spreads(placed.shapes, placed.size)
        return self.probe.moments(results, placed.batch.names, placed.size, spreads, self.weighting)

    def _explained(self, error: ModelError, placed: DeviceBatch) -> ModelError:
        """The error, with what to do if a single sample passes: sizes may be fixed inside."""
        if placed.size == 1 or fixed_batch(self.specs) is not None:
            return error
        try:
            self.current().run(model_feeds(self.specs, placed.batch.split(1)[0].feeds, 1))
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

    def reopen() -> Session:
        return replace(runtime, arena=False).session(probe.proto, probe.folder)

    session = runtime.session(probe.proto, probe.folder)
    return ProbeSession(model, input_specs(model), probe, session, options.weighting, spreads, reopen)


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


def sample_of(batch: Batch, specs: Sequence[InputSpec]) -> dict[str, tuple[int, ...]]:
    """Return the input shapes of one sample of a batch, or of the model's fixed batch."""
    count = fixed_batch(specs) or 1
    return {
        spec.name: spec.repeated(count).shape
        if spec.value is not None
        else spec.shape_of(batch.feeds[spec.name].shape[1:], count)
        for spec in specs
    }


def ranges_of(batch: Batch) -> dict[str, Range]:
    """Return the range of the numbers of each input in a batch.

    If memory is short, mean and deviation are those of some of its samples.
    """
    try:
        arrays = {name: np.asarray(array, np.float64) for name, array in batch.feeds.items()}
        return {name: Range(*(float(f()) for f in (x.mean, x.std, x.min, x.max))) for name, x in arrays.items()}
    except MemoryError:
        if batch.count < 2:
            raise
        first, second = batch.split(batch.count // 2)
        return merge_ranges(ranges_of(first), ranges_of(second))


def merge_ranges(known: Mapping[str, Range], added: Mapping[str, Range]) -> dict[str, Range]:
    """Return the known ranges with limits widened to include the added ones; means and deviations do not change."""
    joined = dict(known)
    for name, new in added.items():
        old = joined.get(name, new)
        joined[name] = Range(old.mean, old.std, min(old.low, new.low), max(old.high, new.high))
    return joined
