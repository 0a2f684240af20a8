"""The code that runs in an actor: plain Python with one session, without any use of Ray."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field

import onnx

from onnxnorm.calibration.opened import opened_model
from onnxnorm.calibration.options import CalibrationOptions
from onnxnorm.calibration.probe_session import ProbeSession
from onnxnorm.calibration.ranges import Range, ranges_of
from onnxnorm.calibration.step import Increment, prepare, sample_of
from onnxnorm.data.batches import Batch, Skipped, regroup
from onnxnorm.data.readers import Reader
from onnxnorm.data.selection import Indices
from onnxnorm.model.files import Model
from onnxnorm.model.functions import inlined
from onnxnorm.model.graph import input_specs
from onnxnorm.model.inputs import InputSettings
from onnxnorm.runtime import Runtime
from onnxnorm.statistics.moments import Totals
from onnxnorm.statistics.together import merge_totals
from onnxnorm.version import VERSION

__all__ = ["Chunk", "Setup", "Worker"]


@dataclass(frozen=True)
class Setup:
    """How a worker measures.

    Attributes:
        options: what to measure.
        runtime: execution provider and threads of the worker.
        batch_size: number of samples in a batch.
        folder: current folder of the driver, from which relative paths start.
        settings: what is known about the model's inputs beyond the model.
        one_size: whether all samples are of one size.
        opened: whether to open the batch of the model, which was exported for one sample.
    """

    options: CalibrationOptions
    runtime: Runtime
    batch_size: int
    folder: str
    settings: InputSettings = field(default_factory=InputSettings)
    one_size: bool = False
    opened: bool = False


@dataclass(frozen=True)
class Chunk:
    """Samples that are sent to a worker together.

    Attributes:
        indices: their indices.
        parts: readers of these samples, each with the offset to add to the indices it yields.
    """

    indices: Indices = field(repr=False)
    parts: tuple[tuple[int, Reader], ...] = field(repr=False)

    def blocks(self, size: int, threads: int, skipped: list[Skipped]) -> Iterator[Batch]:
        """Yield blocks of usable samples, and append the others to `skipped`."""
        for offset, part in self.parts:
            for block in part.blocks(size, threads):
                if isinstance(block, Skipped):
                    skipped.append(block.shifted(offset))
                else:
                    yield block.shifted(offset)


class Worker:
    """Measures chunks in one session, which is opened with the first chunk."""

    def __init__(self, model: bytes | str, setup: Setup) -> None:
        """`model` is the serialized model, or the path of a large one."""
        if os.path.isdir(setup.folder):
            os.chdir(setup.folder)
        self.setup = setup
        opened = Model.open(model if isinstance(model, str) else onnx.ModelProto.FromString(model))
        as_given = inlined(opened).fed(setup.settings)
        self.model = (opened_model(as_given, setup.options) if setup.opened else None) or as_given
        self.probe: ProbeSession | None = None

    def version(self) -> str:
        """Return the version of onnxnorm. An actor that answers this call is ready for chunks."""
        return VERSION

    def measure(self, chunk: Chunk) -> Increment:
        """Return the moments of all samples of a chunk together."""
        specs, setup = input_specs(self.model), self.setup
        skipped: list[Skipped] = []
        totals: Totals = {}
        shapes: dict[str, tuple[int, ...]] = {}
        ranges: dict[str, Range] = {}
        images = 0
        for batch in regroup(chunk.blocks(setup.batch_size, setup.runtime.threads or 1, skipped), setup.batch_size):
            shapes = shapes or sample_of(batch, specs)
            ranges = ranges or ranges_of(batch)
            if self.probe is None:
                self.probe = prepare(self.model, shapes, setup.options, setup.runtime, one_size=setup.one_size)
            totals = merge_totals(totals, self.probe.step(batch))
            images += batch.count
        return Increment(totals, images, tuple(chunk.indices.tolist()), tuple(skipped), shapes, ranges)
