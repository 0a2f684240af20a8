"""The data of a report: the statistics of a model, the scales of its filters, and the result of the verification."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from onnxnorm.data.images.words import image_words
from onnxnorm.errors import OptionError, StatisticsError
from onnxnorm.model.files import Model
from onnxnorm.model.graph import input_specs
from onnxnorm.model.shapes import read_graph
from onnxnorm.rewriting import LayerScales, choose_scales, measure, needs_images
from onnxnorm.rewriting.ranges import stored_ranges
from onnxnorm.rewriting.read_back import ReadBack, read_back
from onnxnorm.scaling import Layer, Plan, Trace, find_layers, make_plan, trace
from onnxnorm.scaling.filters import FilterKind
from onnxnorm.scaling.plan import tied_filters
from onnxnorm.statistics import Statistics
from onnxnorm.statistics.precision import RelativeErrors
from onnxnorm.verification import Fp16, Verification
from onnxnorm.verification.fp16 import ModelRange, Side

__all__ = ["ReportData", "report_data"]


@dataclass(frozen=True)
class ReportData:
    """All that a report shows.

    Attributes:
        name: name of the model.
        digest: SHA-256 digest of the model.
        statistics: what was measured on the model.
        plan: what can be scaled, and why other filters are pinned.
        layers: for each layer, the statistic and the scales: those of the rewrite, or, if there is none, those that
            `onnxnorm rewrite` would choose by default.
        tied: for each layer, which filters share their scale, shape `(channels,)`.
        statistic: name of the statistic in `layers`.
        rewritten_name: name of the rewritten model; None if there is none.
        rewrite: how the model was rewritten; None if it was not.
        verification: the result of the verification; None if there is none.
        verified_on: what the verification ran on, for the text of the verdict.
        statistics_name: name of the statistics file.
        image_words: the options of the command line that prepare images as they were measured.
        ranges: what follows for float16, for the model and its rewritten version, from the largest magnitudes of every
            value that the calibration stored; empty if it stored none.
    """

    name: str
    digest: str
    statistics: Statistics
    plan: Plan
    layers: tuple[LayerScales, ...]
    tied: tuple[NDArray[np.bool_], ...] = field(repr=False)
    statistic: str = "mean"
    rewritten_name: str | None = None
    rewrite: ReadBack | None = None
    verification: Verification | None = None
    verified_on: str = ""
    statistics_name: str = "STATS"
    image_words: tuple[str, ...] = ()
    ranges: Mapping[Side, ModelRange] = field(default_factory=dict, repr=False)

    @property
    def stored(self) -> Fp16 | None:
        """What the calibration stored about both models; None if it stored nothing, or there is one model only."""
        if "rewritten" not in self.ranges:
            return None
        return Fp16(self.ranges["original"], self.ranges["rewritten"], self.statistics.images)

    @cached_property
    def errors(self) -> RelativeErrors:
        """How precise the means are."""
        return RelativeErrors.of(self.statistics.values)

    @property
    def settings(self) -> Mapping[str, str]:
        """The settings with which the model was rewritten, or would be by default."""
        usual = {"statistic": "mean", "strength": "1.0", "target": "1.0", "power_of_two": "false"}
        return usual | dict(self.rewrite.entries) if self.rewrite else usual


def report_data(
    model: Model,
    statistics: Statistics,
    rewritten: Model | None = None,
    *,
    verification: Verification | None = None,
    verified_on: str = "",
    statistics_name: str = "STATS",
) -> ReportData:
    """Collect the data of a report; see `ReportData` for the arguments.

    Raises StatisticsError or ModelError if the model, the statistics and the rewritten model do not belong together.
    """
    digest = model.digest()
    statistics.check_model(digest)
    rewrite = None if rewritten is None else read_back(model, rewritten, statistics.shapes)
    traced = rewrite.trace if rewrite else trace(read_graph(model, statistics.shapes))
    recorded = rewrite.entries.get("filters", statistics.filters) if rewrite else statistics.filters
    kind: FilterKind = "all" if recorded == "all" else "conv"
    layers = rewrite.layers(kind) if rewrite else find_layers(traced, kind)
    statistic, scaled = _scaled(model, traced, layers, statistics, rewrite)
    return ReportData(
        name=_name(model, "the model"),
        digest=digest,
        statistics=statistics,
        plan=make_plan(traced, layers, sum(int(layer.dead.sum()) for layer in scaled)),
        layers=scaled,
        tied=tuple(tied_filters(traced, layers)),
        statistic=statistic,
        rewritten_name=None if rewritten is None else _name(rewritten, "the rewritten model"),
        rewrite=rewrite,
        verification=verification,
        verified_on=verified_on,
        statistics_name=statistics_name,
        image_words=tuple(image_words(statistics.inputs.get("preprocessing"), input_specs(model))),
        ranges=_ranges(model, statistics, rewritten, rewrite),
    )


def _ranges(
    model: Model, statistics: Statistics, rewritten: Model | None, rewrite: ReadBack | None
) -> dict[Side, ModelRange]:
    if not statistics.peaks:
        return {}
    stored = stored_ranges(model, statistics, rewritten, rewrite)
    models: dict[Side, Model] = {"original": model, **({"rewritten": rewritten} if rewritten else {})}
    return {side: ModelRange.stored(each, found) for (side, each), found in zip(models.items(), stored, strict=True)}


def _scaled(
    model: Model,
    traced: Trace,
    layers: tuple[Layer, ...],
    statistics: Statistics,
    rewrite: ReadBack | None,
) -> tuple[str, tuple[LayerScales, ...]]:
    """Return the statistic to show, with the layers: the one of the rewrite if `statistics` has it, else the mean."""
    statistic = rewrite.entries.get("statistic", "mean") if rewrite else "mean"
    try:
        statistic = statistic if needs_images(statistic) else "mean"
        measured = measure(statistic, model, traced, layers, statistics)
    except (StatisticsError, OptionError):
        statistic, measured = "mean", measure("mean", model, traced, layers, statistics)
    scales = choose_scales(traced, layers, measured)
    if rewrite:
        scales = scales.at(rewrite.of_slot, np.zeros(rewrite.of_slot.size, np.bool_))
    return statistic, scales.layers


def _name(model: Model, otherwise: str) -> str:
    return model.path.name if model.path else model.proto.graph.name or otherwise
