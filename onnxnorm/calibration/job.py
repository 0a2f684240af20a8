"""A `Job` says what to measure, a `State` what has been measured: plain values, which are the same for all engines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from onnxnorm.calibration.options import CalibrationOptions
from onnxnorm.calibration.pace import samples_together
from onnxnorm.calibration.ranges import Range, merge_ranges
from onnxnorm.calibration.step import Increment
from onnxnorm.data.dataset import Dataset
from onnxnorm.data.selection import Ranges, Selection
from onnxnorm.model.files import Model
from onnxnorm.model.graph import input_specs
from onnxnorm.model.input_records import settings_record
from onnxnorm.model.inputs import fixed_batch
from onnxnorm.statistics import FORECAST_ERRORS, GIVEN, Statistics
from onnxnorm.statistics.measures import recorded_names
from onnxnorm.statistics.moments import Totals
from onnxnorm.statistics.provenance import KEPT
from onnxnorm.statistics.together import merge_totals
from onnxnorm.version import VERSION

__all__ = ["Job", "State"]


@dataclass(frozen=True)
class Job:
    """What an engine is to measure, and how.

    Attributes:
        model: the model.
        dataset: the data.
        selection: the samples of the data to measure.
        batch_size: number of samples in a batch.
        options: what to measure, and with which runtime.
        opened: whether the batch of the model was opened, which was exported for one sample (`opened_model`).
    """

    model: Model
    dataset: Dataset
    selection: Selection
    batch_size: int
    options: CalibrationOptions
    opened: bool = False

    @cached_property
    def digest(self) -> str:
        """SHA-256 digest of the model."""
        return self.model.digest()

    @cached_property
    def description(self) -> str:
        """A description of the data in one line."""
        return self.dataset.describe()

    @cached_property
    def given(self) -> dict[str, Any] | None:
        """The settings of the model's inputs, in plain values."""
        return settings_record(input_specs(self.model), self.model.settings)

    @property
    def total(self) -> int | None:
        """Number of samples there are at most, including those that are done; None if it is not known."""
        if self.dataset.total is None:
            return self.options.limit
        count = self.selection.shard.size(self.dataset.total)
        return count if self.options.limit is None else min(count, self.options.limit)

    @property
    def together(self) -> int:
        """Number of samples that are read and counted together; what was asked for, or a multiple of a fixed batch."""
        fixed = fixed_batch(input_specs(self.model))
        if fixed is None and (self.options.batch_size is not None or self.batch_size == 1):
            return self.batch_size
        return samples_together(self.dataset.sample_bytes, self.total, fixed)

    def run(self) -> dict[str, Any]:
        """Return what must be the same for a run to be resumed, in plain values."""
        preprocessing = self.dataset.preprocessing
        return {
            "model": self.digest,
            "data": self.dataset.identity["digest"],
            "order of the data": self.dataset.order,
            "preprocessing": preprocessing.to_json() if preprocessing else None,
            "values or axes of inputs": self.given,
            "shard": str(self.selection.shard),
            "filters": self.options.filters,
            "weighting": self.options.weighting,
            "measures": recorded_names(self.options.measure),
        }


@dataclass(frozen=True)
class State:
    """What a run has measured so far.

    Attributes:
        totals: the moments.
        images: number of images measured.
        done: places along the shard of the samples that are done.
        skipped: name and reason of each image that could not be used.
        shapes: input shapes of one sample.
        ranges: range of the numbers of each input.
    """

    totals: Totals = field(default_factory=dict, repr=False)
    images: int = 0
    done: Ranges = field(default_factory=Ranges)
    skipped: tuple[tuple[str, str], ...] = ()
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    ranges: Mapping[str, Range] = field(default_factory=dict)

    def after(self, increment: Increment, selection: Selection) -> State:
        """Return the state with an increment added."""
        return State(
            totals=merge_totals(self.totals, increment.totals),
            images=self.images + increment.images,
            done=self.done.with_places(selection.place(index) for index in increment.indices),
            skipped=self.skipped + tuple((item.name, item.reason) for item in increment.skipped),
            shapes=self.shapes or increment.shapes,
            ranges=merge_ranges(self.ranges, increment.ranges),
        )

    def statistics(
        self,
        job: Job,
        *,
        complete: bool,
        sources: bool = True,
        log_standard_errors: Mapping[float, float] | None = None,
    ) -> Statistics:
        """Return the state as statistics.

        Args:
            job: the job of the run.
            complete: False if the run was interrupted, or is not over.
            sources: whether to include the sources with the fingerprints of their files; a checkpoint leaves them out,
                because fingerprints read every file.
            log_standard_errors: standard errors of the logarithms of forecasts, by share
                (`Jackknife.log_standard_errors`).
        """
        preprocessing = job.dataset.preprocessing
        identity = job.dataset.identity if sources else {"digest": ""}
        source = identity | {"order": job.dataset.order, "shards": [str(job.selection.shard)]}
        digest, skipped = str(identity["digest"]), {name for name, _ in self.skipped}
        done = replace(job.selection, done=self.done)
        return Statistics(
            model=job.digest,
            version=VERSION,
            filters=job.options.filters,
            shapes=self.shapes,
            inputs={
                "data": job.description,
                "sources": [source] if identity["digest"] else [],
                "preprocessing": preprocessing.to_json() if preprocessing else None,
                **({GIVEN: job.given} if job.given else {}),
                "ranges": {name: vars(limits) for name, limits in self.ranges.items()},
                **(
                    {FORECAST_ERRORS: {str(share): error for share, error in log_standard_errors.items()}}
                    if log_standard_errors
                    else {}
                ),
            },
            skipped=self.skipped,
            values=dict(self.totals),  # each in an object of its own
            weighting=job.options.weighting,
            complete=complete,
            files={digest: job.dataset.fingerprints(done, skipped, KEPT)} if digest else {},
        )

    @classmethod
    def resumed(cls, statistics: Statistics, done: Ranges) -> State:
        """Return the state that a checkpoint holds."""
        return cls(
            totals=statistics.values,
            images=statistics.images,
            done=done,
            skipped=statistics.skipped,
            shapes=statistics.shapes,
            ranges={name: Range(**limits) for name, limits in statistics.inputs.get("ranges", {}).items()},
        )
