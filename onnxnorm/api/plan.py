"""`plan`: what a rewrite could do to a model."""

from __future__ import annotations

import sys
from typing import Any

from onnxnorm.api.common import StatisticsLike, loaded, shapes_of
from onnxnorm.data.images.options import Size
from onnxnorm.model.files import Model, ModelLike
from onnxnorm.model.shapes import read_graph
from onnxnorm.rewriting import (
    count_dead,
    measure,
)
from onnxnorm.scaling import Plan, find_layers, make_plan, trace
from onnxnorm.scaling.filters import FilterKind
from onnxnorm.scaling.walk import Outputs

if sys.version_info >= (3, 11):
    pass
else:
    pass

__all__ = ["plan"]


def plan(
    model: ModelLike,
    statistics: StatisticsLike | None = None,
    *,
    filters: FilterKind | None = None,
    outputs: Outputs = "keep",
    size: Size | None = None,
) -> Plan:
    """Say which filters can be normalized, which share a scale, and why others cannot; runs no inference.

    `size` is for inputs that leave it open; dead filters are known only with statistics.
    Raises ModelError, or StatisticsError if the statistics were measured on another model.
    """
    opened = Model.open(model)
    found = None if statistics is None else loaded(statistics)
    if found is not None:
        found.check_model(opened.digest())
    shapes = found.shapes if found else shapes_of(opened, size)
    traced = trace(read_graph(opened, shapes), outputs)
    kind: Any = filters or (found.filters if found else "conv")
    layers = find_layers(traced, kind)
    dead = count_dead(measure("mean", opened, traced, layers, found)) if found else 0
    return make_plan(traced, layers, dead)
