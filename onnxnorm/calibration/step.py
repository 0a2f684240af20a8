"""What every engine does, in whatever process it runs: it opens a probe, and yields what was measured in parts.

`prepare` opens the probe of a model (`ProbeSession`), which measures batches. An engine yields `Increment`s: moments of
some samples, with the indices of these samples. Increments of disjoint samples can be added in any order.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

from onnxnorm.calibration.averages import Spreads
from onnxnorm.calibration.build import make_probe, sites_of
from onnxnorm.calibration.layout import blocked_values
from onnxnorm.calibration.links import find_links
from onnxnorm.calibration.options import CalibrationOptions
from onnxnorm.calibration.pace import is_light, samples_a_run
from onnxnorm.calibration.probe_session import ProbeSession, Shapes
from onnxnorm.calibration.ranges import Range
from onnxnorm.data.batches import Batch, Skipped
from onnxnorm.model.files import Model
from onnxnorm.model.graph import input_specs
from onnxnorm.model.inputs import InputSpec, fixed_batch
from onnxnorm.model.shapes import read_graph
from onnxnorm.runtime import Runtime, Session
from onnxnorm.scaling import Layer, Trace, find_layers, trace
from onnxnorm.scaling.channels import channel_axes
from onnxnorm.scaling.filters import has_rows_of_samples
from onnxnorm.statistics.measures import RANGE, needs
from onnxnorm.statistics.moments import Totals
from onnxnorm.threads import available_threads

__all__ = [
    "Increment",
    "prepare",
    "sample_of",
]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Increment:
    """Moments of some samples.

    Attributes:
        totals: the moments.
        images: number of samples measured.
        indices: indices of all samples that are now done, measured or skipped.
        skipped: the samples that could not be used.
        shapes: input shapes of one sample, or of the model's fixed batch.
        ranges: range of the numbers of each input.
    """

    totals: Totals = field(repr=False)
    images: int
    indices: tuple[int, ...] = field(repr=False)
    skipped: tuple[Skipped, ...] = ()
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    ranges: Mapping[str, Range] = field(default_factory=dict)


def prepare(
    model: Model,
    shapes: Mapping[str, tuple[int, ...]],
    options: CalibrationOptions,
    runtime: Runtime,
    *,
    one_size: bool = False,
    most: int = sys.maxsize,
) -> ProbeSession:
    """Trace a model for inputs of these shapes, build its probe and open a session on the probe.

    Args:
        model: the model.
        shapes: the input shapes of one sample, or of the model's fixed batch.
        options: what to measure.
        runtime: how to run it.
        one_size: whether all samples have these shapes.
        most: how many samples a run may have.

    Raises:
        ModelError: if nothing can be measured, or the runtime rejects the probe.
        ProviderError: if the execution provider cannot be started.
    """
    graph = read_graph(model, shapes)
    traced = trace(graph)
    layers = [layer for layer in find_layers(traced, options.filters) if not _is_idle(traced, layer)]
    sites = sites_of(layers, options.measure)
    axes = channel_axes(traced) if RANGE in options.measure else {}
    probe = make_probe(
        model,
        graph,
        sites,
        kind=options.filters,
        maxima=needs("largest", options.measure) or needs("histogram", options.measure),
        histograms=needs("histogram", options.measure),
        one_size=one_size,
        blocked=blocked_values(graph) if runtime.on_cpu else None,
        peaks=axes,
        links=find_links(traced, axes) if axes else {},
    )
    _log.info("probe: %d values measured for inputs of %s", len(sites), dict(shapes))

    @lru_cache(maxsize=64)
    def spreads(inputs: Shapes, batch: int) -> Spreads:
        return probe.spreads(read_graph(model, dict(inputs)).shapes, batch)

    def reopen() -> Session:
        return replace(runtime, arena=False).session(probe.proto, probe.folder)

    session = replace(runtime, patterns=runtime.on_cpu and one_size and is_light(graph)).session(
        probe.proto, probe.folder
    )
    threads = runtime.threads or available_threads()
    ranged = [tap.value for tap in probe.peaks if tap.link is None]
    if runtime.on_cpu:
        most = min(most, samples_a_run(graph, layers, probe.proto.graph, threads, ranged))
    _log.info("at most %d samples in a run", most)
    return ProbeSession(model, input_specs(model), probe, session, options.weighting, spreads, most, reopen)


def _is_idle(traced: Trace, layer: Layer) -> bool:
    """Whether a layer cannot be measured, and need not be: its filters are pinned, or computed for each sample."""
    idle = layer.computed or bool(traced.groups.is_pinned(layer.slots).all())
    return idle and not has_rows_of_samples(traced.graph, layer.site)


def sample_of(batch: Batch, specs: Sequence[InputSpec]) -> dict[str, tuple[int, ...]]:
    """Return the input shapes of one sample of a batch, or of the model's fixed batch."""
    count = fixed_batch(specs) or 1
    return {
        spec.name: spec.repeated(count).shape
        if spec.value is not None
        else spec.shape_of(batch.feeds[spec.name].shape[1:], count)
        for spec in specs
    }
