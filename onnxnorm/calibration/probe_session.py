"""A probe that is open: it measures batches, each in runs that several threads share.

The runs of a batch are measured in any order and in any thread; `total` makes the batch's moments of what they return.
If memory is too short for a batch, it is measured again in smaller runs, one at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from itertools import chain, pairwise
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from onnxnorm.calibration.averages import Spreads
from onnxnorm.calibration.probe import Probe
from onnxnorm.calibration.ranges import Range, ranges_of
from onnxnorm.calibration.room import Room
from onnxnorm.data.batches import Batch, model_feeds
from onnxnorm.errors import MemoryShortageError, ModelError
from onnxnorm.model.files import Model
from onnxnorm.model.inputs import InputSpec, fixed_batch
from onnxnorm.runtime import Feeds, Session
from onnxnorm.statistics import Weighting
from onnxnorm.statistics.moments import Totals
from onnxnorm.statistics.together import merge_totals

__all__ = ["DeviceBatch", "ProbeSession", "Run", "RunResult", "Shapes"]

Shapes: TypeAlias = tuple[tuple[str, tuple[int, ...]], ...]


@dataclass(frozen=True)
class Run:
    """Some samples of a batch that are measured at once.

    Attributes:
        feeds: what the model is fed, on the device of the session.
        names: names of the samples; the feeds may hold more, which only pad them.
        size: number of samples in the feeds.
    """

    feeds: Feeds = field(repr=False)
    names: tuple[str, ...] = field(repr=False)
    size: int


@dataclass(frozen=True)
class DeviceBatch:
    """A batch on the device of the session, cut into runs; `shapes` are those of the feeds of the first run."""

    batch: Batch
    runs: tuple[Run, ...] = field(repr=False)
    shapes: Shapes = field(repr=False)

    @property
    def size(self) -> int:
        """Number of samples in the largest run."""
        return self.runs[0].size


@dataclass(frozen=True)
class RunResult:
    """What a run of a batch gives: outputs, which are counted with those of the other runs, or else moments."""

    outputs: Mapping[str, NDArray[Any]] = field(default_factory=dict, repr=False)
    totals: Totals = field(default_factory=dict, repr=False)


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
        return self.whole(self.place(batch))

    def whole(self, placed: DeviceBatch) -> Totals:
        """Return the moments of a batch that is placed."""
        return self.total(placed, [self.measure(placed, range(len(placed.runs)))])

    def place(self, batch: Batch) -> DeviceBatch:
        """Cut a batch into runs and copy them to the device; the last is padded if the model's batch size is fixed."""
        fixed = fixed_batch(self.specs)
        parts = _parts(batch, fixed or min(self.most, self.room.most or self.most), even=not fixed)
        fed = [model_feeds(self.specs, part.feeds, fixed or part.count) for part in parts]
        shapes = tuple((name, array.shape) for name, array in fed[0].items())
        try:
            placed: Sequence[Feeds] = [self.current().place(feeds) for feeds in fed]
        except MemoryShortageError:  # a run copies it, or fails in turn and is repeated with smaller ones
            placed = fed
        runs = [Run(feeds, part.names, fixed or part.count) for feeds, part in zip(placed, parts, strict=True)]
        return DeviceBatch(batch, tuple(runs), shapes)

    def measure(self, placed: DeviceBatch, indices: range) -> list[RunResult] | None:
        """Return what some runs of a batch give; None if memory is too short for them beside other runs.

        Raises ModelError if the runtime fails on the batch; the message says so if it runs with one sample at a time.
        """
        if self.room.most is not None:
            return None
        try:
            with self.room.run():
                return [self._measured(placed, index) for index in indices]
        except (MemoryShortageError, MemoryError):
            self._shrink(placed)
            return None

    def total(self, placed: DeviceBatch, measured: Sequence[list[RunResult] | None]) -> Totals:
        """Return the moments of a batch from what its runs gave, in order; without some, the batch is measured again.

        Raises MemoryShortageError or MemoryError if not even one sample fits, or if the model fixes its batch size.
        """
        known = [parts for parts in measured if parts is not None]
        if len(known) == len(measured):
            return self._counted(placed, list(chain.from_iterable(known)))
        with self.room.alone():
            return self._measure_alone(placed.batch)

    def _measure_alone(self, batch: Batch) -> Totals:
        """Return the moments of a batch, measured in smaller runs if need be, while no other run is going on."""
        while True:
            placed = self.place(batch)
            try:
                return self._counted(placed, [self._measured(placed, index) for index in range(len(placed.runs))])
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

    def _measured(self, placed: DeviceBatch, index: int) -> RunResult:
        """The outputs of a run; its moments where outputs are large."""
        run = placed.runs[index]
        try:
            results = self.current().run(run.feeds)
        except MemoryShortageError:
            raise
        except ModelError as error:
            raise self._explained(error, placed) from error
        if self.probe.joins:
            return RunResult(results)
        spreads = self.spreads(placed.shapes, placed.size)
        return RunResult(totals=self.probe.moments(results, run.names, run.size, spreads, self.weighting))

    def _counted(self, placed: DeviceBatch, parts: Sequence[RunResult]) -> Totals:
        """The moments of a batch from what all of its runs gave."""
        if not self.probe.joins:
            return reduce(merge_totals, (part.totals for part in parts))
        outputs, padded = _joined([part.outputs for part in parts]), sum(run.size for run in placed.runs)
        spreads = self.spreads(placed.shapes, placed.size)
        return self.probe.moments(outputs, placed.batch.names, padded, spreads, self.weighting)

    def _explained(self, error: ModelError, placed: DeviceBatch) -> ModelError:
        """The error, with what to do if a single sample passes: sizes may be fixed inside."""
        if placed.size == 1 or fixed_batch(self.specs) is not None:
            return error
        try:
            self.current().run(model_feeds(self.specs, placed.batch.split(1)[0].feeds, 1))
        except ModelError:
            return error
        return ModelError(f"{error}; it runs with one sample at a time: give --batch-size 1")


def _parts(batch: Batch, most: int, *, even: bool) -> list[Batch]:
    """Cut a batch into parts of at most that many samples; `even` parts differ by one sample."""
    pieces = -(-batch.count // most)
    size, more = divmod(batch.count, pieces) if even else (most, 0)
    starts = [piece * size + min(piece, more) for piece in range(pieces + 1)]
    return [batch.part(start, stop) for start, stop in pairwise(starts)]


def _joined(results: Sequence[Mapping[str, NDArray[Any]]]) -> Mapping[str, NDArray[Any]]:
    """The outputs of several runs, one after the other."""
    if len(results) == 1:
        return results[0]
    return {name: np.concatenate([result[name] for result in results]) for name in results[0]}
