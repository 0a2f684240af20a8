"""`plan`: which filters a rewrite could scale."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from onnxnorm.api.common import StatisticsLike, load_statistics, open_model, sample_shapes_of
from onnxnorm.api.options import PlanOptions
from onnxnorm.model.files import ModelLike
from onnxnorm.model.shapes import read_graph
from onnxnorm.options import documented
from onnxnorm.rewriting import count_dead, measure
from onnxnorm.rewriting.opened import subjects_of
from onnxnorm.rewriting.outlook import level_plans
from onnxnorm.scaling import Plan, make_plan
from onnxnorm.scaling.filters import why_no_layers

__all__ = ["plan"]


@contextmanager
def _uncollected() -> Iterator[None]:
    """Without Python's search for cycles: it would look again and again at all that a plan is made from.

    That takes a seventh of the time, and finds nothing that could go before the plan is done.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


@_uncollected()
@documented(PlanOptions)
def plan(
    model: ModelLike,
    statistics: StatisticsLike | None = None,
    *,
    options: PlanOptions | None = None,
    **keywords: Any,
) -> Plan:
    """Determine which filters can be normalized, which share a scale, and why others cannot. Runs no inference.

    Args:
        model: a path, or a ModelProto.
        statistics: a path, or `Statistics`; dead filters are known only with them.
        options: all options as one object, instead of keywords.
        **keywords: options by name, below.

    Returns:
        The plan: counts, layers, groups that share scales, barriers with their reasons, and what each level of freedom
        would give.

    Raises:
        ModelError: if the model cannot be read.
        OptionError: if the value of an option makes no sense.
        StatisticsError: if the statistics were measured on another model.
    """
    options = PlanOptions.of(options, keywords)
    opened = open_model(model, options)
    measured = None if statistics is None else load_statistics(statistics)
    if measured is not None:
        measured.check_model(opened.digest())
        opened = opened.fed(measured.settings)
    shapes = measured.shapes if measured else sample_shapes_of(opened, options.size)
    kind = options.filters or (measured.filters if measured else "conv")
    graph = read_graph(opened, shapes)
    subjects = subjects_of(graph, opened, shapes, kind, options.outputs, options.per)
    traced, layers = subjects[options.allow].trace, subjects[options.allow].layers
    dead = count_dead(measure("mean", opened, traced, layers, measured)) if measured else 0
    planned = replace(make_plan(traced, layers, dead), functions_inlined=opened.inlined)
    if not layers:
        return replace(planned, nothing=why_no_layers(opened.proto, kind))
    return replace(planned, levels=level_plans(graph, subjects))
