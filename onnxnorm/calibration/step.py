"""Measures one batch: what every engine does with a batch, in whatever process it runs.

`ProbeSession` holds a model's probe and session; its `step` measures one batch, and has no state but the session. An
engine yields `Increment`s: moments of some samples, with the indices of these samples. Increments of disjoint samples
can be added in any order.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache, reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxnorm.calibration.averages import Spreads
from onnxnorm.calibration.build import make_probe, sites_of
from onnxnorm.calibration.layout import blocked_values
from onnxnorm.calibration.links import find_links
from onnxnorm.calibration.options import CalibrationOptions
from onnxnorm.calibration.pace import samples_a_run
from onnxnorm.calibration.probe import Probe
from onnxnorm.calibration.ranges import Range, ranges_of
from onnxnorm.calibration.room import Room
from onnxnorm.data.batches import Batch, Skipped, model_feeds
from onnxnorm.errors import MemoryShortageError, ModelError
from onnxnorm.model.files import Model
from onnxnorm.model.graph import input_specs
from onnxnorm.model.inputs import InputSpec, fixed_batch
from onnxnorm.model.shapes import read_graph
from onnxnorm.runtime import Feeds, Runtime, Session
from onnxnorm.scaling import Layer, Trace, find_layers, trace
from onnxnorm.scaling.channels import channel_axes
from onnxnorm.scaling.filters import has_rows_of_samples
from onnxnorm.statistics import Weighting
from onnxnorm.statistics.measures import RANGE, needs
from onnxnorm.statistics.moments import Totals
from onnxnorm.statistics.together import merge_totals
from onnxnorm.threads import available_threads

__all__ = [
    "Increment",
    "ProbeSession",
    "prepare",
    "sample_of",
]

_log = logging.getLogger(__name__)

Shapes = tuple[tuple[str, tuple[int, ...]], ...]


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
    """A batch on the device of the session, cut into runs.

    Attributes:
        batch: the batch itself.
        size: number of samples in each run but the last, which may have fewer.
        padded: number of samples in all runs, including those that only pad the last one.
        shapes: shapes of the feeds of the first run.
        runs: the feeds of each run, padded and on the device.
    """

    batch: Batch
    size: int
    padded: int
    shapes: Shapes = field(repr=False)
    runs: tuple[Feeds, ...] = field(repr=False)


@dataclass
class ProbeSession:
    """The probe of a model with its session; `spreads` returns the positions of each tap for shapes and batch size.

    `most` is the number of samples in a run. `reopen` opens another session, which takes less memory; None if that is
    the one in use.
    """

    model: Model
    specs: tuple[InputSpec, ...]
    probe: Probe
    session: Session | None
    weighting: Weighting
    spreads: Callable[[Shapes, int], Spreads] = field(repr=False)
    most: int
    reopen: Callable[[], Session] | None = field(default=None, repr=False)
    room: Room = field(default_factory=Room, repr=False, compare=False)

    def step(self, batch: Batch) -> Totals:
        """Return the moments of one batch."""
        return self.measure_within_memory(self.place(batch))

    def measure_within_memory(self, placed: DeviceBatch) -> Totals:
        """Return the moments of a batch, measured in runs of half the size if memory is too short, and so on.

        Raises MemoryShortageError or MemoryError if not even one sample fits, or if the model fixes its batch size.
        """
        if self.room.most is None:
            try:
                with self.room.run():
                    return self.measure(placed)
            except (MemoryShortageError, MemoryError):
                self._shrink(placed)
        with self.room.alone():
            return self._measure_alone(placed.batch)

    def _measure_alone(self, batch: Batch) -> Totals:
        """Return the moments of a batch, measured in smaller runs if need be, while no other run is going on."""
        while True:
            placed = self.place(batch)
            try:
                return self.measure(placed)
            except (MemoryShortageError, MemoryError):
                if not self._splits(placed):
                    raise
                self._shrink(placed)

    def _splits(self, placed: DeviceBatch) -> bool:
        """Whether smaller runs of a batch take less memory."""
        return placed.size > 1 and fixed_batch(self.specs) is None

    def _shrink(self, failed: DeviceBatch) -> None:
        """Measure fewer samples at once from now on, one run at a time, in a session that takes less memory."""
        self.room.shrink(failed.size, splits=self._splits(failed))
        with self.room.opening:
            if self.reopen is not None:
                self.session = None  # closed once the runs that have begun end

    def ranges(self, batch: Batch, known: Mapping[str, Range]) -> dict[str, Range]:
        """Return the `known` ranges of inputs with a batch added; if memory is short, once no run is going on."""
        try:
            return ranges_of(batch, known)
        except MemoryError:
            with self.room.alone():
                return ranges_of(batch, known)

    def current(self) -> Session:
        """Return the session, opened anew if it was closed because memory was short."""
        with self.room.opening:
            if self.session is None and self.reopen is not None:
                self.session, self.reopen = self.reopen(), None
            assert self.session is not None
            return self.session

    def place(self, batch: Batch) -> DeviceBatch:
        """Cut a batch into runs and copy them to the device; the last is padded if the model's batch size is fixed."""
        fixed = fixed_batch(self.specs)
        size = fixed or min(batch.count, self.most, self.room.most or self.most)
        parts = [batch.part(start, start + size) for start in range(0, batch.count, size)]
        runs = [model_feeds(self.specs, part.feeds, fixed or part.count) for part in parts]
        shapes = tuple((name, array.shape) for name, array in runs[0].items())
        padded = len(runs) * size if fixed else batch.count
        try:
            return DeviceBatch(batch, size, padded, shapes, tuple(self.current().place(feeds) for feeds in runs))
        except MemoryShortageError:  # a run copies it, or fails in turn and is repeated with smaller ones
            return DeviceBatch(batch, size, padded, shapes, tuple(runs))

    def measure(self, placed: DeviceBatch) -> Totals:
        """Return the moments of a batch that is on the device, without the samples that only pad it.

        Raises ModelError if the runtime fails on the batch; the message says so if it runs with one sample at a time.
        """
        spreads = self.spreads(placed.shapes, placed.size)
        results = (self._results(feeds, placed) for feeds in placed.runs)
        if self.probe.joins:
            joined = _joined(list(results))
            return self.probe.moments(joined, placed.batch.names, placed.padded, spreads, self.weighting)
        names = [placed.batch.names[start : start + placed.size] for start in range(0, placed.batch.count, placed.size)]
        fixed = fixed_batch(self.specs)
        totals = (
            self.probe.moments(result, part, fixed or len(part), spreads, self.weighting)
            for result, part in zip(results, names, strict=True)
        )
        return reduce(merge_totals, totals)

    def _results(self, feeds: Feeds, placed: DeviceBatch) -> dict[str, NDArray[Any]]:
        try:
            return self.current().run(feeds)
        except MemoryShortageError:
            raise
        except ModelError as error:
            raise self._explained(error, placed) from error

    def _explained(self, error: ModelError, placed: DeviceBatch) -> ModelError:
        """The error, with what to do if a single sample passes: sizes may be fixed inside."""
        if placed.size == 1 or fixed_batch(self.specs) is not None:
            return error
        try:
            self.current().run(model_feeds(self.specs, placed.batch.split(1)[0].feeds, 1))
        except ModelError:
            return error
        return ModelError(f"{error}; it runs with one sample at a time: give --batch-size 1")


