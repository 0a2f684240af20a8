"""MODEL + STATS → trace → scales → rewritten model, in memory. Nothing is written to files and no model is run here."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from onnxnorm.errors import StatisticsError
from onnxnorm.model.files import Model
from onnxnorm.model.shapes import assumed_shapes, read_graph
from onnxnorm.rewriting.additions import Additions, additions
from onnxnorm.rewriting.ceiling import Ceiling
from onnxnorm.rewriting.choose import choose
from onnxnorm.rewriting.constants import Clone, ScaledData, apply_edits
from onnxnorm.rewriting.factors import Rounding
from onnxnorm.rewriting.insertion import NOTHING, Insertion
from onnxnorm.rewriting.layer_statistics import needs_images
from onnxnorm.rewriting.options import ScaleOptions
from onnxnorm.rewriting.outlook import touched_share
from onnxnorm.rewriting.record import OUTPUTS_RECORDED, Record, read_entries, record_entries, write_entries
from onnxnorm.rewriting.scales import Scales
from onnxnorm.scaling import Plan, Trace, make_plan
from onnxnorm.scaling.filters import FilterKind
from onnxnorm.scaling.levels import Level
from onnxnorm.statistics import Statistics
from onnxnorm.statistics.measures import RANGE
from onnxnorm.version import VERSION

__all__ = ["Rewriting", "clips_with", "rewrite_model"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Rewriting:
    """A rewritten model, and what was done to it.

    Attributes:
        model: the rewritten model.
        plan: which filters could be scaled.
        scales: the scales.
        changed: names of the constants that changed.
        clones: the constants that had to be copied.
        outputs: scales of graph outputs that are not all 1, by name; each broadcasts against the output.
        unrecorded: those outputs whose scales are too many for the metadata.
        entries: the provenance of the rewritten model, keys without prefix.
        previous: the provenance of the model before; empty if that was not a rewritten one.
        sidecar: the record of the scales if it is too long for the metadata.
        record: by what each constant was multiplied.
        noted: rounding errors of the constants that were written so far.
        bounds: number of Clips whose bounds changed.
        insertion: the nodes and constants that were added.
        touched: elements that new nodes touch for one sample, as a share of all elements that the graph computes.
        ceiling: what a ceiling reached; None if none was asked for.
        trace: the walk over the model with what was added.
    """

    model: Model = field(repr=False)
    plan: Plan
    scales: Scales
    changed: tuple[str, ...]
    clones: tuple[Clone, ...]
    outputs: dict[str, NDArray[np.float64]] = field(repr=False)
    unrecorded: tuple[str, ...]
    entries: Mapping[str, str] = field(repr=False)
    previous: Mapping[str, str] = field(repr=False)
    sidecar: bytes | None = field(repr=False)
    record: Record = field(repr=False)
    noted: Rounding = field(repr=False)
    bounds: int
    insertion: Insertion = NOTHING
    touched: float = 0.0
    ceiling: Ceiling | None = None
    trace: Trace = field(repr=False, kw_only=True)

    @property
    def level(self) -> Level:
        """How much of the graph was allowed to change; under a ceiling, the lowest level that does as much."""
        return self.entries["level"]  # type: ignore[return-value]

    @property
    def attributes_changed(self) -> int:
        """Number of attributes that changed."""
        return len(self.record.attributes)

    @property
    def nodes_added(self) -> int:
        """Number of nodes that were added."""
        return len(self.insertion.nodes)

    @property
    def additions(self) -> Additions:
        """What changed beside the values of constants."""
        return additions(self.trace.graph, self.insertion, self.record.attributes.values())

    @property
    def statistic(self) -> str:
        """Name of the statistic that was brought to the target."""
        return self.entries["statistic"]

    @property
    def strength(self) -> float:
        """The power to which the statistic was raised."""
        return float(self.entries["strength"])

    @property
    def target(self) -> float:
        """The value to which the statistic was brought."""
        return float(self.entries["target"])

    @property
    def power_of_two(self) -> bool:
        """Whether every scale is a power of two."""
        return self.entries["power_of_two"] == "true"

    @property
    def rounding(self) -> Rounding:
        """Rounding errors of all changed constants. Those that were not written yet are scaled once for this."""
        for tensor_data in self.model.tensor_data.values():
            if isinstance(tensor_data, ScaledData) and tensor_data.constant.name not in self.noted.of:
                for _ in tensor_data.chunks():
                    pass
        return self.noted


def rewrite_model(model: Model, statistics: Statistics | None, options: ScaleOptions | None = None) -> Rewriting:
    """Scale the constants of a model, in memory, so that every filter's statistic is brought to the target.

    Args:
        model: the model; it stays as it is.
        statistics: what was measured on its activations; not needed for a statistic that needs no images.
        options: which filters are scaled, and by how much.

    Raises:
        OptionError: if the value of an option makes no sense.
        StatisticsError: if the statistic is measured on images, and `statistics` is None, lacks it, or is of another
            model.
        ModelError: if a scaled constant leaves the range of its type.
    """
    options = options or ScaleOptions()
    filters: FilterKind = options.filters or (statistics.filters if statistics else "conv")
    digest = model.digest()
    previous = read_entries(model)
    if statistics is not None and (options.ceiling is not None or needs_images(options.statistic)):
        _check(statistics, digest, previous)
    else:
        statistics = None
    shapes = statistics.shapes if statistics else assumed_shapes(model)
    graph = read_graph(model, shapes)
    subject, scales, ceiling = choose(graph, model, shapes, statistics, options, filters)
    traced, layers = subject.trace, subject.layers
    _log.info(
        "%d filters in %d layers; scales from %.4g to %.4g",
        sum(layer.channels for layer in layers),
        len(layers),
        *scales.span,
    )
    applied = apply_edits(subject.model, traced.edits, scales.of_slot)
    scaled_outputs = _output_scales(traced, scales)
    short = {name: array for name, array in scaled_outputs.items() if array.size <= OUTPUTS_RECORDED}
    entries = _entries(model, statistics, options, ceiling) | {"filters": filters, "original": digest}
    record = Record.of(applied, subject.insertion)
    more, sidecar = record_entries(record, short, previous)
    entries |= more
    write_entries(applied.model.proto, entries)
    return Rewriting(
        model=applied.model,
        plan=replace(make_plan(traced, layers, scales.dead), functions_inlined=model.inlined),
        scales=scales,
        changed=applied.changed,
        clones=applied.clones,
        outputs=scaled_outputs,
        unrecorded=tuple(name for name in scaled_outputs if name not in short),
        entries=entries,
        previous=previous,
        sidecar=sidecar,
        record=record,
        noted=applied.rounding,
        bounds=clips_with(applied.model, applied.factors),
        insertion=subject.insertion,
        touched=touched_share(graph, subject),
        ceiling=ceiling,
        trace=traced,
    )


def _entries(
    model: Model, statistics: Statistics | None, options: ScaleOptions, ceiling: Ceiling | None
) -> dict[str, str]:
    """What is recorded about the options, the statistics and the model."""
    entries = {
        "version": VERSION,
        "statistic": options.statistic if ceiling is None else RANGE,
        "strength": repr(float(options.strength)),
        "target": repr(float(options.target if ceiling is None else ceiling.ceiling)),
        "power_of_two": str(options.power_of_two or ceiling is not None).lower(),
        "keep_outputs": str(options.outputs == "keep").lower(),
        "level": options.allow if ceiling is None else ceiling.level,
    }
    if statistics is not None:
        entries["statistics"] = hashlib.sha256(statistics.to_bytes()).hexdigest()
        entries["images"] = str(statistics.images)
        if statistics.inputs.get("preprocessing"):
            entries["preprocessing"] = json.dumps(statistics.inputs["preprocessing"], sort_keys=True)
    if options.per != "channel":
        entries["per"] = options.per
    if model.inputs_as_constants:
        entries["inputs_as_constants"] = "true"
    if model.inlined:
        entries["inlined"] = replace(model, source_digest="").digest()
    return entries


def _check(statistics: Statistics, digest: str, previous: Mapping[str, str]) -> None:
    if statistics.model != digest and statistics.model == previous.get("original"):
        raise StatisticsError(
            "this model was rewritten already, and the statistics were measured on the one before; "
            "calibrate this model, or rewrite that one"
        )
    statistics.check_model(digest)


def clips_with(model: Model, constants: Collection[str]) -> int:
    """Number of Clip nodes that have a bound among these constants."""
    nodes = model.proto.graph.node
    return sum(node.op_type == "Clip" and any(name in constants for name in node.input[1:]) for node in nodes)


def _output_scales(traced: Trace, scales: Scales) -> dict[str, NDArray[np.float64]]:
    arrays = {name: scales.of_slot[traced.ids[name]] for name in traced.graph.outputs if name in traced.ids}
    return {name: array for name, array in arrays.items() if (array != 1).any()}
