"""Checkpoints: the results of a run so far, on disk, so that a crash loses only seconds of work.

A checkpoint is a statistics file, marked incomplete, whose `inputs` also record which samples are done and which run it
is of: the model, the data and its order, the preprocessing, the shard, the filters, the weighting and the measures. It
replaces the last checkpoint atomically, so the file is complete at any time. A resumed run starts with the moments of
the checkpoint and leaves out its samples: it computes the same sums as an uninterrupted run, except for the order of
the additions.
"""

from __future__ import annotations

import logging
import os
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from onnxnorm.data.selection import Ranges
from onnxnorm.errors import CheckpointWarning, StatisticsError
from onnxnorm.statistics import Statistics

__all__ = ["Checkpoint", "read_checkpoint"]

_log = logging.getLogger(__name__)

_KEY = "checkpoint"
EVERY = 2.0


@dataclass
class Checkpoint:
    """Writes and reads the checkpoint of one run.

    Attributes:
        path: the file.
        run: what identifies the run, in plain values (`Job.run`).
        every: seconds between two checkpoints.
        written: time of the last attempt to write it, in seconds of `time.monotonic`.
        failed: whether that attempt failed.
    """

    path: Path
    run: Mapping[str, Any]
    every: float = EVERY
    written: float = float("-inf")
    failed: bool = False

    def due(self) -> bool:
        """Whether it is time for the next checkpoint; the first is due at once."""
        return time.monotonic() - self.written >= self.every

    def write(self, statistics: Statistics, done: Ranges) -> None:
        """Replace the checkpoint; `done` are places along the shard.

        If it cannot be written, the run goes on, the last checkpoint stays, and the first time there is a warning.
        """
        record = {"run": dict(self.run), "done": done.spans}
        self.written = time.monotonic()
        try:
            replace(statistics, complete=False, inputs={**statistics.inputs, _KEY: record}).save(self.path)
        except StatisticsError as error:
            if not self.failed:
                warnings.warn(CheckpointWarning(f"{error}; the run goes on without checkpoints"), stacklevel=2)
            self.failed = True
            return
        self.failed = False
        _log.info("checkpoint of %d images written to %s", statistics.images, self.path)

    def read(self) -> tuple[Statistics, Ranges] | None:
        """Return the statistics and the places that are done; None if there is no file.

        Raises StatisticsError if the file is not a checkpoint, or is the checkpoint of another run.
        """
        if not os.path.lexists(self.path):
            return None
        statistics, run, done = read_checkpoint(self.path)
        for name, mine in self.run.items():
            if run.get(name) != mine:
                raise StatisticsError(
                    f"{self.path} is the checkpoint of another run: its {name} differs; repeat the command that "
                    "made it, or leave --resume out"
                )
        return statistics, done

    def set_aside(self) -> Path | None:
        """Rename the checkpoint of an earlier run, and return its new path; None if there is none.

        Raises StatisticsError if it cannot be renamed.
        """
        if not os.path.lexists(self.path):
            return None
        aside = self.path.with_name(self.path.name + ".old")
        try:
            os.replace(self.path, aside)
        except OSError as error:
            raise StatisticsError(
                f"{self.path}, the checkpoint of an earlier run, cannot be renamed to {aside.name} ({error.strerror}); "
                "move it away, or use --resume"
            ) from error
        return aside

    def remove(self) -> None:
        """Delete the file, once the run is over."""
        self.path.unlink(missing_ok=True)


def read_checkpoint(path: Path) -> tuple[Statistics, dict[str, Any], Ranges]:
    """Return the statistics, the run, and the places that are done. Raises StatisticsError if it is no checkpoint."""
    statistics = Statistics.load(path)
    inputs = dict(statistics.inputs)
    try:
        record = inputs.pop(_KEY)
        done = Ranges().with_spans((int(start), int(stop)) for start, stop in record["done"])
        run = dict(record["run"])
    except (KeyError, TypeError, ValueError) as error:
        raise StatisticsError(f"{path} is not a checkpoint of onnxnorm calibrate; remove it and start over") from error
    return replace(statistics, inputs=inputs), run, done
