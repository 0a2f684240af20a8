"""`rewrite`: scale the constants of a model, verify it and write it."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import onnx

from onnxnorm.api.common import Feeds, StatisticsLike, check_output, load_statistics, open_model, sample_shapes_of
from onnxnorm.api.options import RewriteOptions
from onnxnorm.display import Shown, html_block
from onnxnorm.errors import VerificationError
from onnxnorm.model.files import Model, ModelLike
from onnxnorm.model.graph import input_specs
from onnxnorm.options import documented
from onnxnorm.report.notebook import layers_plot, layers_table
from onnxnorm.rewriting import Rewriting, rewrite_model, sidecar_placed
from onnxnorm.rewriting.reach import Reach, reach_of
from onnxnorm.scaling import Plan
from onnxnorm.statistics import Statistics
from onnxnorm.verification import Verification, verify_models
from onnxnorm.verification.inputs import random_feeds

__all__ = ["Rewritten", "rewrite", "verify_and_write"]


@dataclass(frozen=True, repr=False)
class Rewritten(Shown):
    """The outcome of `rewrite` and `normalize`.

    Attributes:
        path: where the model was written; None if it was not.
        rewriting: the rewritten model, and what was done to it.
        statistics: what was measured on images; None if there was nothing.
        verification: the verdict; None if the model was not verified.
    """

    path: Path | None
    rewriting: Rewriting = field(repr=False)
    statistics: Statistics | None
    verification: Verification | None

    @property
    def plan(self) -> Plan:
        """Which filters could be scaled, and which could not."""
        return self.rewriting.plan

    @property
    def reach(self) -> Reach:
        """How many filters end at the target, and what keeps the others from it."""
        return reach_of(self.rewriting)

    @property
    def model(self) -> onnx.ModelProto:
        """The rewritten model in memory."""
        return self.rewriting.model.to_proto()

    def __str__(self) -> str:
        lines = [
            str(self.plan),
            f"{len(self.rewriting.changed)} constants changed, {len(self.rewriting.clones)} copied",
        ]
        lines += [str(self.verification)] if self.verification else ["not verified"]
        return "\n".join(lines + ([f"written to {self.path}"] if self.path else []))

    def _repr_html_(self) -> str:
        """Every filter before and after as a plot (with the extra `report`), the layers as a table, and the verdict."""
        table = layers_table(self.rewriting.scales.layers, self.rewriting.statistic)
        return html_block(*str(self).splitlines(), layers_plot(self.rewriting), table)


@documented(RewriteOptions)
def rewrite(
    model: ModelLike,
    statistics: StatisticsLike | None = None,
    output: str | os.PathLike[str] | None = None,
    *,
    options: RewriteOptions | None = None,
    **keywords: Any,
) -> Rewritten:
    """Scale constants so that every filter's statistic is the target and the output stays; verify, then write.

    Every filter that is free to have a scale of its own gets `scale = target / statistic ** strength`.

    Args:
        model: a path, or a ModelProto.
        statistics: a path, or `Statistics`; not needed for the statistics "weights" and "bn".
        output: the file to write; None to write none.
        options: all options as one object, instead of keywords.
        **keywords: options by name, below.

    Returns:
        The rewritten model in memory, its plan, its scales, and the verdict.

    Raises:
        ModelError: if the model cannot be read, or the rewritten one cannot be written.
        OptionError: if the value of an option makes no sense.
        StatisticsError: if the statistics were measured on another model, or lack what is needed.
        VerificationError: if the outputs differ, or fewer filters than required end at the target. Nothing is written
            then.
    """
    options = RewriteOptions.of(options, keywords)
    opened = open_model(model, options)
    measured = None if statistics is None else load_statistics(statistics)
    if measured is not None and measured.settings and measured.model == opened.digest():
        opened = opened.fed(measured.settings)
    if output is not None:
        check_output(output, opened, statistics, in_place=options.in_place)
    return verify_and_write(opened, measured, rewrite_model(opened, measured, options), output, [], options)


def verify_and_write(
    model: Model,
    statistics: Statistics | None,
    rewriting: Rewriting,
    output: str | os.PathLike[str] | None,
    samples: Iterable[Feeds],
    options: RewriteOptions,
) -> Rewritten:
    """Verify a rewritten model and write it.

    Args:
        model: the original.
        statistics: what was measured on it, for the range of random inputs.
        rewriting: the rewritten model.
        output: the file to write; None to write none.
        samples: inputs to verify on, besides random ones.
        options: what must hold before the model is written.

    Raises:
        VerificationError: if the outputs differ, or fewer filters than required end at the target. Nothing is written
            then.
    """
    reach = reach_of(rewriting)
    if options.require_share is not None and reach.share < options.require_share:
        reach = reach_of(rewriting, levels=True)
        raise VerificationError(f"{reach}; --require-share asks for {options.require_share:.0%}; nothing was written")

    def judged(rewritten: Model) -> Verification | None:
        if not options.verify:
            return None
        shapes = statistics.shapes if statistics else sample_shapes_of(model)
        ranges = statistics.inputs.get("ranges") if statistics else None
        feeds = chain(samples, random_feeds(input_specs(model), shapes, ranges))
        verdict = verify_models(
            model,
            rewritten,
            feeds,
            scales=rewriting.outputs,
            tolerance=options.tolerance_output,
            runtime=options.runtime,
            record=rewriting.record,
        )
        if not verdict.same:
            raise VerificationError(f"{verdict}; nothing was written")
        return verdict

    if output is None:
        return Rewritten(None, rewriting, statistics, judged(rewriting.model))
    beside = sidecar_placed(Path(output), rewriting.sidecar, rewriting.previous)
    with rewriting.model.staged(Path(output), beside) as staged:
        verification = judged(Model.open(staged))
    return Rewritten(Path(output), rewriting, statistics, verification)
