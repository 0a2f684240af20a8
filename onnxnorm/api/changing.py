"""`rewrite`, `normalize` and `restore`: what changes models, verified before it is written."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any

import onnx

from onnxnorm.api.common import SAMPLES, Feeds, ImageWords, StatisticsLike, feeds_of, loaded, shapes_of
from onnxnorm.api.measuring import calibrate
from onnxnorm.calibration import Data, ImageOptions, Progress, Runtime, open_data
from onnxnorm.errors import VerificationError
from onnxnorm.model.files import Model, ModelLike, check_target
from onnxnorm.model.graph import input_specs
from onnxnorm.rewriting import (
    Restored,
    Rewriting,
    Statistic,
    restore_model,
    rewrite_model,
    write_sidecar,
)
from onnxnorm.scaling import Plan
from onnxnorm.scaling.filters import FilterKind
from onnxnorm.scaling.walk import Outputs
from onnxnorm.statistics import MEASURES, Statistics
from onnxnorm.verification import Verification, verify_models
from onnxnorm.verification.inputs import random_feeds

if sys.version_info >= (3, 11):
    from typing import Unpack
else:
    from typing_extensions import Unpack

__all__ = ["Rewritten", "normalize", "restore", "rewrite"]


@dataclass(frozen=True)
class Rewritten:
    """The outcome of `rewrite` and `normalize`; `path` is where it was written, None if it was not."""

    path: Path | None
    rewriting: Rewriting = field(repr=False)
    statistics: Statistics | None
    verification: Verification | None

    @property
    def plan(self) -> Plan:
        """What could be scaled, and what could not."""
        return self.rewriting.plan

    @property
    def model(self) -> onnx.ModelProto:
        """The rewritten model in memory."""
        return self.rewriting.model.to_proto()

    def __str__(self) -> str:
        lines = [
            str(self.plan),
            f"{len(self.rewriting.changed)} constants changed, {len(self.rewriting.clones)} cloned",
        ]
        lines += [str(self.verification)] if self.verification else ["not verified"]
        return "\n".join(lines + ([f"written to {self.path}"] if self.path else []))


def rewrite(
    model: ModelLike,
    statistics: StatisticsLike | None = None,
    output: str | os.PathLike[str] | None = None,
    *,
    statistic: Statistic = "mean",
    strength: float = 1.0,
    target: float = 1.0,
    power_of_two: bool = False,
    outputs: Outputs = "keep",
    filters: FilterKind | None = None,
    verify: bool = True,
    tolerance_output: float | None = None,
    provider: str = "auto",
    threads: int | None = None,
) -> Rewritten:
    """Scale constants so that every filter's statistic is `target` and the output stays; verify; write.

    `scale = target / statistic ** strength`. The statistics "weights" and "bn" need no `statistics`. Without `output`
    nothing is written. Raises VerificationError, and writes nothing, if the outputs differ.
    """
    opened, found = Model.open(model), None if statistics is None else loaded(statistics)
    if output is not None:
        check_target(output)
    rewriting = rewrite_model(
        opened,
        found,
        statistic=statistic,
        strength=strength,
        target=target,
        power_of_two=power_of_two,
        outputs=outputs,
        filters=filters or _filters(found),
    )
    return _finish(opened, found, rewriting, output, [], verify, tolerance_output, Runtime(provider, threads))


def normalize(
    model: ModelLike,
    data: Data,
    output: str | os.PathLike[str] | None = None,
    *,
    statistic: Statistic = "mean",
    strength: float = 1.0,
    target: float = 1.0,
    power_of_two: bool = False,
    outputs: Outputs = "keep",
    filters: FilterKind = "conv",
    verify: bool = True,
    tolerance_output: float | None = None,
    batch_size: int | None = None,
    limit: int | None = None,
    provider: str = "auto",
    threads: int | None = None,
    tolerance: float | None = None,
    tolerance_share: float = 0.95,
    progress: Callable[[Progress], None] | None = None,
    **images: Unpack[ImageWords],
) -> Rewritten:
    """Calibrate, rewrite and verify (on random inputs and on some of the data) in one go."""
    if output is not None:
        check_target(output)
    opened = Model.open(model)
    kept: list[Any] = []
    statistics = calibrate(
        model,
        _keeping(data, kept) if isinstance(data, Iterator) else data,
        batch_size=batch_size,
        limit=limit,
        provider=provider,
        threads=threads,
        filters=filters,
        tolerance=tolerance,
        tolerance_share=tolerance_share,
        progress=progress,
        also=(statistic,) if statistic in MEASURES else (),
        **images,
    )
    rewriting = rewrite_model(
        opened,
        statistics,
        statistic=statistic,
        strength=strength,
        target=target,
        power_of_two=power_of_two,
        outputs=outputs,
        filters=filters,
    )
    real: list[Feeds] = []
    if verify:
        dataset = open_data(kept or data, input_specs(opened), ImageOptions(**images))  # type: ignore[arg-type]
        with closing(feeds_of(opened, dataset, batch_size, SAMPLES)) as read:
            real = list(islice(read, SAMPLES))
    return _finish(opened, statistics, rewriting, output, real, verify, tolerance_output, Runtime(provider, threads))


def restore(
    rewritten: ModelLike,
    output: str | os.PathLike[str] | None = None,
    *,
    scales: str | os.PathLike[str] | None = None,
    verify: bool = True,
) -> Restored:
    """Undo a rewrite: bit for bit after power-of-two scales, to rounding otherwise. `scales` is the sidecar, if moved.

    With `verify`, raises VerificationError, and writes nothing, if a restored model that must be the original is not.
    """
    found = restore_model(Model.open(rewritten), None if scales is None else Path(scales))
    if verify and found.exact and not found.same:
        raise VerificationError(
            "the restored model is not the original that the rewrite recorded (another digest): the model was changed "
            "after it was rewritten; --no-verify writes what comes out"
        )
    if output is not None:
        check_target(output)
        found.model.write(Path(output))
    return found


def _filters(statistics: Statistics | None) -> FilterKind:
    """The layers that statistics were measured for."""
    kind: Any = statistics.filters if statistics else "conv"
    return kind  # type: ignore[no-any-return]


def _finish(
    model: Model,
    statistics: Statistics | None,
    rewriting: Rewriting,
    output: str | os.PathLike[str] | None,
    real: Iterable[Feeds],
    verify: bool,
    tolerance: float | None,
    runtime: Runtime,
) -> Rewritten:
    """Verify, and write if that is wanted and the verdict allows it."""

    def judged(rewritten: Model) -> Verification | None:
        if not verify:
            return None
        shapes = statistics.shapes if statistics else shapes_of(model, None)
        ranges = statistics.inputs.get("ranges") if statistics else None
        feeds = chain(real, random_feeds(input_specs(model), shapes, ranges))
        verdict = verify_models(model, rewritten, feeds, scales=rewriting.outputs, tolerance=tolerance, runtime=runtime)
        if not verdict.same:
            raise VerificationError(f"{verdict}; nothing was written")
        return verdict

    if output is None:
        return Rewritten(None, rewriting, statistics, judged(rewriting.model))
    with rewriting.model.staged(Path(output)) as staged:
        verification = judged(Model.open(staged))
        if rewriting.sidecar is not None:
            write_sidecar(Path(output), rewriting.sidecar)
    return Rewritten(Path(output), rewriting, statistics, verification)


def _keeping(data: Iterator[Any], kept: list[Any]) -> Iterator[Any]:
    """What can be read only once, the first samples kept for the verification."""
    samples = 0
    for item in data:
        if samples < SAMPLES:
            kept.append(item)
            samples += _length(item)
        yield item


def _length(item: Any) -> int:
    """Number of samples in an item of DATA; a path counts as one."""
    if isinstance(item, Mapping):
        item = next(iter(item.values()), ())
    return 1 if isinstance(item, (str, os.PathLike)) or not hasattr(item, "__len__") else len(item)