def _joined(results: Sequence[Mapping[str, NDArray[Any]]]) -> Mapping[str, NDArray[Any]]:
    """The outputs of several runs, one after the other."""
    if len(results) == 1:
        return results[0]
    return {name: np.concatenate([result[name] for result in results]) for name in results[0]}


def prepare(
    model: Model,
    shapes: Mapping[str, tuple[int, ...]],
    options: CalibrationOptions,
    runtime: Runtime,
    *,
    one_size: bool = False,
) -> ProbeSession:
    """Trace a model for inputs of these shapes, build its probe and open a session on the probe.

    `one_size` says that all samples have these shapes. Raises ModelError if nothing can be measured or the runtime
    rejects the probe, and ProviderError if the execution provider cannot be started.
    """
    graph = read_graph(model, shapes)
    traced = trace(graph)
    layers = [layer for layer in find_layers(traced, options.filters) if not _is_idle(traced, layer)]
    sites = sites_of(layers, options.measure)
    axes = channel_axes(traced) if RANGE in options.measure else {}
    probe = make_probe(
        model,
        graph,
        sites,
        kind=options.filters,
        maxima=needs("largest", options.measure) or needs("histogram", options.measure),
        histograms=needs("histogram", options.measure),
        one_size=one_size,
        blocked=blocked_values(graph) if runtime.on_cpu else None,
        peaks=axes,
        links=find_links(traced, axes),
    )
    _log.info("probe: %d values measured for inputs of %s", len(sites), dict(shapes))

    @lru_cache(maxsize=64)
    def spreads(inputs: Shapes, batch: int) -> Spreads:
        return probe.spreads(read_graph(model, dict(inputs)).shapes, batch)

    def reopen() -> Session:
        return replace(runtime, arena=False).session(probe.proto, probe.folder)

    session = runtime.session(probe.proto, probe.folder)
    threads = runtime.threads or available_threads()
    ranged = [tap.value for tap in probe.peaks if tap.link is None]
    most = samples_a_run(graph, layers, probe.proto.graph, threads, ranged) if runtime.on_cpu else sys.maxsize
    _log.info("at most %d samples in a run", most)
    return ProbeSession(model, input_specs(model), probe, session, options.weighting, spreads, most, reopen)


def _is_idle(traced: Trace, layer: Layer) -> bool:
    """Whether a layer cannot be measured, and need not be: its filters are pinned, or computed for each sample."""
    idle = layer.computed or bool(traced.groups.is_pinned(layer.slots).all())
    return idle and not has_rows_of_samples(traced.graph, layer.site)


def sample_of(batch: Batch, specs: Sequence[InputSpec]) -> dict[str, tuple[int, ...]]:
    """Return the input shapes of one sample of a batch, or of the model's fixed batch."""
    count = fixed_batch(specs) or 1
    return {
        spec.name: spec.repeated(count).shape
        if spec.value is not None
        else spec.shape_of(batch.feeds[spec.name].shape[1:], count)
        for spec in specs
    }
