"""What runs in an actor: plain Python with one session, which knows nothing of Ray."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field

import onnx

from onnxnorm.calibration.options import CalibrationOptions
from onnxnorm.calibration.step import Increment, ProbeSession, Range, prepare, ranges_of, sample_of
from onnxnorm.data.batches import Batch, Skipped, regroup
from onnxnorm.data.readers import Reader
from onnxnorm.data.selection import Indices
from onnxnorm.model.files import Model
from onnxnorm.model.graph import input_specs
from onnxnorm.model.inputs import fixed_batch
from onnxnorm.runtime import Runtime
from onnxnorm.statistics.moments import Totals, merge_totals
from onnxnorm.version import VERSION

__all__ = ["Chunk", "Setup", "Worker"]


@dataclass(frozen=True)
class Setup:
    """How a worker measures: in batches of `batch_size`, and in the driver's folder, where relative paths begin."""

    options: CalibrationOptions
    runtime: Runtime
    batch_size: int
    folder: str


@dataclass(frozen=True)
class Chunk:
    """Some samples: parts of the data, and what to add to the indices in each."""

    indices: Indices = field(repr=False)
    parts: tuple[tuple[int, Reader], ...] = field(repr=False)

    def blocks(self, size: int, threads: int, skipped: list[Skipped]) -> Iterator[Batch]:
        """Yield the usable samples, and note the others."""
        for offset, part in self.parts:
            for block in part.blocks(size, threads):
                if isinstance(block, Skipped):
                    skipped.append(block.shifted(offset))
                else:
                    yield block.shifted(offset)


class Worker:
    """One session for all chunks, opened with the first. A model is the bytes of one, or the path of a large one."""

    def __init__(self, model: bytes | str, setup: Setup) -> None:
        if os.path.isdir(setup.folder):
            os.chdir(setup.folder)
        self.setup = setup
        self.model = Model.open(model if isinstance(model, str) else onnx.ModelProto.FromString(model))
        self.probe: ProbeSession | None = None

    def version(self) -> str:
        """The version of onnxnorm. An actor that answers is ready for work."""
        return VERSION

    def measure(self, chunk: Chunk) -> Increment:
        """Moments of all samples of a chunk together."""
        fixed, given = fixed_batch(input_specs(self.model)), self.setup
        skipped: list[Skipped] = []
        totals: Totals = {}
        shapes: dict[str, tuple[int, ...]] = {}
        ranges: dict[str, Range] = {}
        images = 0
        for batch in regroup(chunk.blocks(given.batch_size, given.runtime.threads or 1, skipped), given.batch_size):
            shapes = shapes or sample_of(batch, fixed)
            ranges = ranges or ranges_of(batch)
            if self.probe is None:
                self.probe = prepare(self.model, shapes, given.options, given.runtime)
            totals = merge_totals(totals, self.probe.step(batch))
            images += batch.count
        return Increment(totals, images, tuple(chunk.indices.tolist()), tuple(skipped), shapes, ranges)
