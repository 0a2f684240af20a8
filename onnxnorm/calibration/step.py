"""Measures one batch: what every engine does with a batch, in whatever process it runs.

`ProbeSession` holds a model's probe and session; its `step` measures one batch, and has no state but the session. An
engine yields `Increment`s: moments of some samples, with the indices of these samples. Increments of disjoint samples
can be added in any order.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

from onnxnorm.calibration.layout import blocked_values
from onnxnorm.calibration.options import CalibrationOptions
from onnxnorm.calibration.probe import Probe, make_probe, sites_of
from onnxnorm.calibration.ranges import Range, ranges_of
from onnxnorm.calibration.room import Room
from onnxnorm.calibration.taps import Positions
from onnxnorm.data.batches import Batch, Skipped, model_feeds
from onnxnorm.errors import MemoryShortageError, ModelError
from onnxnorm.model.files import Model
from onnxnorm.model.graph import input_specs
from onnxnorm.model.inputs import InputSpec, fixed_batch
from onnxnorm.model.shapes import read_graph
from onnxnorm.runtime import Feeds, Runtime, Session
from onnxnorm.scaling import Layer, Trace, find_layers, trace
from onnxnorm.scaling.channels import channel_axes, copied_channels
from onnxnorm.scaling.filters import has_rows_of_samples
from onnxnorm.statistics import Weighting
from onnxnorm.statistics.measures import RANGE, needs
from onnxnorm.statistics.moments import Totals, merge_totals

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
        if self.room.most is None:
            try:
                with self.room.run():
                    return self.measure(placed)
            except (MemoryShortageError, MemoryError):
                self._shrink(placed)
        with self.room.alone():
            return self._measure_alone(placed)

    def _measure_alone(self, placed: DeviceBatch) -> Totals:
        """Return the moments of a batch, measured in halves if need be, while no other run is going on."""
        if self.room.allows(placed.batch.count):
            try:
                return self.measure(placed)
            except (MemoryShortageError, MemoryError):
                if not self._splits(placed):
                    raise
                self._shrink(placed)
        halves = placed.batch.split(placed.batch.count // 2)
        first, second = (self._measure_alone(self.place(half)) for half in halves)
        return merge_totals(first, second)

    def _splits(self, placed: DeviceBatch) -> bool:
        """Whether a half of a batch takes less memory."""
        return placed.batch.count > 1 and fixed_batch(self.specs) is None

    def _shrink(self, failed: DeviceBatch) -> None:
        """Measure fewer samples at once from now on, one run at a time, in a session that takes less memory."""
        self.room.shrink(failed.batch.count, splits=self._splits(failed))
        with self.room.opening:
            if self.reopen is not None:
                self.session = None  # closed once the runs that have begun end

    def ranges(self, batch: Batch) -> dict[str, Range]:
        """Return the range of the numbers of each input in a batch; if memory is short, once no run is going on."""
        try:
            return ranges_of(batch)
        except MemoryError:
            with self.room.alone():
                return ranges_of(batch)

    def current(self) -> Session:
        """Return the session, opened anew if it was closed because memory was short."""
        with self.room.opening:
            if self.session is None and self.reopen is not None:
                self.session, self.reopen = self.reopen(), None
            assert self.session is not None
            return self.session

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
        copied=copied_channels(traced, axes),
    )
    _log.info("probe: %d values measured for inputs of %s", len(sites), dict(shapes))

    @lru_cache(maxsize=64)
    def spreads(inputs: Shapes, batch: int) -> tuple[Positions | None, ...]:
        return probe.spreads(read_graph(model, dict(inputs)).shapes, batch)

    def reopen() -> Session:
        return replace(runtime, arena=False).session(probe.proto, probe.folder)

    session = runtime.session(probe.proto, probe.folder)
    return ProbeSession(model, input_specs(model), probe, session, options.weighting, spreads, reopen)


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
