"""What is rewritten, and by which scales.

Without a ceiling, the graph is opened as far as the user allows, and scales bring every filter's statistic to the
target. With one, as little of the graph is opened as brings all values below it. Either way, openings that no scale
needs are taken back, and scales are chosen once more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import TypeAlias

from onnxnorm.model.files import Model
from onnxnorm.model.graph import Graph
from onnxnorm.rewriting.ceiling import Ceiling
from onnxnorm.rewriting.ceiling.peaks import measured_peaks
from onnxnorm.rewriting.ceiling.places import places_above
from onnxnorm.rewriting.layer_statistics import measure
from onnxnorm.rewriting.limits import within_range
from onnxnorm.rewriting.opened import Subject, needed, opened, subject_of
from onnxnorm.rewriting.options import ScaleOptions
from onnxnorm.rewriting.power_of_two import powers_of_two
from onnxnorm.rewriting.scales import Scales, choose_scales
from onnxnorm.scaling import choose_openings, find_layers, trace
from onnxnorm.scaling.filters import FilterKind
from onnxnorm.scaling.levels import LEVELS, Level
from onnxnorm.scaling.walk import Outputs
from onnxnorm.statistics import Statistics

__all__ = ["choose"]

Shapes: TypeAlias = Mapping[str, tuple[int, ...]]
Choose: TypeAlias = Callable[[Subject], tuple[Scales, Ceiling | None]]


def choose(
    graph: Graph,
    model: Model,
    shapes: Shapes,
    statistics: Statistics | None,
    options: ScaleOptions,
    filters: FilterKind,
) -> tuple[Subject, Scales, Ceiling | None]:
    """What is rewritten, its scales, and what they do for a ceiling, if there is one.

    Args:
        graph: the graph of the model.
        model: the model.
        shapes: input shapes of one sample, by name.
        statistics: what was measured on its activations; None for a statistic that needs no images.
        options: which filters are scaled, and by how much.
        filters: which layers have filters.
    """
    if options.ceiling is not None:
        return _under_ceiling(graph, model, shapes, statistics, options)
    subject = subject_of(graph, model, shapes, filters, options.outputs, options.allow, options.per)
    normalized = partial(_normalized, statistics=statistics, options=options)
    return _chosen(graph, model, shapes, subject, options.outputs, normalized)


def _chosen(
    graph: Graph, model: Model, shapes: Shapes, subject: Subject, outputs: Outputs, choose: Choose
) -> tuple[Subject, Scales, Ceiling | None]:
    """What is rewritten, without openings that no scale needs, and its scales."""
    scales, ceiling = choose(subject)
    while subject.insertion.of:
        openings = needed(subject, scales.of_slot)
        if len(openings) == len({*subject.insertion.of.values()}):
            break
        subject = opened(graph, model, shapes, subject.layers, openings, outputs).one_scale_per(subject.per)
        scales, ceiling = choose(subject)
    return subject, scales, ceiling


def _under_ceiling(
    graph: Graph, model: Model, shapes: Shapes, statistics: Statistics | None, options: ScaleOptions
) -> tuple[Subject, Scales, Ceiling]:
    """What is rewritten for a ceiling: no more of the graph than is needed, and of that what the ceiling needs.

    If values are left above it, the levels that were not allowed are tried too, to say what they would do.
    """
    from onnxnorm.rewriting.ceiling.choose import ceiling_scales  # SciPy's matrices take a tenth of a second to load

    assert options.ceiling is not None
    outputs = options.outputs
    plain = trace(graph)
    traced = plain if outputs == "keep" else trace(graph, outputs)
    under = partial(ceiling_scales, measured=measured_peaks(plain, statistics), ceiling=options.ceiling)
    subject = Subject(model, traced, find_layers(traced, "all"))
    subject, scales, found = _chosen(graph, model, shapes, subject, outputs, under)
    assert found is not None
    best, higher = (subject, scales, found), dict[Level, int]()
    for level in LEVELS[1:]:
        if not found.above:
            break
        if level == "nodes":
            openings = choose_openings(graph, places_above(subject.trace, found), outputs, joined=True)
            subject = opened(graph, model, shapes, subject.layers, openings, outputs)
        elif traced.wants_attributes:
            subject = subject_of(graph, model, shapes, "all", outputs, level)
        else:
            continue
        subject, scales, found = _chosen(graph, model, shapes, subject, outputs, under)
        assert found is not None
        if LEVELS.index(level) > LEVELS.index(options.allow):
            higher[level] = min(len(found.above), len(best[2].above), *higher.values())
        elif len(found.above) < len(best[2].above):
            best = subject, scales, replace(found, level=level)
    return best[0], best[1], replace(best[2], higher=higher)


def _normalized(subject: Subject, *, statistics: Statistics | None, options: ScaleOptions) -> tuple[Scales, None]:
    model, traced, layers = subject.model, subject.trace, subject.layers
    measured = measure(options.statistic, model, traced, layers, statistics, options.per)
    scales = choose_scales(traced, layers, measured, target=options.target, strength=options.strength)
    return (powers_of_two if options.power_of_two else within_range)(model, traced, scales), None
