"""`rewrite`: scale constants, verify, write."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import onnx

from onnxnorm.api.common import Feeds, StatisticsLike, loaded, shapes_of
from onnxnorm.errors import VerificationError
from onnxnorm.model.files import Model, ModelLike, check_target
from onnxnorm.model.graph import input_specs
from onnxnorm.rewriting import (
    Rewriting,
    Statistic,
    rewrite_model,
    write_sidecar,
)
from onnxnorm.runtime import Runtime
from onnxnorm.scaling import Plan
from onnxnorm.scaling.filters import FilterKind
from onnxnorm.scaling.walk import Outputs
from onnxnorm.statistics import Statistics
from onnxnorm.verification import Verification, verify_models
from onnxnorm.verification.inputs import random_feeds

if sys.version_info >= (3, 11):
    pass
else:
    pass

__all__ = ["Rewritten", "finish", "rewrite"]


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
    return finish(opened, found, rewriting, output, [], verify, tolerance_output, Runtime(provider, threads))


def _filters(statistics: Statistics | None) -> FilterKind:
    """The layers that statistics were measured for."""
    kind: Any = statistics.filters if statistics else "conv"
    return kind  # type: ignore[no-any-return]


def finish(
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
