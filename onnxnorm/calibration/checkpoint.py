"""Checkpoints: what a run has measured so far, on disk, so that a crash costs seconds.

A checkpoint is a statistics file like any other, marked incomplete, whose `inputs` also say which samples are done and
what the run was: the model, the data and its order, the preprocessing, the shard, the filters, the weighting. It
replaces the one before atomically, so that at any moment the file is whole. To resume is to start with its moments and
to leave out its samples: the sums are those of an uninterrupted run but for the order in which they are added up.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from onnxnorm.data.selection import Ranges
from onnxnorm.errors import StatisticsError
from onnxnorm.statistics import Statistics

__all__ = ["Checkpoint", "read_checkpoint"]

_log = logging.getLogger(__name__)

_KEY = "checkpoint"
EVERY = 2.0


@dataclass
class Checkpoint:
    """Where checkpoints of one run go; `run` is what the run is, in plain values; one is due every `every` seconds."""

    path: Path
    run: Mapping[str, Any]
    every: float = EVERY
    written: float = float("-inf")

    def due(self) -> bool:
        """Whether it is time for the next one; the first is due at once."""
        return time.monotonic() - self.written >= self.every

    def write(self, statistics: Statistics, done: Ranges) -> None:
        """Replace the checkpoint."""
        record = {"run": dict(self.run), "done": done.spans}
        replace(statistics, complete=False, inputs={**statistics.inputs, _KEY: record}).save(self.path)
        self.written = time.monotonic()
        _log.info("checkpoint of %d images written to %s", statistics.images, self.path)

    def read(self) -> tuple[Statistics, Ranges] | None:
        """What the file holds, None if there is none. Raises StatisticsError if it is of another run."""
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
        """Move a checkpoint of an earlier run out of the way; returns where it is now."""
        if not os.path.lexists(self.path):
            return None
        aside = self.path.with_name(self.path.name + ".old")
        os.replace(self.path, aside)
        return aside

    def remove(self) -> None:
        """The run is over."""
        self.path.unlink(missing_ok=True)


def read_checkpoint(path: Path) -> tuple[Statistics, dict[str, Any], Ranges]:
    """Statistics, the run, and the places that are done. Raises StatisticsError if it is not a checkpoint."""
    statistics = Statistics.load(path)
    inputs = dict(statistics.inputs)
    try:
        record = inputs.pop(_KEY)
        done = Ranges().with_spans((int(start), int(stop)) for start, stop in record["done"])
        run = dict(record["run"])
    except (KeyError, TypeError, ValueError) as error:
        raise StatisticsError(f"{path} is not a checkpoint of onnxnorm calibrate; remove it and start over") from error
    return replace(statistics, inputs=inputs), run, done
